"""What every test shares: a Hub client that is offline until a test says otherwise, and the --golden option."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# huggingface_hub reads its settings once, when it is imported: this comes before any import of tokenzoo.
# Port 9 of this machine answers nobody, so a test that forgets its stand-in fails at once instead of calling out.
_HUB_HOME = tempfile.mkdtemp(prefix="tokenzoo-tests-")
atexit.register(shutil.rmtree, _HUB_HOME, ignore_errors=True)
os.environ.update(
    HF_HOME=_HUB_HOME,
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_ENDPOINT="http://127.0.0.1:9",
)
for _name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(_name, None)

CHECKOUT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="append",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder of parity fixtures, repeatable; default: tests/golden. Name a test path first, "
        "or write --golden=DIR: pytest takes a lone --golden DIR for a folder of tests",
    )


def golden_dirs_of(config: pytest.Config) -> list[Path]:
    return [folder.resolve() for folder in config.getoption("--golden") or [CHECKOUT / "tests" / "golden"]]


@pytest.fixture(scope="session")
def golden_dirs(pytestconfig: pytest.Config) -> list[Path]:
    """The folders whose subfolders are parity fixtures."""
    return golden_dirs_of(pytestconfig)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the repository these tests belong to."""
    return CHECKOUT
