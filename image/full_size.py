"""What a model of full size costs on this machine: `python -m tokenzoo.image.full_size titok-l32`.

One photograph is encoded and decoded with random weights, each model and dtype in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..zoo import catalogue
from ..zoo.untrained import untrained
from .image_files import ImageFiles

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Cost:
    """Of one image through one model.

    parameters  millions of them
    encode_seconds, decode_seconds  elapsed; decoding is None for models that only encode
    peak_gib    most memory that the process held, weights, Python and torch included
    """

    name: str
    dtype: str
    parameters: float
    encode_seconds: float
    decode_seconds: float | None
    peak_gib: float


def measure(name: str, dtype: str) -> Cost:
    """In this process, so that its peak is that of this model: call it once."""
    tok: Any = untrained(name, dtype=getattr(torch, dtype))
    picture = tok.preprocess(ImageFiles().samples()[0])[None]
    start = time.perf_counter()
    tokens = tok.encode(picture)
    encoded = time.perf_counter()
    decode_seconds = None
    if tok.facts.has_decoder:
        tok.decode(tokens)
        decode_seconds = time.perf_counter() - encoded
    return Cost(
        name=name,
        dtype=dtype,
        parameters=sum(parameter.numel() for parameter in tok.parameters()) / 1e6,
        encode_seconds=encoded - start,
        decode_seconds=decode_seconds,
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def measure_apart(name: str, dtype: str) -> Cost:
    """In a process of its own. RuntimeError with what that process said if it fails."""
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else str(__spec__.name), "--one"]
    done = subprocess.run([*command, dtype, name], capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise RuntimeError(f"{name} in {dtype}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return Cost(**json.loads(done.stdout))


def table(costs: Sequence[Cost]) -> str:
    """Markdown, a row a model and dtype."""
    lines = [
        "| model | dtype | parameters | encode | decode | peak memory |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for cost in costs:
        decode = "-" if cost.decode_seconds is None else f"{cost.decode_seconds:.1f} s"
        size, encode = f"{cost.parameters:.0f} M", f"{cost.encode_seconds:.1f} s"
        cells = [f"`{cost.name}`", cost.dtype, size, encode, decode, f"{cost.peak_gib:.1f} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [row.name for row in catalogue.rows() if row.config and row.facts.modality == "image"]
    parser.add_argument("names", nargs="*", choices=[[], *known], default=[], metavar="NAME")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--one", choices=DTYPES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(asdict(measure(options.names[0], options.one))))
        return 0
    wanted = [(name, dtype) for name in options.names or known for dtype in options.dtypes]
    costs = [measure_apart(*each) for each in tqdm(wanted, file=sys.stderr)]
    page = f"{torch.get_num_threads()} threads, torch {torch.__version__}.\n\n{table(costs)}"
    print(page)
    if options.out:
        options.out.write_text(page + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
