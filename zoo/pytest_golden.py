"""A pytest plugin: the option `--golden DIR`, folders of parity fixtures.

It is an installed plugin and no part of tests/conftest.py, since pytest takes the folder in a lone
`pytest --golden DIR` for the place of the tests until every plugin is loaded.
"""

from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--golden",
        action="append",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder of tokenzoo's parity fixtures, repeatable; default: tests/golden of the checkout",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: Any) -> None:
    # By now pytest has looked for its configuration above DIR, and not found ours: start again with it named.
    here = Path("pyproject.toml")
    if early_config.known_args_namespace.golden and early_config.inipath is None and here.is_file():
        raise SystemExit(pytest.main(["-c", str(here), *early_config.invocation_params.args]))
