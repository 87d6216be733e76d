"""The benchmark of the kernels: `python -m tokenzoo.kernels.bench`, or `tokenzoo bench`.

On the CPU one thread, processor time, the least of several rounds, all contenders in each round; on a GPU
medians. Ratios are over ours: 5x means that a contender takes five times as long. Losing cells are printed
like all others.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tqdm import tqdm

from .bench_cases import CASES, OURS
from .bench_measure import Measurement, measure

LEGEND = (
    "Cells: time, and the most memory held beyond the inputs. 2x takes twice as long as tokenzoo, 0.5x half "
    "as long. VQP is vector-quantize-pytorch; compiled is the column before it under torch.compile."
)
REPLAYED = (
    " In brackets: replayed as a CUDA graph, without the time that Python takes to launch kernels, which is "
    "most of the time where there is little to do."
)
# What is measured as a CUDA graph; of its contenders, those of VQP wait for the device and cannot be.
REPLAY = ("nearest", "ema-step", "statistics", "residual", "fsq")
_PACKAGES = ("torch", "triton", "vector-quantize-pytorch", "flash-kmeans")


@dataclass(frozen=True, eq=False)
class Row:
    """One size of one operation, and what every contender took."""

    operation: str
    size: str
    measured: dict[str, Measurement]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command, on a parser of its own or on the one of `tokenzoo bench`."""
    parser.add_argument("operations", nargs="*", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=5, help="rounds of which the best counts (default: 5)")
    parser.add_argument("--first", type=int, help="only so many sizes of each operation")
    parser.add_argument("--out", type=Path, help="folder for kernels_DEVICE.md and .json")


def run(options: argparse.Namespace) -> int:
    """Measure, print the tables, write them; 0, or 1 when a contender disagrees with ours."""
    names = options.operations or list(CASES)
    if unknown := sorted(set(names) - set(CASES)):
        raise ValueError(f"unknown operation {', '.join(unknown)}; known: {', '.join(CASES)}")
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: expected at least 1")
    if options.out and options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file: give a folder")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU here; leave it out to measure the CPU")
    torch.set_num_threads(1)
    legend = LEGEND + REPLAYED if options.device == "cuda" else LEGEND
    page, rows = "\n\n".join([machine(options.device), legend]), []
    for name in names:
        rows += _measured(name, options)
        page += f"\n\n{table(name, rows)}"
        if options.out:  # what is there is kept if a later operation fails
            _write(options.out, options.device, page, rows)
    print(page)
    return 0


def _measured(name: str, options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for case in tqdm(list(CASES[name](options.device))[: options.first], desc=name, file=sys.stderr):
        if not case.agree():
            raise RuntimeError(
                f"{name}, {case.size}: tokenzoo and the plain formula disagree; nothing was timed"
            )
        replay = [key for key in case.contenders if name in REPLAY and not key.startswith("VQP")]
        rows.append(Row(name, case.size, measure(case.contenders, options.device, options.repeats, replay)))
    return rows


def table(name: str, rows: Sequence[Row]) -> str:
    """Markdown: a row a size, a column a contender, each with its ratio to ours and its peak memory."""
    mine = [row for row in rows if row.operation == name]
    contenders = list(dict.fromkeys(key for row in mine for key in row.measured))
    lines = [f"### {name}", "", f"| size | {' | '.join(contenders)} |", "|---|" + "---:|" * len(contenders)]
    for row in mine:
        cells = [_cell(row.measured.get(key), row.measured[OURS], key == OURS) for key in contenders]
        lines.append(f"| {row.size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(measured: Measurement | None, ours: Measurement, is_ours: bool) -> str:
    if measured is None:
        return "-"
    base, base_replayed = (1.0, 1.0) if is_ours else (ours.milliseconds, ours.replayed)
    digits, unit = (3, " ms") if is_ours else (2, "x")
    time = f"{_figures(measured.milliseconds / base, digits)}{unit}"
    if measured.replayed and base_replayed:
        time += f" ({_figures(measured.replayed / base_replayed, digits)}{unit})"
    return f"{time}, {_figures(measured.peak_mib, 2)} MiB"


def _figures(number: float, digits: int) -> str:
    """So many significant digits, but no exponent for a large number."""
    return f"{number:.0f}" if number >= 10**digits - 0.5 else f"{number:#.{digits}g}".rstrip(".")


def machine(device: str) -> str:
    """One paragraph: hardware, versions, method."""
    versions = [f"{name} {found}" for name in _PACKAGES if (found := _version(name))]
    if device == "cuda":
        hardware, method = torch.cuda.get_device_name(), "medians of triton.testing.do_bench"
    else:
        hardware = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
        method = "one thread, processor time, least of the rounds"
    return f"{hardware}; Python {platform.python_version()}, {', '.join(versions)}; {method}."


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name; Linux tells more than Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _write(folder: Path, device: str, page: str, rows: Sequence[Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"kernels_{device}.md").write_text(page + "\n")
    records = {"machine": machine(device), "rows": [asdict(row) for row in rows]}
    (folder / f"kernels_{device}.json").write_text(json.dumps(records, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command by itself."""
    parser = argparse.ArgumentParser(prog="python -m tokenzoo.kernels.bench", description=__doc__)
    add_options(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
