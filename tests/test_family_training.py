"""Every neural image family trains: what learns gets a gradient, what is frozen none, the objective falls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from tokenzoo.image.image_tokenizer import KL_WEIGHT
from tokenzoo.image.training import ImageTraining
from tokenzoo.zoo import catalogue
from tokenzoo.zoo.batches import Batches, Source
from tokenzoo.zoo.objective import Step

from .test_training import assert_same, new_trainer, weights_of
from .toys import build_toy
from .toys_training import families, image_toys, pictures
from .training_audio import Saver

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.usefixtures("one_thread", "toy_families"),
]
FAMILIES = families()
# Language models teach these.
TAUGHT_ELSEWHERE = {"matryoshka", "tokenflex", "visual-transformer", "token-shuffle"}
STEPS, LOOK_EVERY = 200, 10
# Before the toys take their places.
LISTED = {name for name, home in catalogue.FAMILIES.items() if home.startswith("image.")}


def new_module(name: str, **changes: Any) -> ImageTraining:
    """Ready to be stepped by hand."""
    case = FAMILIES[name]
    module = case.build().finetune(ema_decay=None, **(case.settings | changes))
    for objective in module._each_objective():
        objective.prepare(module)
    return module.train()


def terms_of(module: ImageTraining, images: Tensor, seed: int) -> dict[str, Tensor]:
    """Every term, weighted, of one step whose chance depends on the seed alone."""
    generator, lengths = Generator().manual_seed(seed), None
    if module.length_policy is not None:
        lengths = module.length_policy.sample(len(images), generator=generator)
    made = module(images, lengths=lengths, generator=generator)
    step = Step(images, made.signal, made.quantized, module.tokenizer, lengths, None, generator)
    return {each.name: each.weight * each(step) for each in module._each_objective()}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_learns_gets_a_gradient_and_the_objective_falls(name: str) -> None:
    module = new_module(name)
    images = pictures(getattr(module.tokenizer.config, "image_size", 8))
    learning = [each for each in module.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, 3e-3, weight_decay=0.0, fused=True)
    case, left = FAMILIES[name], 1.0

    def measured() -> float:
        with torch.no_grad():
            return float(terms_of(module, images, seed=1)[case.term])

    start = measured()
    for step in range(STEPS):
        torch.stack(list(terms_of(module, images, seed=100 + step).values())).sum().backward()
        if step == 0:
            assert _without_gradient(module) == []
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % LOOK_EVERY == LOOK_EVERY - 1:
            left = measured() / start
            if left < case.share:
                break
    assert start > 0 and left < case.share


def _without_gradient(module: ImageTraining) -> list[str]:
    """Parameters that should learn and got none, or zeros."""
    return [
        name
        for name, each in module.named_parameters()
        if each.requires_grad and (each.grad is None or not each.grad.any())
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_frozen_gets_none(name: str) -> None:
    module = new_module(name, freeze="encoder, quantizer")
    images = pictures(getattr(module.tokenizer.config, "image_size", 8))
    torch.stack(list(terms_of(module, images, seed=0).values())).sum().backward()
    parts = dict(module.tokenizer.named_children())
    for part in ("encoder", "quantizer"):
        assert all(each.grad is None and not each.requires_grad for each in parts[part].parameters())
    decoder = list(parts["decoder"].parameters())
    assert any(each.grad is not None and each.grad.any() for each in decoder)
    assert module.hparams["freeze"] == ["encoder", "quantizer"]


def test_no_family_is_forgotten() -> None:
    """All of the catalogue, and all toys that are image tokenizers."""
    trained = {FAMILIES[name].build().config_type.tokenizer_type for name in FAMILIES}
    assert LISTED - trained == TAUGHT_ELSEWHERE
    assert image_toys() - trained - TAUGHT_ELSEWHERE == {"toy-kl", "toy-grid"}


@pytest.mark.parametrize("name", sorted(TAUGHT_ELSEWHERE))
def test_what_a_language_model_teaches_says_so(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"{name} has no picture to learn from.*language model"):
        build_toy(name).finetune()


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("titok", {"mse": 1.0, "quantizer": 1.0}),
        ("titok-gaussian", {"mse": 1.0, "quantizer": KL_WEIGHT}),
        ("titok-stage-1", {"mse": 0.0, "quantizer": 1.0}),
        ("ldm-vae", {"mse": 1.0, "quantizer": KL_WEIGHT}),
        ("tokenbridge", {"mse": 1.0, "quantizer": KL_WEIGHT}),
        ("flextok", {"mse": 0.0, "quantizer": 1.0}),
        ("open-magvit2", {"mse": 1.0, "quantizer": 1.0}),
    ],
)
def test_weights_that_nobody_said_are_the_familys(name: str, losses: dict[str, float]) -> None:
    weights = new_module(name).loss_weights
    assert {"mse": weights.mse, "quantizer": weights.quantizer} == losses
    told = FAMILIES[name].build().finetune(losses={"quantizer": 0.5}, terms={}).loss_weights
    assert told.quantizer == 0.5 and told.mse == losses["mse"]


@pytest.mark.parametrize("name", ["open-magvit2", "ibq"])
def test_entropies_come_with_the_quantizers_loss(name: str) -> None:
    """Alone they move the encoder, and the weights in the configuration are theirs."""
    module = new_module(name, losses={"mse": 0.0, "quantizer": 1.0})
    with_entropy = terms_of(module, pictures(8), seed=0)
    assert with_entropy.keys() == {"quantizer"}
    with_entropy["quantizer"].backward()
    assert all(each.grad is not None for each in module.tokenizer.encoder.parameters())
    quantizer = module.tokenizer.quantizer
    quantizer.sample_entropy_weight = quantizer.code_entropy_weight = 0.0
    without = terms_of(module, pictures(8), seed=0)["quantizer"].detach()
    assert abs(float(with_entropy["quantizer"].detach() - without)) > 1e-3


def test_what_nobody_teaches_is_frozen() -> None:
    """So that DistributedDataParallel does not wait for its gradient."""
    karl = build_toy("karl").finetune(terms={})
    stuck = {name for name, each in karl.tokenizer.named_parameters() if not each.requires_grad}
    assert stuck and all(name.startswith(("encoder.norm_halt", "encoder.halting")) for name in stuck)
    assert all(each.requires_grad for each in build_toy("karl").finetune().tokenizer.parameters())
    alit = build_toy("small-alit-vae").finetune()
    assert not alit.tokenizer.encoder.mask_token.requires_grad


class Pictures(Source):
    """Six of them, in memory."""

    def __init__(self, size: int) -> None:
        self._pictures = pictures(size, 6)

    def __len__(self) -> int:
        return 6

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor:
        return self._pictures[list(indices)]


@pytest.mark.parametrize("name", FAMILIES)
def test_resume_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    """Chance included: the last two of four steps, from what was saved after the second."""

    def fresh() -> ImageTraining:
        return FAMILIES[name].build().finetune(optimizer={"decay_steps": 9}, **FAMILIES[name].settings)

    def data() -> Batches:
        return Batches(Pictures(getattr(whole.tokenizer.config, "image_size", 8)), 2, seed=0)

    whole, resumed, file = fresh(), fresh(), tmp_path / "part.ckpt"
    new_trainer(4, callbacks=[Saver(file, 2)], enable_checkpointing=True).fit(whole, data())
    torch.manual_seed(99)
    for parameter in resumed.parameters():
        nn.init.normal_(parameter)
    last = new_trainer(4)
    last.fit(resumed, data(), ckpt_path=file, weights_only=True)
    assert last.global_step == 4
    assert_same(weights_of(whole), weights_of(resumed))
