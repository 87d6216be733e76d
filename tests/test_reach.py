"""The context of pieces, by arithmetic, is what gradients say: no token less will do."""

import pytest
import torch
from torch import Tensor

from tokenzoo.audio.audio_tokenizer import AudioTokenizer
from tokenzoo.audio.reach import Span, seen_by

from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["dac", "snac", "small-windowed-snac"])
def tokenizer(request: pytest.FixtureRequest) -> AudioTokenizer:
    tokenizer = build_toy(request.param)
    assert isinstance(tokenizer, AudioTokenizer)
    return tokenizer.double()


def touched(output: Tensor, source: Tensor) -> Span:
    """First and last place of the last axis of `source` that `output` depends on."""
    (gradient,) = torch.autograd.grad(output.square().sum(), source)
    places = gradient.flatten(0, -2).abs().sum(dim=0).nonzero().flatten()
    return Span(int(places[0]), int(places[-1]))


def test_arithmetic_is_what_gradients_say(tokenizer: AudioTokenizer) -> None:
    config, align = tokenizer.config, tokenizer.align_tokens
    middle, count = 40 * align, 81 * align
    frames = getattr(config, "frames", (1,))[0]
    piece = Span(middle * frames, (middle + align) * frames - 1)
    sound = torch.rand(1, 1, count * config.hop_samples, dtype=torch.float64).requires_grad_()
    latents = tokenizer.encoder(sound)
    assert touched(latents[..., piece.first : piece.last + 1], sound) == seen_by(tokenizer.encoder, piece)

    latents = torch.randn(latents.shape, dtype=torch.float64).requires_grad_()
    noise = [torch.zeros(1, 1, count * each).double() for each in getattr(config, "noise_per_token", ())]
    heard = tokenizer.decoder(latents, noise) if noise else tokenizer.decoder(latents)
    piece = Span(middle * config.hop_samples, (middle + align) * config.hop_samples - 1)
    assert touched(heard[..., piece.first : piece.last + 1], latents) == seen_by(tokenizer.decoder, piece)


def test_context_covers_it_in_whole_pieces(tokenizer: AudioTokenizer) -> None:
    """So far and no further: rounding up to pieces is all that is added."""
    config, align = tokenizer.config, tokenizer.align_tokens
    frames, hop = getattr(config, "frames", (1,))[0], config.hop_samples
    encoding = seen_by(tokenizer.encoder, Span(0, align * frames - 1))
    decoding = seen_by(tokenizer.decoder, Span(0, align * hop - 1))
    for tokens, seen, width in (
        (tokenizer.overlap.encode_tokens, encoding, hop),
        (tokenizer.overlap.decode_tokens, decoding, frames),
    ):
        assert tokens % align == 0 and tokens > 0
        far = max(-seen.first, seen.last - align * width + 1)
        assert (tokens - align) * width < far <= tokens * width
