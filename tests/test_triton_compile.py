"""Every launch of the Triton kernels compiled for a Hopper GPU, on a machine that has none.

The functions that launch are called as they are. Under a stand-in for the driver each launch ends with the
machine code, so that types, constants and tiles are those of a real one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("what is interpreted is not compiled", allow_module_level=True)

import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from tokenzoo.kernels import vq_triton
from tokenzoo.kernels.residual_triton import FUSED_UP_TO_DIM, residual_tiles, residual_triton
from tokenzoo.kernels.scalar_triton import bins_triton, levels_triton, signs_triton
from tokenzoo.kernels.statistics_triton import statistics_triton

SHARED_BYTES = 227 * 1024


class Hopper:
    """What triton asks of a driver before it compiles, for an H100 or H200 that no process has."""

    def get_current_device(self) -> int:
        return 1000

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@dataclass(frozen=True, eq=False)
class Compiled:
    """One kernel: its name, its PTX, bytes of shared memory of a program, and of the stack of a thread."""

    name: str
    ptx: str
    shared: int
    stack: int


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Compiled]:
    """The kernels launched so far."""
    kernels: list[Compiled] = []
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: object, grid: object, warmup: bool, **options: object) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        cubin = tmp_path / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        stack = re.search(r"STACK:(\d+)", usage)
        assert stack, usage
        kernels.append(Compiled(self.fn.__name__, kernel.asm["ptx"], kernel.metadata.shared, int(stack[1])))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(driver, "_active", Hopper())
    monkeypatch.setattr(JITFunction, "run", compile_only)
    return kernels


def check(kernels: list[Compiled], *names: str, spilled: int = 64) -> None:
    assert {kernel.name for kernel in kernels} == set(names)
    for kernel in kernels:
        assert ".target sm_90a" in kernel.ptx
        assert kernel.shared <= SHARED_BYTES
        assert kernel.stack <= spilled, f"{kernel.name} spills {kernel.stack} bytes of registers"
        assert not re.search(r"\b(atom|red)\.\S*\.b?f(16|32|64)", kernel.ptx), (
            "atomics on floats have no order"
        )
        if kernel.name not in ("_screen", "_walk"):
            assert "mma" not in kernel.ptx, "tensor cores do not multiply in float32"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [7, 32, 64, 100, 256, 512])  # one of each width of tiles
def test_screening(
    dim: int, dtype: torch.dtype, compiled: list[Compiled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vq_triton, "SCREEN_DTYPE", dtype)
    for rows in (256, 1 << 15):
        vq_triton.screened(torch.zeros(rows, dim), torch.zeros(300, dim), torch.zeros(300))
    # Of rows that are read in parts, the tiles that were fastest on an H200 do not fit in registers; those of
    # few features do not with triton 3.6.
    check(compiled, "_halve", "_screen", spilled=400 if dim > 256 else 200 if dim <= 16 else 64)
    kind = "bf16" if dtype == torch.bfloat16 else "f16"
    assert re.search(rf"wgmma\.mma_async\S*\.f32\.{kind}\.{kind}", compiled[-1].ptx)


@pytest.mark.parametrize(
    ("rows", "codes", "dim"), [(256, 300, 7), (256, 300, 32), (256, 300, 100), (1, 1, 8)]
)
def test_scan(rows: int, codes: int, dim: int, compiled: list[Compiled]) -> None:
    inputs = torch.zeros(rows, dim), torch.zeros(codes, dim), torch.zeros(codes)
    vq_triton.scanned(*inputs)
    keys = torch.zeros(rows, dtype=torch.int64)
    left = vq_triton.OpenRows(torch.zeros(rows, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    vq_triton.scanned(*inputs, keys, left)
    check(compiled, "_scan")
    assert all(re.search(r"\b(atom|red)\.\S*\.min\.s64", kernel.ptx) for kernel in compiled)


@pytest.mark.parametrize(
    ("rows", "codes", "dim"),
    [
        (rows, codes, dim)
        for rows in (64, 4096)
        for codes, dim in [(300, 7), (1024, 32), (300, 64), (1024, 100)]
    ]
    + [(1, 1, 8)],
)
def test_residual(rows: int, codes: int, dim: int, compiled: list[Compiled]) -> None:
    residual_triton(torch.zeros(rows, dim), torch.zeros(8, codes, dim), torch.full((rows,), 8))
    check(compiled, "_offsets", "_halve", "_walk")


@pytest.mark.parametrize("dim", [1, 8, 100, 256])
def test_statistics(dim: int, compiled: list[Compiled]) -> None:
    statistics_triton(torch.zeros(100, dim), torch.zeros(100, dtype=torch.int64), 8)
    check(compiled, "_survey", "_add", "_finish")


@pytest.mark.parametrize(
    ("launch", "name"),
    [
        (lambda x: levels_triton(x[:, :4], (8, 5, 5, 5), 1e-3, False, False), "_levels"),
        (lambda x: levels_triton(x[:, :9], (8,) * 9, 1e-3, False, False), "_levels"),
        (lambda x: levels_triton(x, (2,) * 18, 0.0, True, True), "_levels"),
        (lambda x: signs_triton(x, 1.0, True), "_signs"),
        (lambda x: bins_triton(x, x[0]), "_bins"),
    ],
)
def test_scalar(launch: Callable[[Tensor], object], name: str, compiled: list[Compiled]) -> None:
    launch(torch.zeros(100, 18))
    check(compiled, name)


def test_tiles_are_what_a_product_takes() -> None:
    for dim in range(1, 2049):
        choices = [vq_triton.scan_tiles(dim), *(vq_triton.screen_tiles(rows, dim) for rows in (1, 1 << 20))]
        assert choices[1].width == choices[2].width
        if dim <= FUSED_UP_TO_DIM:
            choices += [residual_tiles(rows, dim) for rows in (1, 100_000)]
            assert choices[-1].width == choices[-2].width >= dim
        for tiles in choices:
            for size in (tiles.rows, tiles.codes, tiles.width):
                assert size >= 16 and size & (size - 1) == 0
