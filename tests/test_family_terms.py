"""The terms of the loss that belong to a family, by hand, and what teaches them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenzoo.image.alignment import Alignment
from tokenzoo.image.alit import Alit
from tokenzoo.image.code_distillation import CodeDistillation
from tokenzoo.image.distillation import grid_loss, grid_of
from tokenzoo.image.distilled import VAE_SCALE
from tokenzoo.image.embedding import Embedding
from tokenzoo.image.halting import Halting, next_errors
from tokenzoo.image.karl import Karl
from tokenzoo.image.karl_parts import ERRORS
from tokenzoo.image.rounds import Rounds
from tokenzoo.image.semantics import Semantics
from tokenzoo.image.teacher import FrozenFeatures
from tokenzoo.image.training import ImageTraining
from tokenzoo.zoo.objective import Objective, Step
from tokenzoo.zoo.quantizer import Quantized
from tokenzoo.zoo.watch import Watch

from .test_family_training import new_module, terms_of
from .toys import build_toy
from .toys_training import (
    BACKBONE,
    backbone_file,
    flextok,
    pictures,
    stage1,
    titok,
    vqgan,
    vqgan_folder,
)

pytestmark = pytest.mark.usefixtures("one_thread", "toy_families")
SEEN = {"backbone": BACKBONE, "weights": backbone_file()}


def number(term: Tensor) -> float:
    return term.detach().item()


def the(kind: type[Objective], module: ImageTraining) -> Any:
    (found,) = (each for each in module._each_objective() if isinstance(each, kind))
    return found


def step_of(module: ImageTraining, rebuilt: Tensor, **others: Any) -> Step:
    quantized = Quantized(torch.zeros(1), torch.zeros(1), torch.zeros(()), None)
    return Step(pictures(), rebuilt, quantized, module.tokenizer, **others)


def test_codes_are_the_teachers_ids() -> None:
    module = new_module("titok-stage-1")
    codes = the(CodeDistillation, module)
    assert number(codes(step_of(module, torch.zeros(4, 32, 4, 4)))) == pytest.approx(math.log(32))
    ids = vqgan().encode(pictures()).ids.view(4, 4, 4)
    sure = 50.0 * torch.nn.functional.one_hot(ids, 32).permute(0, 3, 1, 2)
    assert number(codes(step_of(module, sure))) < 1e-4
    assert number(codes(step_of(module, sure.flip(2)))) > 10
    with pytest.raises(ValueError, match="gives 16 ids an image: the student predicts 4"):
        codes(step_of(module, torch.zeros(4, 32, 2, 2)))
    # The teacher is no part of the module, its checkpoints or its parameters.
    assert not any("teacher" in name for name in module.state_dict())


def test_codes_need_a_teacher_of_as_many_codes() -> None:
    with pytest.raises(ValueError, match=r"has codebooks of \[32\] codes: expected one of 50"):
        module = titok(legacy=True, pixel_codes=50).finetune(terms={"codes": {"teacher": vqgan_folder()}})
        the(CodeDistillation, module).prepare(module)


def test_a_first_stage_paints_no_pixels() -> None:
    module = new_module("titok-stage-1")
    figures = module.eval().validation_figures(pictures())
    assert figures.keys() == {"quantizer", "codes"} and 2 < number(figures["codes"]) < 30
    wrong: list[dict[str, Any]] = [{"losses": {"l1": 1.0, "perceptual": 1.0}}, {"adversary": {}}]
    for settings, told in zip(wrong, ("l1, perceptual", "adversary"), strict=True):
        with pytest.raises(ValueError, match=rf"without painting pixels: leave out {told} .*terms are codes"):
            stage1().finetune(**settings)


def test_alignment_looks_at_the_patches_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    module = new_module("flextok")
    alignment = the(Alignment, module)
    seen: list[Tensor] = []
    decoder = module.tokenizer.decoder
    decoder.blocks[0].register_forward_hook(lambda part, given, output: seen.append(output))
    value = terms_of(module, pictures(), seed=0)["alignment"] / alignment.weight
    projected = alignment.project(seen[0][:, :16])
    wanted = FrozenFeatures(BACKBONE, backbone_file(), 4)(pictures())
    expected = -torch.nn.functional.cosine_similarity(projected, wanted, dim=-1).mean()
    assert torch.allclose(value, expected) and value.requires_grad
    monkeypatch.setattr(FrozenFeatures, "forward", lambda self, images: projected.detach())
    assert number(terms_of(module, pictures(), seed=0)["alignment"]) == pytest.approx(-alignment.weight)
    own = [name for name in module.state_dict() if name.startswith("objectives.")]
    assert own and all(name.startswith("objectives.1.project") for name in own)
    alignment.release()
    with pytest.raises(AssertionError, match="prepare comes first"):
        terms_of(module, pictures(), seed=0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (SEEN | {"features": 9}, ValueError, "features=9: test_vit has 64"),
        (SEEN | {"depth": 3}, ValueError, r"depth=3: expected 1 \.\.\. 2"),
        (SEEN | {"weights": "nowhere.pth"}, FileNotFoundError, "nowhere.pth: no such file; .* test_vit"),
        (SEEN | {"backbone": "no_such_model"}, ValueError, "timm's no_such_model does not load"),
    ],
)
def test_alignment_says_what_is_wrong(settings: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        module = flextok().finetune(terms={"alignment": settings})
        the(Alignment, module).prepare(module)


def test_semantics_are_the_tokenizers_own_loss() -> None:
    module = new_module("retok")
    torch.manual_seed(0)
    made = module(pictures(), lengths=torch.tensor([1, 4, 16, 2]))
    lengths = torch.tensor([1, 4, 16, 2])
    step = Step(pictures(), made.signal, made.quantized, module.tokenizer, lengths)
    wanted = FrozenFeatures(BACKBONE, backbone_file(), 4)(pictures())
    expected = module.tokenizer.semantic_loss(made.quantized.latents, wanted, lengths)  # pyright: ignore
    assert torch.equal(the(Semantics, module)(step), expected) and number(expected) != 0
    narrow = build_toy("retok").finetune(terms={"semantic": SEEN})
    with pytest.raises(ValueError, match="test_vit has features of width 64: semantic_dim is 6"):
        the(Semantics, narrow).prepare(narrow)


def test_frozen_features_are_a_grid_of_any_side() -> None:
    teacher = FrozenFeatures(BACKBONE, backbone_file(), 3)
    assert teacher(pictures()).shape == (4, 9, 64) and teacher.size == 48
    assert not teacher.train().training and not any(each.requires_grad for each in teacher.parameters())
    assert not teacher(pictures().requires_grad_()).requires_grad


def test_the_error_that_the_second_pass_is_told() -> None:
    reached = torch.tensor([0.0, 0.005, 0.0051, 0.05, 0.38, 2.0])
    assert next_errors(reached).tolist() == [0, 0, 1, 5, 18, 18] and len(ERRORS) == 19


def test_an_error_for_each_image_is_as_one_for_all() -> None:
    model = build_toy("karl")
    assert isinstance(model, Karl)
    together = model.encoder(pictures(), torch.tensor([0, 3, 18, 3]), 10)
    for item, error in enumerate((0, 3, 18, 3)):
        alone = model.encoder(pictures()[item : item + 1], error, 10)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[item : item + 1], other, atol=1e-4, rtol=0)


def test_the_first_trial_is_drawn() -> None:
    model = build_toy("karl")
    assert isinstance(model, Karl)
    three = pictures()[:3]
    trials = [model._first_trial(three, torch.Generator().manual_seed(seed)) for seed in range(60)]
    # Budget 10 in steps of 2: up to one and a half times that, less a step, and no more than 14 slots.
    assert {budget for budget, _ in trials} == {2, 4, 6, 8, 10, 12}
    assert {int(error) for _, errors in trials for error in errors} == {0, 1, 2, 3, 4}
    made = model.train()(pictures(), generator=torch.Generator().manual_seed(0))
    assert made.quantized.values.shape == (4, trials[0][0])


def test_halting_by_hand() -> None:
    """The first four latents of ten reached the error: the others are to halt."""
    module = new_module("karl", terms={"halting": {"rebuild": 0.0}})
    model, halting = module.tokenizer, the(Halting, module)
    assert isinstance(model, Karl)
    latents, votes = model.encoder(pictures(), 0, 4)
    step = step_of(module, pictures() + 0.03)
    second, again = model.encoder(pictures(), 3, 10)
    terms = [votes.sigmoid().neg().log1p().mean(), again[:, :4].sigmoid().neg().log1p().mean()]
    terms.append(again[:, 4:].sigmoid().log().mean())
    expected = -torch.stack(terms).sum() + model.quantizer(second).loss
    model.encoder(pictures(), 0, 4)
    torch.testing.assert_close(halting(step), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="has not run in this step"):
        Watch(model.encoder).take()
    assert latents.shape == (4, 4, 4)


def test_the_second_pass_paints_without_those_that_halted() -> None:
    bare = new_module("karl", terms={"halting": {"rebuild": 0.0}})
    module = new_module("karl", terms={"halting": {"rebuild": 2.0, "grid": 0.5}})
    value, others = (terms_of(each, pictures(), seed=0)["halting"] for each in (module, bare))
    assert number(value) > number(others) > 0
    value.backward()
    for part in ("encoder.halting.0.weight", "decoder.head.0.weight", "quantizer.codebook"):
        gradient = module.tokenizer.get_parameter(part).grad
        assert gradient is not None and gradient.any(), part


def test_the_grid_by_hand() -> None:
    model = build_toy("karl")
    assert isinstance(model, Karl)
    features, codebook = grid_of(model, pictures()), model.decoder.vqgan.codebook  # pyright: ignore
    even = torch.zeros(4, 3, 4, 4)
    distances = (features.flatten(2).transpose(1, 2)[:, :, None] - codebook).square().sum(-1)
    truth = codebook[distances.argmin(-1)]
    expected = math.log(3) + (codebook.mean(0) - truth).square().mean()
    torch.testing.assert_close(grid_loss(model, even, features), expected.detach(), rtol=1e-4, atol=1e-5)
    vae = build_toy("small-karl-vae")
    assert isinstance(vae, Karl)
    latents = grid_of(vae, pictures()) / VAE_SCALE
    assert number(grid_loss(vae, latents + 0.5, VAE_SCALE * latents)) == pytest.approx(0.25, rel=1e-4)


def test_rounds_weigh_each_length() -> None:
    model = build_toy("alit")
    assert isinstance(model, Alit)

    def value(*weights: float, smoothing: float = 0.1) -> float:
        terms = {"rounds": {"round_weights": weights, "smoothing": smoothing}}
        module = model.finetune(terms=terms)
        generator = torch.Generator().manual_seed(0)
        return number(the(Rounds, module)(step_of(module, pictures(), generator=generator)))

    nothing = value(0.0, 0.0, 0.0, 0.0)
    each = [value(*(float(place == index) for place in range(4))) - nothing for index in range(4)]
    assert value(2.0, 1.0, 1.0, 0.5) == pytest.approx(
        nothing + 2 * each[0] + each[1] + each[2] + each[3] / 2, rel=1e-4
    )
    features = grid_of(model, pictures())
    state = model.encoder(model.encoder.first(pictures(), features))
    quantized = model.quantizer(model.encoder.latents(state))
    first = grid_loss(model, model.decoder.predict(quantized.latents), features)
    assert each[0] == pytest.approx(number(first), rel=1e-4)


def test_embeddings_count_by_their_angle() -> None:
    module = new_module("seed")
    embedding = the(Embedding, module)
    (teacher,) = embedding._teacher
    mean, std = (
        torch.tensor(each)[:, None, None]
        for each in (module.tokenizer.config.mean, module.tokenizer.config.std)
    )
    wanted = teacher(pixel_values=(pictures() - mean) / std).image_embeds
    for scale, expected in ((3.0, 0.0), (-1.0, 4.0)):
        assert number(embedding(step_of(module, scale * wanted))) == pytest.approx(expected, abs=1e-5)
    assert module.eval().validation_figures(pictures()).keys() == {"quantizer", "embedding"}
    wide = build_toy("seed")
    wide.config = replace(wide.config, embedding_dim=64)
    with pytest.raises(ValueError, match="has embeddings of width 32: expected 64"):
        module.tokenizer.config = wide.config
        embedding.prepare(module)


@pytest.mark.parametrize(
    ("name", "terms", "error", "message"),
    [
        ("llamagen", {"halting": {}}, TypeError, "halting is for KARL: no latent of llamagen.* votes"),
        ("llamagen", {"codes": {}}, TypeError, "codes is for stage 1 of TiTok.*: llamagen.* paints pixels"),
        ("karl", {"alignment": {}}, TypeError, "alignment is for FlexTok: karl.* has no flow decoder"),
        ("karl", {"semantic": {}}, TypeError, "semantic is for ReTok: karl-finetuned has no such head"),
        ("karl", {"rounds": {}}, TypeError, "rounds is for ALIT: karl-finetuned has none"),
        ("karl", {"embedding": {}}, TypeError, "embedding is for SEED: karl-finetuned gives none"),
        (
            "karl",
            {"halt": {}},
            ValueError,
            "FamilyTerms has no field halt; known: alignment, codes, embedding",
        ),
        ("karl", {"halting": {"wait": 1}}, ValueError, "HaltingSettings has no field wait; known: weight"),
        ("karl", {"halting": {"weight": -1}}, ValueError, "weight of halting is -1"),
    ],
)
def test_terms_of_another_family_are_refused(
    name: str, terms: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        build_toy(name).finetune(terms=terms)


def test_a_checkpoint_knows_its_terms_and_needs_no_teacher(tmp_path: Path) -> None:
    from lightning import pytorch as lightning

    module = new_module("flextok")
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    terms = module.hparams["terms"]
    assert terms["alignment"]["hidden"] == 32 and terms["alignment"]["depth"] is None
    again = ImageTraining.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.hparams["terms"] == terms
    assert again.state_dict().keys() == module.state_dict().keys()
