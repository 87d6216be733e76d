"""The part of the contract that only models have: modes, gradients, training, placement."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenzoo import NeuralTokenizer
from tokenzoo.zoo import loading

from .cases import NEURAL, close_tokens, decode, equal_items, same, stacked, tokenizer_of
from .toys import TOYS, build_toy

pytestmark = pytest.mark.usefixtures("one_thread", "toy_families")


@pytest.fixture(params=NEURAL)
def tokenizer(request: pytest.FixtureRequest) -> NeuralTokenizer:
    found = tokenizer_of(request.param)
    assert isinstance(found, NeuralTokenizer)
    return found


def test_train_mode_is_ignored_and_restored(tokenizer: NeuralTokenizer) -> None:
    signal = equal_items(tokenizer)
    tokens = tokenizer.encode(signal)
    decoded = decode(tokenizer, tokens)
    weights = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    tokenizer.train()
    tokenizer.quantizer.eval()
    modes = [module.training for module in tokenizer.modules()]
    try:
        assert tokenizer.encode(signal).identical(tokens)
        assert same(decode(tokenizer, tokens), decoded, tolerance=0)
        assert [module.training for module in tokenizer.modules()] == modes
        with pytest.raises(ValueError, match=r"extent|shape"):
            tokenizer.encode(signal, extents=torch.tensor([[-1]]))
        assert [module.training for module in tokenizer.modules()] == modes
        for name, tensor in tokenizer.state_dict().items():
            assert torch.equal(tensor, weights[name]), f"{name} moved"
    finally:
        tokenizer.eval()


def test_gradients_flow_outside_the_verbs_only(tokenizer: NeuralTokenizer) -> None:
    signal = stacked(tokenizer)
    latents = tokenizer.encode_latents(signal)
    assert latents.values.requires_grad and not latents.is_discrete
    assert latents.values.shape[2] == tokenizer.quantizer.dim_in
    tokens = tokenizer.encode(signal)
    assert not tokens.values.requires_grad
    dequantized = tokenizer.dequantize(tokens)
    # Places of a latent map, where a token is not one latent; else the tokens.
    assert latents.lengths.tolist() == dequantized.lengths.tolist()
    assert torch.equal(latents.extents, tokens.extents)
    values = dequantized.values.detach().requires_grad_()
    out = tokenizer.decode_latents(replace(dequantized, values=values))
    assert out.requires_grad
    out.square().sum().backward()
    assert values.grad is not None and values.grad.abs().sum() > 0
    decoded = tokenizer.decode(tokens) if tokenizer.facts.has_decoder else None
    if isinstance(decoded, Tensor):
        assert not decoded.requires_grad
        assert same(tokenizer.finish_signal(out.detach(), tokens), decoded)
    tokenizer.zero_grad()


def test_the_training_path(tokenizer: NeuralTokenizer) -> None:
    signal = stacked(tokenizer)
    before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    result = tokenizer(signal)
    assert result.quantized.loss.shape == ()
    loss = result.signal.float().square().mean() + result.quantized.loss
    loss.backward()
    encoder = [p.grad for p in tokenizer.encoder.parameters() if p.grad is not None]
    assert encoder and any(bool(grad.abs().sum() > 0) for grad in encoder)
    tokenizer.zero_grad()
    for name, tensor in tokenizer.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} moved in eval mode"
    tokens = tokenizer.encode(signal)
    rebuilt = tokenizer.decode_latents(tokenizer.dequantize(tokens))
    assert same(result.signal.detach(), rebuilt.detach(), tolerance=1e-4)


def test_placement(tokenizer: NeuralTokenizer) -> None:
    """Signals of any float type, models of another, come back as float32."""
    signal = equal_items(tokenizer)
    double = signal.double() if isinstance(signal, Tensor) else signal
    assert close_tokens(tokenizer.encode(double), tokenizer.encode(signal))
    coarse = copy.deepcopy(tokenizer).to(torch.bfloat16)
    decoded = decode(coarse, coarse.encode(signal))
    signals = isinstance(decoded, Tensor) and coarse.facts.has_decoder
    assert not signals or decoded.dtype == torch.float32


def test_a_model_on_the_meta_device_is_whole_once_its_weights_are_in() -> None:
    for name in TOYS:
        toy = build_toy(name)
        empty = loading.build(name, toy.config.to_dict())
        assert isinstance(empty, NeuralTokenizer)
        empty.load_state_dict(toy.state_dict(), assign=True)
        signal = equal_items(toy)
        assert empty.encode(signal).identical(toy.encode(signal))


def test_what_is_not_there_says_so() -> None:
    toy = build_toy("toy-sound")
    with pytest.raises(NotImplementedError, match="toy-sound does not stream: encode the whole item"):
        toy.stream()
    with pytest.raises(NotImplementedError, match="audio tokenizers have no training module yet"):
        toy.finetune()
