"""Length by quality: the shortest prefix that reaches a score, against a search of every prefix."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tokenzoo import Tokenizer, Tokens
from tokenzoo.image.metrics import psnr
from tokenzoo.zoo.shorten import shorten

from .toys import build_toy
from .toys_sequence import ToySound, ToySoundConfig

GRID = build_toy("toy-grid")


def grey_patches(levels: list[float], wide: int) -> Tensor:
    """A picture (3, H, W) whose 4 x 4 patches have these grey levels, row by row."""
    rows = torch.tensor(levels, dtype=torch.float32).reshape(-1, wide)
    return rows.repeat_interleave(4, 0).repeat_interleave(4, 1).expand(3, -1, -1).clone()


def negative_error(decoded: Tensor, original: Tensor) -> Tensor:
    assert decoded.shape == original.shape and decoded.dtype == original.dtype and len(decoded) == 1
    return -(decoded - original).square().mean()


def by_search(tokenizer: Tokenizer, item: Any, score: Any, at_least: float) -> int:
    """The shortest legal count that passes, found by trying them all; all of it when none does."""
    tokens = tokenizer.encode([item])
    whole = int(tokens.lengths[0])
    for count in range(1, whole):
        kept = tokens.keep(count)
        if float(score(tokens.crop(tokenizer.decode(kept))[0][None], item[None])) >= at_least:
            return count
    return whole


PICTURES = [
    grey_patches([1, 1, 0, 0], 2),
    grey_patches([1, 0.8, 0.6, 0.4], 2),
    grey_patches([0, 0, 0, 0, 0, 0.9], 3),
    grey_patches([0.2] * 12, 4),
    grey_patches([0], 1),
]


@pytest.mark.parametrize("at_least", [-1.0, -0.3, -0.1, -0.02, -0.004, -1e-3])
def test_items_of_many_sizes_each_get_the_shortest_that_passes(at_least: float) -> None:
    short = shorten(GRID, PICTURES, negative_error, at_least)
    expected = [by_search(GRID, item, negative_error, at_least) for item in PICTURES]
    assert short.lengths.tolist() == expected
    whole = GRID.encode(PICTURES)
    assert torch.equal(short.extents, whole.extents)
    for one, other, count in zip(short.unbind(), whole.unbind(), expected, strict=True):
        assert one.identical(other.keep(count))


def test_the_lengths_differ_by_item() -> None:
    batch = torch.stack(
        [grey_patches([1, 0, 0, 0], 2), grey_patches([1, 1, 0, 0], 2), grey_patches([1] * 4, 2)]
    )
    assert shorten(GRID, batch, psnr, 40.0).lengths.tolist() == [1, 2, 4]
    assert shorten(GRID, batch, psnr, float("-inf")).lengths.tolist() == [1, 1, 1]


def test_a_score_out_of_reach_keeps_everything() -> None:
    short = shorten(GRID, PICTURES, negative_error, 1.0)
    assert short.identical(GRID.encode(PICTURES))
    assert shorten(GRID, PICTURES, lambda *_: float("nan"), 0.0).identical(short)


def test_it_bisects() -> None:
    item = grey_patches([0.5] * 64, 8)
    seen: list[int] = []

    def score(decoded: Tensor, original: Tensor) -> float:
        seen.append(int((decoded[0, 0] > 0).sum()) // 16)
        return seen[-1]

    assert shorten(GRID, [item], score, 23).lengths.tolist() == [23]
    assert len(seen) <= 6 and len(set(seen)) == len(seen)


def test_legal_counts_are_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    stepped = build_toy("toy-grid")
    monkeypatch.setattr(stepped, "_facts", replace(stepped.facts, keeps=(2, 8)))
    item = grey_patches([1] * 12, 4)
    for at_least, expected in ((1, 2), (2, 2), (3, 8), (8, 8), (9, 12), (99, 12)):
        short = shorten(stepped, [item], lambda decoded, _: (decoded[0, 0] > 0).sum() / 16, at_least)
        assert short.lengths.tolist() == [expected]


def test_along_codebooks_a_batch_has_one_depth() -> None:
    torch.manual_seed(0)
    sound = ToySound(ToySoundConfig(codebook_sizes=(4, 4, 4, 4, 4))).eval()
    items = [torch.zeros(1, 7), torch.linspace(-1, 1, 9)[None]]
    depths = []
    plain = sound.encode(items)

    def score(decoded: Tensor, original: Tensor) -> float:
        """How many codebooks were kept: the first item asks for 2, the second for 4."""
        index = 0 if original.shape[-1] == 7 else 1
        ladder = [plain.unbind()[index].keep(count) for count in range(1, 6)]
        drawn = [sound.decode(each) for each in ladder]
        kept = next(count for count, each in enumerate(drawn, 1) if torch.allclose(each, decoded, atol=1e-6))
        depths.append(kept)
        return kept - (2 if index == 0 else 4)

    short = shorten(sound, items, score, 0)
    assert short.identical(plain.keep(4))
    assert isinstance(short, Tokens) and set(depths) <= {1, 2, 3, 4, 5}
    assert shorten(sound, items[:1], score, 0).codebook_sizes == (4, 4)


def test_only_nested_tokenizers_shorten() -> None:
    with pytest.raises(ValueError, match="toy-kl has no nested axis"):
        shorten(build_toy("toy-kl"), torch.zeros(1, 3, 8, 8), psnr, 20)
