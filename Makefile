# PYTHONSAFEPATH keeps the checkout off sys.path, where kernels/ would shadow the package of that name.
export PYTHONSAFEPATH = 1
PYTHON ?= python

.PHONY: check format lint

check: lint
	$(PYTHON) -m pytest

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	mkdir -p .types && ln -sfn .. .types/tokenzoo
	$(PYTHON) -m pyright --project pyproject.toml --pythonpath "$$(command -v $(PYTHON))"

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
