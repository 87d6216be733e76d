"""What packing saves: `python -m tokenzoo.zoo.prepacking_bench` prints the table of docs/generators.md.

Forward and backward of a tiny Llama over the same rows: padded in the order they come, padded after sorting
by length, and packed. Processor time on one thread, the least of several rounds; on a GPU wall time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .optional import require
from .prepacking import PackedRows, pack, pad
from .report import print_table

# Lengths of 64 rows, and the width they are packed into.
MIXES: dict[str, tuple[Callable[[torch.Generator], torch.Tensor], int]] = {
    "all 256": (lambda chance: torch.full((64,), 256), 256),
    "uniform 1 ... 256": (lambda chance: torch.randint(1, 257, (64,), generator=chance), 256),
    "powers of two to 256": (lambda chance: 2 ** torch.randint(0, 9, (64,), generator=chance), 256),
    "one in eight 256, the rest 32": (lambda chance: torch.where(torch.arange(64) % 8 == 0, 256, 32), 256),
}
ROWS_AT_ONCE = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=3, help="rounds of which the best counts (default: 3)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = _model().to(options.device)
    table: list[tuple[str, ...]] = [
        ("LENGTHS", "FULL", "PADDED s", "SORTED s", "PACKED s", "PACKED FULL", "SAVED")
    ]
    for name, (draw, width) in MIXES.items():
        chance = torch.Generator().manual_seed(0)
        rows = [torch.randint(0, 512, (n,), generator=chance).tolist() for n in draw(chance).tolist()]
        whole = pack(rows, width)
        packed = [_some(whole, at) for at in range(0, len(whole.ids), ROWS_AT_ONCE)]
        ways = (_padded(rows), _padded(sorted(rows, key=len)), packed)
        # In turns, so that a machine that slows down slows all of them.
        rounds = [[_seconds(model, batches) for batches in ways] for _ in range(options.repeats)]
        padded, by_length, best = (min(times) for times in zip(*rounds, strict=True))
        full = sum(map(len, rows)) / sum(batch["input_ids"].numel() for batch in ways[0])
        seconds = [f"{each:.2f}" for each in (padded, by_length, best)]
        table.append((name, f"{full:.0%}", *seconds, f"{whole.filled:.0%}", f"{1 - best / padded:.0%}"))
    print_table(table)
    return 0


def _model() -> Any:
    transformers = require("transformers", "transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2
    )
    return transformers.LlamaForCausalLM(config)


def _padded(rows: list[list[int]]) -> list[dict[str, Any]]:
    return [dict(pad(rows[at : at + ROWS_AT_ONCE])) for at in range(0, len(rows), ROWS_AT_ONCE)]


def _some(whole: PackedRows, at: int) -> dict[str, Any]:
    """A batch of packed rows."""
    some = slice(at, at + ROWS_AT_ONCE)
    return {k: v[some] if isinstance(v, torch.Tensor) else v for k, v in whole.inputs().items()}


def _seconds(model: Any, batches: list[dict[str, Any]]) -> float:
    device = model.device
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    for batch in batches:
        moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        model(**moved).loss.backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    sys.exit(main())
