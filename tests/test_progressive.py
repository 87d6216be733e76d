"""Growing prefixes in one batch give what each prefix gives alone, from the same noise."""

import pytest
import torch
from torch import Generator

import tokenzoo
from tokenzoo.zoo.progressive import decode_progressive

from .toys import build_toy

NESTED = [name for name in ("toy-grid", "toy-sound", "flextok", "retok") if build_toy(name).facts.nested]


def encoded(name: str):
    tokenizer = build_toy(name)
    if tokenizer.facts.modality == "audio":
        return tokenizer, tokenizer.encode(torch.rand(2, tokenizer.facts.channels or 1, 64) - 0.5)
    side = getattr(tokenizer.config, "image_size", 16)
    generator = Generator().manual_seed(0)
    return tokenizer, tokenizer.encode(torch.rand(2, 3, side, side, generator=generator))


@pytest.mark.parametrize("name", NESTED)
def test_prefixes_together_are_prefixes_alone(name: str) -> None:
    tokenizer, tokens = encoded(name)
    signals = decode_progressive(tokenizer, tokens)
    axis = tokens.values.shape[1] if tokenizer.facts.nested == "tokens" else len(tokens.codebook_sizes)
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64, 128, 256) if count < axis] + [axis]
    counts = [count for count in counts if not tokenizer.facts.keeps or count in tokenizer.facts.keeps]
    assert len(signals) == len(counts) >= 2
    for count, signal in zip(counts, signals, strict=True):
        torch.testing.assert_close(signal, tokenizer.decode(tokens.keep(count)), atol=2e-5, rtol=1e-4)


def test_one_noise_for_all_prefixes_and_generators_are_not_moved() -> None:
    tokenizer, tokens = encoded("flextok")
    generators = [Generator().manual_seed(seed) for seed in (5, 6)]
    states = [each.get_state() for each in generators]
    short, whole, again = decode_progressive(tokenizer, tokens, [1, 3, 3], generators=generators)
    torch.testing.assert_close(whole, again, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(short, whole, atol=1e-3)
    assert all(torch.equal(each.get_state(), state) for each, state in zip(generators, states, strict=True))
    alone = tokenizer.decode(tokens.keep(3), generator=[Generator().manual_seed(seed) for seed in (5, 6)])
    torch.testing.assert_close(whole, alone, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(whole, decode_progressive(tokenizer, tokens, [3])[0], atol=1e-3)


def test_quality_grows_with_the_embedded_default() -> None:
    tok = tokenzoo.load("pyramid-128")
    picture = tok.preprocess(
        torch.rand(3, 8, 8, generator=Generator().manual_seed(1)).numpy().transpose(1, 2, 0)
    )
    signals = decode_progressive(tok, tok.encode([picture]), [1, 16, 128, 376])
    errors = [float((signal[0] - picture).square().mean()) for signal in signals]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 4


def test_mistakes_are_named() -> None:
    tokenizer, tokens = encoded("toy-kl")
    with pytest.raises(ValueError, match="toy-kl is not nested"):
        decode_progressive(tokenizer, tokens)
    tokenizer, tokens = encoded("flextok")
    with pytest.raises(ValueError, match="1 generators for 2 items"):
        decode_progressive(tokenizer, tokens, generators=[Generator()])
    assert decode_progressive(tokenizer, tokens, []) == []
