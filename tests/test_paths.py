"""The choice of path: what is asked for is what runs, and what cannot run says why."""

import subprocess
import sys

import pytest
import torch

from tokenzoo.kernels import paths
from tokenzoo.kernels.paths import chosen_path, using

HERE = torch.zeros(1)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(paths.VARIABLE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_torch_on_the_cpu_unless_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_path(HERE) == "torch"
    monkeypatch.setenv(paths.VARIABLE, "reference")
    assert chosen_path(HERE) == "reference"
    with using("torch"):
        assert chosen_path(HERE) == "torch"
        with using("reference"):
            assert chosen_path(HERE) == "reference"
        assert chosen_path(HERE) == "torch"
    assert chosen_path(HERE) == "reference"
    monkeypatch.setenv(paths.VARIABLE, "")
    assert chosen_path(HERE) == "torch"


def test_an_unknown_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.VARIABLE, "cuda")
    with pytest.raises(
        ValueError, match="kernel path 'cuda': expected reference, torch, triton; set TOKENZOO_KERNELS"
    ):
        chosen_path(HERE)
    with pytest.raises(ValueError, match="kernel path 'fast'"), using("fast"):  # pyright: ignore[reportArgumentType]
        pass


def test_triton_says_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "has_triton", lambda: True)
    with using("triton"):
        with pytest.raises(RuntimeError, match="this tensor is on cpu: move it"):
            chosen_path(HERE)
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        assert chosen_path(HERE) == "triton"
        with pytest.raises(RuntimeError, match="this tensor is float64"):
            chosen_path(HERE.double())
        monkeypatch.setattr(paths, "has_triton", lambda: False)
        with pytest.raises(RuntimeError, match="Triton is not installed: pip install triton"):
            chosen_path(HERE)


def test_importing_the_kernels_imports_no_triton_of_ours() -> None:
    code = (
        "import sys, tokenzoo.kernels.vq\n"
        "print([m for m in sys.modules if m.startswith('tokenzoo') and m.endswith('_triton')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
