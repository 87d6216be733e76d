"""The features of w2v-BERT, against transformers' own."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tokenzoo.audio.kaldi_mel import normalised_log_mel


@pytest.fixture(scope="module")
def extractor():
    from transformers import SeamlessM4TFeatureExtractor

    return SeamlessM4TFeatureExtractor(padding_value=1.0)


@pytest.mark.parametrize("samples", [560, 640, 719, 720, 3333, 16000])
def test_features_are_transformers_own_to_the_last_bit(extractor, samples: int) -> None:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    sound = (noise * torch.linspace(0, 9, samples).sin() * 0.2).clamp(-1, 1)
    theirs = extractor(sound.numpy(), sampling_rate=16_000, pad_to_multiple_of=None).input_features[0]
    assert np.array_equal(normalised_log_mel(sound[None])[0].numpy(), theirs)


def test_each_item_is_normalised_by_itself() -> None:
    quiet, loud = torch.rand(2, 1600, generator=torch.Generator().manual_seed(0)) - 0.5
    both = normalised_log_mel(torch.stack([quiet * 0.01, loud]))
    assert torch.equal(both[:1], normalised_log_mel(quiet[None] * 0.01))
    assert torch.equal(both[1:], normalised_log_mel(loud[None]))


def test_silence_has_features_without_nan() -> None:
    assert not normalised_log_mel(torch.zeros(1, 960)).any()
    half = normalised_log_mel(F.pad(torch.rand(1, 800) - 0.5, (0, 800)))
    assert half.isfinite().all() and half.any()


def test_no_sounds_have_no_features() -> None:
    assert normalised_log_mel(torch.zeros(0, 960)).shape == (0, 2, 160)
