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
from tempfile import TemporaryFile

import torch
from tqdm import tqdm

from .bench_cases import CASES, OURS
from .bench_measure import Measurement, measure
from .bench_peers import has_vqp

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
SUFFIXES, UNFINISHED = (".md", ".json"), ".unfinished"
_PACKAGES = ("torch", "triton", "vector-quantize-pytorch")


@dataclass(frozen=True, eq=False)
class Row:
    """One size of one operation, and what every contender took."""

    operation: str
    size: str
    measured: dict[str, Measurement]


def _parser() -> argparse.ArgumentParser:
    """The options; `tokenzoo bench` has the same, in a file that imports no torch (zoo/cli.py)."""
    parser = argparse.ArgumentParser(prog="python -m tokenzoo.kernels.bench", description=__doc__)
    parser.add_argument("operations", nargs="*", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--repeats", type=int, default=5, help="rounds of which the best counts (default: 5; CPU)"
    )
    parser.add_argument("--first", type=int, help="only so many sizes of each operation")
    parser.add_argument("--out", type=Path, help="folder for kernels_DEVICE.md and .json")
    parser.add_argument("--json", action="store_true", help="the numbers on stdout, not the tables")
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure, print each table when it is done, write what there is so far; 0.

    A run that is interrupted leaves its tables in kernels_DEVICE.unfinished.md and .json.

    Raises ValueError for options that make no sense, before anything is measured, and RuntimeError when a
    contender disagrees with ours.
    """
    names = list(dict.fromkeys(options.operations)) or list(CASES)
    _check(options, names)
    if not has_vqp():
        print('VQP is missing, its columns are left out: pip install ".[bench]"', file=sys.stderr)
    torch.set_num_threads(1)
    legend = LEGEND + REPLAYED if options.device == "cuda" else LEGEND
    parts, rows = [machine(options.device), legend], []
    for done, name in enumerate(names):
        rows += _measured(name, options)
        parts.append(table(name, rows))
        if not options.json:
            print("\n\n".join(parts) if done == 0 else f"\n{parts[-1]}", flush=True)
        if options.out:
            _write(options.out, options.device, "\n\n".join(parts), rows)
    if options.out:
        for suffix in SUFFIXES:
            name = f"kernels_{options.device}"
            (options.out / f"{name}{UNFINISHED}{suffix}").replace(options.out / f"{name}{suffix}")
    if options.json:
        print(json.dumps(_records(options.device, rows), indent=1))
    return 0


def _check(options: argparse.Namespace, names: Sequence[str]) -> None:
    if unknown := sorted(set(names) - set(CASES)):
        raise ValueError(f"unknown operation {', '.join(unknown)}; known: {', '.join(CASES)}")
    for option in ("repeats", "first"):
        count = getattr(options, option)
        if count is not None and count < 1:
            raise ValueError(f"--{option} {count}: expected at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU here; leave it out to measure the CPU")
    if options.out:
        _check_folder(options.out, options.device, names)


def _check_folder(folder: Path, device: str, names: Sequence[str]) -> None:
    """It can be written to, and holds no table of other operations, which would be lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"--out {folder}: {error.strerror}; give a folder to write to") from error
    page, numbers = (folder / f"kernels_{device}{suffix}" for suffix in SUFFIXES)
    for path in (page, numbers):
        if path.exists() and not path.is_file():
            raise ValueError(f"--out {folder}: {path.name} in it is no file; give another folder")
    if numbers.exists():
        held = {row["operation"] for row in json.loads(numbers.read_text())["rows"]}
        if others := sorted(held - set(names)):
            raise ValueError(
                f"--out {folder}: {numbers.name} in it also holds {', '.join(others)}, which would be lost; "
                "name no operation to measure all, or give another folder"
            )


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
    packages = [*_PACKAGES, "flash-kmeans"] if device == "cuda" else _PACKAGES
    versions = [f"{name} {found}" for name in packages if (found := _version(name))]
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


def _records(device: str, rows: Sequence[Row]) -> dict[str, object]:
    return {"machine": machine(device), "rows": [asdict(row) for row in rows]}


def _write(folder: Path, device: str, page: str, rows: Sequence[Row]) -> None:
    texts = page, json.dumps(_records(device, rows), indent=1)
    for suffix, text in zip(SUFFIXES, texts, strict=True):
        (folder / f"kernels_{device}{UNFINISHED}{suffix}").write_text(text + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command by itself."""
    parser = _parser()
    try:
        return run(parser.parse_args(arguments))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
