"""What a model of full size costs on this machine: `python -m tokenzoo.zoo.full_size titok-l32 dac-44khz`.

One sample of the package is encoded and decoded with random weights, each model and dtype in a process of
its own. Sounds can be made longer, up to hours, by repetition.
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

from . import catalogue
from .media import medium
from .untrained import untrained

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Cost:
    """Of one item through one model.

    parameters      millions of them
    sound_seconds   how long the item is, None for a picture
    encode_seconds, decode_seconds  elapsed; decoding is None for models that only encode
    peak_gib        most memory that the process held, weights, Python and torch included
    """

    name: str
    dtype: str
    parameters: float
    sound_seconds: float | None
    encode_seconds: float
    decode_seconds: float | None
    peak_gib: float


def measure(
    name: str, dtype: str, *, seconds: float | None = None, chunk_seconds: float | None = None
) -> Cost:
    """In this process, so that its peak is that of this model: call it once.

    seconds        sounds only: repeat the sample to this length
    chunk_seconds  sounds only: work in pieces of this length
    """
    tok: Any = untrained(name, dtype=getattr(torch, dtype))
    item = tok.preprocess(medium(tok.facts.modality).samples()[0])
    rate_hz = tok.facts.sample_rate_hz
    if rate_hz and seconds:
        length = round(seconds * rate_hz)
        item = item.repeat(1, -(-length // item.shape[-1]))[:, :length].contiguous()
    told = {} if chunk_seconds is None else {"chunk_seconds": chunk_seconds}
    start = time.perf_counter()
    tokens = tok.encode([item], **told)
    encoded = time.perf_counter()
    decode_seconds = None
    if tok.facts.has_decoder:
        tok.decode(tokens, **told)
        decode_seconds = time.perf_counter() - encoded
    return Cost(
        name=name,
        dtype=dtype,
        parameters=sum(parameter.numel() for parameter in tok.parameters()) / 1e6,
        sound_seconds=item.shape[-1] / rate_hz if rate_hz else None,
        encode_seconds=encoded - start,
        decode_seconds=decode_seconds,
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def measure_apart(name: str, dtype: str, options: argparse.Namespace) -> Cost:
    """In a process of its own. RuntimeError with what that process said if it fails."""
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else str(__spec__.name)]
    for flag in ("seconds", "chunk_seconds"):
        if (value := getattr(options, flag)) is not None:
            command += [f"--{flag.replace('_', '-')}", str(value)]
    done = subprocess.run([*command, "--one", dtype, name], capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise RuntimeError(f"{name} in {dtype}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return Cost(**json.loads(done.stdout))


def table(costs: Sequence[Cost]) -> str:
    """Markdown, a row a model and dtype; of a sound with its speed, in seconds of sound a second."""
    lines = [
        "| model | dtype | parameters | encode | decode | peak memory |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for cost in costs:
        cells = [
            f"`{cost.name}`",
            cost.dtype,
            f"{cost.parameters:.0f} M",
            _time(cost.encode_seconds, cost.sound_seconds),
            _time(cost.decode_seconds, cost.sound_seconds),
            f"{cost.peak_gib:.1f} GiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(seconds: float | None, sound_seconds: float | None) -> str:
    if seconds is None:
        return "-"
    speed = f", {sound_seconds / seconds:.3g}x real time" if sound_seconds else ""
    return f"{seconds:.1f} s{speed}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [row.name for row in catalogue.rows() if row.config and row.facts.modality in ("image", "audio")]
    parser.add_argument("names", nargs="+", choices=known, metavar="NAME")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--seconds", type=float, help="length of the sound; default: that of the sample")
    parser.add_argument("--chunk-seconds", type=float, help="work in pieces of so many seconds of sound")
    parser.add_argument("--one", choices=DTYPES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    if options.one:
        told = {"seconds": options.seconds, "chunk_seconds": options.chunk_seconds}
        print(json.dumps(asdict(measure(options.names[0], options.one, **told))))
        return 0
    wanted = [(name, dtype) for name in options.names for dtype in options.dtypes]
    costs = [measure_apart(*each, options) for each in tqdm(wanted, file=sys.stderr)]
    page = f"{torch.get_num_threads()} threads, torch {torch.__version__}.\n\n{table(costs)}"
    print(page)
    if options.out:
        options.out.write_text(page + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
