"""Embeddings of media start with the spread of text and the geometry of their codebooks."""

import pytest
import torch
from torch import Tensor

from tokenzoo.zoo.interleave import JointTokenizer

from .joint_toys import BYTES, PHOTO, SPEECH, joint_toys
from .toys import build_toy

JOINT = joint_toys()


def text_rows(dim: int = 24) -> Tensor:
    draw = torch.randn(256, dim, generator=torch.Generator().manual_seed(5))
    return 0.02 * draw + torch.linspace(-0.1, 0.1, dim)


def deviation(rows: Tensor, mean: Tensor) -> float:
    return float((rows - mean).square().mean().sqrt())


def test_every_codebook_has_the_mean_and_the_deviation_of_text() -> None:
    text = text_rows()
    rows = JOINT.media_rows(text)
    assert rows.shape == (JOINT.vocabulary.size - 256, 24)
    mean = text.mean(0)
    for block in JOINT.vocabulary.blocks:
        for ids in block.ranges:
            own = rows[ids.start - 256 : ids.stop - 256]
            torch.testing.assert_close(own.mean(0), mean, rtol=0, atol=1e-6)
            assert deviation(own, mean) == pytest.approx(deviation(text, mean), rel=1e-5)
    markers = rows[[block.begin - 256 for block in JOINT.vocabulary.blocks]]
    assert 0.5 < deviation(markers, mean) / deviation(text, mean) < 1.5


def test_distances_within_a_codebook_stay_in_proportion() -> None:
    rows = JOINT.media_rows(text_rows())
    for tokenizer in (PHOTO, SPEECH):
        for ids, codes in zip(
            JOINT.vocabulary.ranges(tokenizer.facts), tokenizer.codebook_embeddings(), strict=True
        ):
            ratio = torch.pdist(rows[ids.start - 256 : ids.stop - 256]) / torch.pdist(codes.detach())
            assert float(ratio.max() / ratio.min()) == pytest.approx(1, abs=1e-3)


def test_codes_wider_than_the_model_are_projected_down() -> None:
    rows = JOINT.media_rows(text_rows(2))
    assert rows.shape[1] == 2 and deviation(rows, text_rows(2).mean(0)) == pytest.approx(0.02, rel=0.15)


def test_the_draw_is_repeatable_and_the_callers_to_choose() -> None:
    first, text = JOINT.media_rows(text_rows()), text_rows()
    assert torch.equal(first, JOINT.media_rows(text))
    drawn = [JOINT.media_rows(text, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert torch.equal(first, drawn[0]) and not torch.allclose(first, drawn[1])
    assert JOINT.media_rows(text.bfloat16()).dtype == torch.bfloat16
    assert not JOINT.media_rows(text.requires_grad_()).requires_grad


def test_codebooks_without_embeddings_start_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid = build_toy("retok")

    def none() -> tuple[Tensor, ...]:
        raise NotImplementedError("an id means something else in each stage")

    monkeypatch.setattr(pyramid, "codebook_embeddings", none)
    joint = JointTokenizer(BYTES, {"image": pyramid})
    text = text_rows()
    rows = joint.media_rows(text)
    assert deviation(rows, text.mean(0)) == pytest.approx(deviation(text, text.mean(0)), rel=0.1)


def test_rows_of_another_table_are_refused() -> None:
    with pytest.raises(ValueError, match=r"text_rows have shape \(300, 8\): expected \(256, D\)"):
        JOINT.media_rows(torch.zeros(300, 8))
