"""Every tokenizer on a GPU: its tokens and signals are those of the CPU, and it trains there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    pytest.skip("needs CUDA", allow_module_level=True)

from tokenzoo import NeuralTokenizer
from tokenzoo.zoo.training import TokenizerTraining

from .cases import NEURAL, decode, equal_items, items_of, tokenizer_of
from .toys_training import families, pictures
from .training_audio import ADVERSARY, DECODING, SAMPLES, OneBatch, new_module, new_trainer, tones

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("one_thread", "toy_families")]
IMAGES = families()


@pytest.fixture
def full_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32; by default CUDA gives them TF32, which moves ids."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("full_convolutions")
@pytest.mark.parametrize("name", NEURAL)
def test_tokens_and_signals_are_those_of_the_cpu(name: str) -> None:
    here = tokenizer_of(name)
    assert isinstance(here, NeuralTokenizer)
    there = copy.deepcopy(here).cuda()
    for signal in (equal_items(here), items_of(here)):
        expected, found = here.encode(signal), there.encode(signal)
        assert found.values.device.type == "cuda" and found.values.dtype == expected.values.dtype
        assert torch.equal(found.lengths.cpu(), expected.lengths)
        assert torch.equal(found.extents.cpu(), expected.extents)
        if expected.is_discrete:
            assert (found.values.cpu() == expected.values).double().mean() > 0.99
        else:
            torch.testing.assert_close(found.values.cpu(), expected.values, rtol=1e-3, atol=1e-4)
        signals = decode(here, expected), decode(there, expected.to("cuda"))
        if isinstance(signals[0], Tensor):
            assert signals[1].device.type == "cuda"
            torch.testing.assert_close(signals[1].cpu(), signals[0], rtol=1e-3, atol=1e-3)


def fitted(module: TokenizerTraining, batch: Tensor, precision: str) -> None:
    """Two steps; every number stays finite, and something moves."""
    before = {name: each.detach().clone() for name, each in module.tokenizer.named_parameters()}
    trainer = new_trainer(2, accelerator="gpu", precision=precision)
    trainer.fit(module, datamodule=OneBatch(batch, 2))
    assert module.global_step == 2
    after = {name: each.detach().cpu() for name, each in module.tokenizer.named_parameters()}
    assert all(bool(each.isfinite().all()) for each in after.values())
    assert any(not torch.equal(after[name], old) for name, old in before.items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("family", IMAGES)
def test_images_train(family: str, precision: str) -> None:
    case = IMAGES[family]
    torch.manual_seed(0)
    module = case.build().finetune(ema_decay=0.5, **case.settings)
    fitted(module, pictures(getattr(module.tokenizer.config, "image_size", 8), 4), precision)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("toy", [*DECODING, "encodec, judged"])
def test_sound_trains(toy: str, precision: str) -> None:
    name, _, judged = toy.partition(", ")
    settings: dict[str, Any] = {"adversary": ADVERSARY | {"start_step": 1}} if judged else {}
    module = new_module(name, ema_decay=0.5, **settings)
    samples = 8 * 320 if name == "xcodec2" else SAMPLES
    sounds = torch.from_numpy(tones(4, samples, channels=module.facts.channels or 1))
    fitted(module, sounds, precision)
