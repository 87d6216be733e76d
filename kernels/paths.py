"""Which implementation of a kernel runs: the readable reference, fast torch, or fused Triton."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

Path = Literal["reference", "torch", "triton"]
VARIABLE = "TOKENZOO_KERNELS"

_forced: ContextVar[Path | None] = ContextVar("tokenzoo_kernels", default=None)


def chosen_path(tensor: Tensor) -> Path:
    """The path for tensors like this one: what `using` or the environment asks for, else the fastest.

    By default Triton on CUDA, where it is installed, and torch everywhere else. Triton has no float64 and no
    other device, but for its interpreter (TRITON_INTERPRET=1), which runs on the CPU when asked for by name.

    Raises ValueError for an unknown path, RuntimeError when Triton is asked for where it cannot run.
    """
    path = _forced.get() or _checked(os.environ.get(VARIABLE) or None)
    if path is None:
        fused = tensor.is_cuda and tensor.dtype != torch.float64 and has_triton()
        return "triton" if fused else "torch"
    if path == "triton":
        _check_triton(tensor)
    return path


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Every kernel called inside takes this path. Compiled graphs choose when they run, as all others do."""
    token = _forced.set(_checked(path))
    try:
        yield
    finally:
        _forced.reset(token)


@cache
def has_triton() -> bool:
    """Triton is installed. It comes with torch for CUDA on Linux, and not elsewhere."""
    return find_spec("triton") is not None


def _checked(path: str | None) -> Path | None:
    if path is not None and path not in get_args(Path):
        raise ValueError(
            f"kernel path {path!r}: expected {', '.join(get_args(Path))}; set {VARIABLE} to one of them, "
            "or unset it"
        )
    return path  # pyright: ignore[reportReturnType]


def _check_triton(tensor: Tensor) -> None:
    if not has_triton():
        raise RuntimeError(f"Triton is not installed: pip install triton, or unset {VARIABLE}")
    if not tensor.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"Triton kernels run on CUDA, this tensor is on {tensor.device}: move it, unset {VARIABLE}, or "
            "set TRITON_INTERPRET=1 before Python starts to interpret them"
        )
    if tensor.dtype == torch.float64:
        raise RuntimeError(f"Triton kernels compute in float32, this tensor is float64: unset {VARIABLE}")
