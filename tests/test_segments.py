"""Segments: arithmetic against the loop of the official code, and fades against their definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo.audio.segments import OverlapAdd, Segments, runs

REAL = Segments(48_000, 47_520, 320)
SMALL = st.builds(
    lambda hop, size, back: Segments(size, max(1, size - back), hop),
    hop=st.integers(1, 7),
    size=st.integers(8, 40),
    back=st.integers(0, 6),
)


def official(segments: Segments, samples: int) -> list[int]:
    """Tokens of each segment of `EncodecModel.encode`."""
    starts = range(0, samples, segments.stride)
    return [-(-min(segments.samples, samples - start) // segments.hop) for start in starts]


@pytest.mark.parametrize(
    ("samples", "lengths"),
    [
        (1, [1]),
        (47_520, [149]),
        (47_521, [149, 1]),
        (47_681, [150, 1]),
        (48_000, [150, 2]),
        (95_040, [150, 149]),
        (95_521, [150, 150, 2]),
        (3600 * 48_000, [150] * 3636 + [54]),
    ],
)
def test_the_released_model(samples: int, lengths: list[int]) -> None:
    assert official(REAL, samples) == lengths
    assert REAL.num_tokens(samples) == sum(lengths)
    assert REAL.lengths(sum(lengths)) == lengths


@given(segments=SMALL, samples=st.integers(0, 300))
def test_arithmetic_is_the_official_loop(segments: Segments, samples: int) -> None:
    lengths = official(segments, samples)
    count = segments.num_tokens(samples)
    assert count == sum(lengths)
    assert segments.lengths(count) == lengths
    longest = segments.longest(count)
    assert longest >= samples and segments.num_tokens(longest) == count < segments.num_tokens(longest + 1)
    spans = segments.spans(samples)
    whole = segments.whole(samples)
    assert [span.stop - span.start for span in spans[:whole]] == [segments.samples] * whole
    assert all(span.stop - span.start < segments.samples for span in spans[whole:])


@given(segments=SMALL, samples=st.integers(0, 300))
def test_certain_segments_are_whole_however_it_goes_on(segments: Segments, samples: int) -> None:
    heard = segments.num_tokens(samples)
    certain = segments.certain(heard)
    assert segments.lengths(heard)[:certain] == [segments.tokens] * certain
    # The first of those that are not certain could still be the last.
    assert segments.certain(certain * segments.tokens + segments.num_tokens(segments.samples)) == certain + 1


@given(sizes=st.lists(st.integers(1, 3), max_size=20), most=st.integers(1, 4))
def test_runs_cover_all_in_order(sizes: list[int], most: int) -> None:
    found = list(runs(sizes, most))
    assert [place for run in found for place in range(run.start, run.stop)] == list(range(len(sizes)))
    assert all(len({*sizes[run]}) == 1 and run.stop - run.start <= most for run in found)


@given(count=st.integers(1, 5), back=st.integers(0, 6), last=st.integers(1, 12))
def test_fades_are_weighted_means(count: int, back: int, last: int) -> None:
    """Every sample is the mean of the segments over it, by the height of their triangles there."""
    size, stride = 12, 12 - back
    lengths = [size] * (count - 1) + [last if count > 1 else size]
    segments = [torch.randn(2, 1, length, dtype=torch.float64) for length in lengths]
    adder = OverlapAdd(stride)
    parts = [adder.add(segment) for segment in segments]
    got = torch.cat([part for part in (*parts, adder.rest()) if part is not None], dim=-1)
    places = torch.linspace(0, 1, size + 2, dtype=torch.float64)[1:-1]
    triangle = 0.5 - (places - 0.5).abs()
    total = max(index * stride + length for index, length in enumerate(lengths))
    above, below = torch.zeros(2, 1, total, dtype=torch.float64), torch.zeros(total, dtype=torch.float64)
    for index, segment in enumerate(segments):
        span = slice(index * stride, index * stride + segment.shape[-1])
        above[..., span] += segment * triangle[: segment.shape[-1]]
        below[span] += triangle[: segment.shape[-1]]
    torch.testing.assert_close(got, above / below, atol=1e-12, rtol=0)
    assert [part.shape[-1] for part in parts[:-1]] == [stride] * (count - 1)


def test_no_segments_have_no_rest() -> None:
    assert OverlapAdd(4).rest() is None
