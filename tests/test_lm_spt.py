"""LM-SPT: three rates exact in length, semantic ids that decode alone, and what teaches them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import yaml
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from tokenzoo.audio.asr_encoder import AsrEncoder
from tokenzoo.audio.lm_spt import LmSpt, LmSptConfig
from tokenzoo.audio.losses import AudioLossWeights, audio_objectives
from tokenzoo.audio.resynthesis import ResynthesisDistillation, as_heard, feature_distance, resynthesis
from tokenzoo.audio.training import AudioTraining
from tokenzoo.zoo.dual_quantizer import DualQuantizer
from tokenzoo.zoo.neural import NeuralTokenizer
from tokenzoo.zoo.objective import Step
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .toys import build_toy
from .whispers import save_transformers, tiny_whisper

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]
RATES = {"lm-spt": 25.0, "small-lm-spt-12": 12.5, "small-lm-spt-6": 6.25}
RECIPES = {"train_lm_spt_25hz.yaml": 25.0, "train_lm_spt_12hz.yaml": 12.5, "train_lm_spt_6hz.yaml": 6.25}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_transformers(tiny_whisper(), tmp_path_factory.mktemp("whisper")))


def sound(samples: int, seed: int = 0, *, items: int = 1) -> Tensor:
    return 0.3 * torch.randn(items, 1, samples, generator=Generator().manual_seed(seed))


def lm_spt(name: str) -> LmSpt:
    toy = build_toy(name)
    assert isinstance(toy, LmSpt)
    return toy


def step_of(tokenizer: NeuralTokenizer, signal: Tensor) -> Step:
    made = tokenizer(signal)
    return Step(signal, made.signal, made.quantized, tokenizer)


def objective(whisper: str, **told: Any) -> ResynthesisDistillation:
    made = ResynthesisDistillation(1.0, whisper, told.get("layers", ()), told.get("distance", "l2"))
    made.prepare(build_toy("lm-spt"))  # for its device
    return made


@pytest.mark.parametrize("name", RATES)
def test_every_rate_is_exact_in_length(name: str) -> None:
    codec = lm_spt(name)
    hop = round(16_000 / RATES[name])
    assert codec.config.hop_samples == hop and codec.facts.token_rate_hz == RATES[name]
    for samples in (1, hop - 1, hop, hop + 1, 3 * hop, 3 * hop + 7):
        tokens = codec.encode(sound(samples))
        count = -(-samples // hop)
        assert tokens.ids.shape == (1, count, 3) and codec.num_tokens((samples,)) == count
        assert codec.decode(tokens).shape == codec.decode(tokens.keep(1)).shape == (1, 1, samples)
        # Whole hops come out of the network itself: no zeros are put behind them.
        assert codec.sound_of(codec.dequantize(tokens).values).shape == (1, 1, count * hop)
    one_second = codec.encode(sound(16_000 * 4))
    assert one_second.ids.shape[1] == 4 * RATES[name]


@pytest.mark.parametrize("file", RECIPES)
def test_the_recipes_have_their_rates(file: str, checkout: Path) -> None:
    model = yaml.safe_load((checkout / "configs" / file).read_text())["model"]
    config = LmSptConfig.from_dict(model["config"])
    assert model["tokenizer_type"] == "lm-spt" and config.facts().token_rate_hz == RECIPES[file]
    assert config.facts().codebook_sizes == (16384,) + (4096,) * 7
    assert all(stride % 2 == 0 for stride in config.decoder_strides)
    losses = AudioLossWeights(**model["losses"])
    assert losses.resynthesis > 0 and losses.asr_encoder == "openai/whisper-large-v3"


def test_semantic_ids_decode_alone() -> None:
    codec = lm_spt("lm-spt")
    tokens = codec.encode(sound(3200))
    assert codec.facts.roles == ("semantic", "acoustic", "acoustic")
    other = tokens.ids.clone()
    other[..., 1:] = (other[..., 1:] + 1) % 16
    alone = codec.decode(tokens.keep(1))
    assert torch.equal(codec.decode(codec.stamp(other, extents=tokens.extents).keep(1)), alone)
    codes = codec.quantizer.first.decode(tokens.ids[..., 0])
    assert torch.equal(codec.finish_sound(codec.sound_of(codes)), alone)
    assert not torch.equal(codec.decode(tokens), alone)


@pytest.mark.parametrize("subtracts", [True, False])
def test_what_meaning_says_is_taken_off(subtracts: bool) -> None:
    chance = Generator().manual_seed(0)
    first, rest = VectorQuantizer(8, 4), VectorQuantizer(8, 4)
    for each in (first, rest):
        torch.nn.init.normal_(each.codebook, generator=chance)
    dual = DualQuantizer(first, ResidualQuantizer([rest]), subtracts=subtracts)
    assert (dual.dim_in, dual.dim_out, dual.codebook_sizes) == (8, 4, (8, 8))
    latents = torch.randn(2, 5, 8, generator=chance)
    meaning, sound_ = latents.split(4, dim=-1)
    ids = first.encode(meaning)
    left = sound_ - first.decode(ids) if subtracts else sound_
    wanted = torch.stack([ids, rest.encode(left)], dim=-1)
    made = dual(latents)
    assert torch.equal(made.values, wanted) and torch.equal(dual.encode(latents), wanted)
    assert torch.equal(dual.encode(latents, keep=1)[..., 0], ids)
    assert torch.equal(made.first, first.decode(ids))
    assert torch.equal(made.latents, dual.decode(wanted))


def test_the_term_is_the_distance_of_what_the_recognizer_hears(whisper: str) -> None:
    codec, signal = lm_spt("lm-spt"), sound(3200, items=2)
    step = step_of(codec, signal)
    decoded = codec.decode(codec.encode(signal).keep(1))
    torch.testing.assert_close(resynthesis(codec, step.quantized, 3200), decoded, rtol=0, atol=1e-6)
    encoder = AsrEncoder.from_whisper(whisper)
    made, wanted = encoder(as_heard(decoded, 16_000), (2, 3)), encoder(signal[:, 0], (2, 3))
    distances = {
        "l2": (made[0] - wanted[0]).square().mean() + (made[1] - wanted[1]).square().mean(),
        "l1": (made[0] - wanted[0]).abs().mean() + (made[1] - wanted[1]).abs().mean(),
        "cosine": sum(
            1 - ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean()
            for a, b in zip(made, wanted, strict=True)
        ),
    }
    for distance, both in distances.items():
        term = objective(whisper, layers=(2, 3), distance=distance)(step)
        torch.testing.assert_close(term, both / 2, rtol=1e-4, atol=1e-6)
    assert feature_distance(wanted, wanted).tolist() == [0, 0]


def test_gradients_reach_what_says_the_meaning_and_nothing_else(whisper: str) -> None:
    codec = lm_spt("lm-spt").train()
    term = objective(whisper)
    assert not list(term.parameters()) and not term.state_dict()
    term(step_of(codec, sound(3200, items=2))).backward()
    moved = {
        name: bool(parameter.grad is not None and parameter.grad.abs().sum() > 0)
        for name, parameter in codec.named_parameters()
    }
    assert all(moved[name] for name in moved if name.startswith(("encoder.semantic.", "decoder.")))
    assert moved["quantizer.first.project_in.weight"] and moved["quantizer.first.project_out.weight"]
    silent = ("encoder.acoustic.", "quantizer.rest.", "quantizer.first.inner.")
    assert not any(moved[name] for name in moved if name.startswith(silent))


def test_mimi_may_be_taught_so_and_others_are_refused(whisper: str) -> None:
    mimi = build_toy("mimi").train()
    term = objective(whisper)(step_of(mimi, sound(3200)))
    term.backward()
    assert float(term.detach()) > 0 and mimi.quantizer.first.project_in.weight.grad.abs().sum() > 0
    with pytest.raises(TypeError, match="dac has no semantic codebooks of its own"):
        objective(whisper)(step_of(build_toy("dac"), sound(3200)))
    with pytest.raises(ValueError, match="resynthesis needs asr_encoder: a folder or Hub id of a Whisper"):
        audio_objectives(AudioLossWeights(resynthesis=1.0), mimi)
    with pytest.raises(ValueError, match="distance 'l3': expected l2, l1, cosine"):
        feature_distance([], [], "l3")  # pyright: ignore[reportArgumentType]


def test_another_rate_is_heard_at_sixteen_kilohertz(whisper: str) -> None:
    config = replace(
        lm_spt("lm-spt").config, preprocess=replace(LmSptConfig().preprocess, sample_rate_hz=24_000)
    )
    torch.manual_seed(0)
    codec = LmSpt(config)
    assert as_heard(sound(4800), 24_000).shape == (1, 3200)
    term = objective(whisper)(step_of(codec, sound(4800)))
    term.backward()
    assert codec.encoder.semantic[0].weight.grad.abs().sum() > 0


def test_training_lowers_the_distance_and_keeps_the_recognizer_out(whisper: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    toy = lm_spt("lm-spt")
    module = AudioTraining(
        "lm-spt",
        toy.config.to_dict() | {"revives": True},
        losses={"mel": 0.0, "waveform": 0.1, "resynthesis": 1.0, "asr_encoder": whisper},  # pyright: ignore
        optimizer={"learning_rate": 5e-3, "warmup_steps": 1},  # pyright: ignore
    )
    batch = sound(3200, items=4)
    seen: list[float] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *others: Any) -> None:  # pyright: ignore
            seen.append(float(trainer.callback_metrics["train/resynthesis"]))

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=40,
        limit_val_batches=0,
        log_every_n_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        callbacks=[Watch()],
    )
    loader: Any = DataLoader(list(batch), batch_size=4)  # pyright: ignore[reportArgumentType]
    trainer.fit(module, loader, loader)
    assert sum(seen[-5:]) < 0.7 * sum(seen[:5])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    names = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert names and all(name.startswith(("tokenizer.", "average.")) for name in names)
    again = AudioTraining.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.encode(batch).identical(module.encode(batch))
