"""What every test shares: a Hub client that reaches nobody by accident, and the option --golden."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .hub_server import HubServer

# huggingface_hub reads its settings once, when it is imported: this comes before any import of tokenzoo.
# Port 9 of this machine answers nobody: a test that forgets its stand-in fails at once and calls nobody.
_HUB_HOME = tempfile.mkdtemp(prefix="tokenzoo-tests-")
atexit.register(shutil.rmtree, _HUB_HOME, ignore_errors=True)
os.environ.update(
    HF_HOME=_HUB_HOME,
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_ENDPOINT="http://127.0.0.1:9",
)
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processors; torch reads this when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(_name, None)

CHECKOUT = Path(__file__).resolve().parents[1]


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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A stand-in for the Hub that the client talks to, with an empty cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models run faster on one thread, and sums come in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader knows the toys, so that saved ones load."""
    from .toys import list_toys

    list_toys(monkeypatch)
