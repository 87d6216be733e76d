"""A pytest plugin: the option `--golden DIR`, folders of parity fixtures.

It is an installed plugin and no part of tests/conftest.py, since pytest would take the folder in a lone
`pytest --golden DIR` for the place of the tests, and never read that conftest.
"""

from pathlib import Path
from typing import Any


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--golden",
        action="append",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder of tokenzoo's parity fixtures, repeatable; default: tests/golden of the checkout",
    )
