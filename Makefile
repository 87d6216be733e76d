# PYTHONSAFEPATH keeps the checkout off sys.path, where kernels/ would shadow the package of that name.
export PYTHONSAFEPATH = 1
PYTHON ?= python

.PHONY: check format

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	mkdir -p .types && ln -sfn .. .types/tokenzoo
	$(PYTHON) -m pyright --project pyproject.toml --pythonpath "$$(command -v $(PYTHON))"
	$(PYTHON) -m pytest

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
