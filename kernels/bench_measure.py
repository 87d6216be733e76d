"""How the benchmark measures: processor time and allocations on the CPU, medians and peaks on a GPU."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], object]
_MIB = 1 << 20
# Of processor time, for one contender in one round.
_TURN_SECONDS = 0.02


@dataclass(frozen=True)
class Measurement:
    """One contender on one size.

    milliseconds  of processor time (CPU, the least of several runs) or elapsed time (GPU, the median)
    peak_mib      most memory that was allocated at a time, beyond the inputs
    replayed      milliseconds as a CUDA graph, without the time of launching; None where not measured
    """

    milliseconds: float
    peak_mib: float
    replayed: float | None = None


def measure(
    contenders: Mapping[str, Work], device: str, repeats: int, replay: Collection[str] = ()
) -> dict[str, Measurement]:
    """Every contender in turn, `repeats` times around, so that a disturbance meets all alike.

    In its turn a quick one runs several times, as the caches are full of what the others left. On a GPU those
    in `replay` are measured as a CUDA graph, too.
    """
    gc.collect()
    if device == "cuda":
        return {name: _on_gpu(work, name in replay) for name, work in contenders.items()}
    peaks = {name: _cpu_peak_mib(work) for name, work in contenders.items()}  # warms up, too
    least = dict.fromkeys(contenders, math.inf)
    for _ in range(repeats):
        for name, work in contenders.items():
            least[name] = min(least[name], _least_seconds(work))
    return {name: Measurement(1000 * least[name], peaks[name]) for name in contenders}


def _least_seconds(work: Work) -> float:
    least = spent = 0.0
    while spent < _TURN_SECONDS:
        start = time.thread_time()
        work()
        taken = time.thread_time() - start
        least, spent = min(least or taken, taken), spent + taken
    return least


def _cpu_peak_mib(work: Work) -> float:
    """The largest running sum of allocations. (A process keeps what was freed: its size says little.)"""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it logs an error where there is no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        work()
    results = profiler.profiler
    if results is None or results.kineto_results is None:
        return math.nan
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak = max(peak, held)
    return peak / _MIB


def _on_gpu(work: Work, replay: bool) -> Measurement:
    from triton.testing import do_bench, do_bench_cudagraph

    work()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    median: float = do_bench(work, warmup=25, rep=60, return_mode="median")  # pyright: ignore[reportAssignmentType]
    replayed: float | None = None
    if replay:
        with torch.cuda.stream(torch.cuda.Stream()):
            replayed = do_bench_cudagraph(work, return_mode="median")  # pyright: ignore[reportAssignmentType]
    return Measurement(median, peak / _MIB, replayed)
