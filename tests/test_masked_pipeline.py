"""The masked-token pipeline: what it learned comes back, guided as the formula says, and survives a save."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.auto_model import AutoModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from torch import Tensor

import tokenzoo
from tokenzoo.zoo.masked_pipeline import MaskedTokenPipeline
from tokenzoo.zoo.masked_transformer import MaskedTransformer
from tokenzoo.zoo.tokenizer import NoDecoder

from .hub_server import HubServer, Repository
from .tiny_generators import CLASSES, TOKENS, ids_of_classes, quiet, trained_masked
from .toys import build_toy
from .toys_sequence import ToySound, ToySoundConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["toy-grid", "toy-sound"])
def test_a_class_gives_its_row(name: str) -> None:
    pipeline = trained_masked(name)
    made = pipeline([2, 0, 1], guidance_scale=1.5, generator=seeded(0))
    expected = ids_of_classes(build_toy(name))[[2, 0, 1]]
    assert made.tokens.ids.tolist() == expected.tolist()
    signal = (
        made.audios
        if name == "toy-sound"
        else pipeline([2, 0, 1], guidance_scale=1.5, output_type="pt", generator=seeded(0)).images
    )
    tokenizer = pipeline.tokenizer.tokenizer
    torch.testing.assert_close(signal, tokenizer.decode(tokenizer.stamp(expected)), atol=0, rtol=0)


def test_a_text_gives_its_row() -> None:
    pipeline = trained_masked("toy-grid", text_width=4)
    text = torch.zeros(2, 3, 4)
    text[0, 0, 1] = text[1, 0, 2] = 1
    keep = torch.tensor([[True, False, False]] * 2)
    text[:, 1:] = 100  # what is not kept is not read
    made = pipeline(prompt_embeds=text, prompt_keep=keep, guidance_scale=1.5, generator=seeded(0))
    assert made.tokens.ids.tolist() == ids_of_classes(build_toy("toy-grid"))[[1, 2]].tolist()


def test_images_are_pictures() -> None:
    made = trained_masked("toy-grid")([0], generator=seeded(0))
    (picture,) = made.images  # pyright: ignore
    assert isinstance(picture, Image.Image) and picture.size == (12, 12)
    decoded = trained_masked("toy-grid")([0], generator=seeded(0), output_type="pt").images
    grey = round(255 * float(decoded[0, 0, 0, 0]))  # pyright: ignore
    assert picture.getpixel((0, 0)) == (grey, grey, grey)


class Spy:
    """Keeps what the scheduler is told."""

    def __init__(self, pipeline: MaskedTokenPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
        step = pipeline.scheduler.step

        def watched(logits: Tensor, timestep: Tensor, ids: Tensor, generator: Any) -> Any:
            self.seen.append((logits, ids))
            return step(logits, timestep, ids, generator=generator)

        monkeypatch.setattr(pipeline.scheduler, "step", watched)


def test_guidance_is_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = trained_masked("toy-sound")
    spy, model = Spy(pipeline, monkeypatch), pipeline.transformer
    pipeline([1, 2], guidance_scale=2.5, num_inference_steps=4, generator=seeded(0))
    assert len(spy.seen) == 4
    for logits, ids in spy.seen:
        with torch.no_grad():
            told, untold = model(ids, torch.tensor([1, 2])), model(ids, torch.tensor([CLASSES, CLASSES]))
        legal = told > torch.finfo(torch.float32).min
        expected = untold + 2.5 * (told - untold)
        torch.testing.assert_close(logits[legal], expected[legal], atol=2e-5, rtol=1e-5)
        assert legal[0].sum(-1).tolist() == [6, 8, 3] * TOKENS
        assert float(logits.softmax(-1)[~legal].sum()) == 0


def test_scale_one_is_the_condition_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = trained_masked("toy-grid")
    spy = Spy(pipeline, monkeypatch)
    pipeline([1], guidance_scale=1, num_inference_steps=2, generator=seeded(0))
    with torch.no_grad():
        for logits, ids in spy.seen:
            torch.testing.assert_close(logits, pipeline.transformer(ids, torch.tensor([1])), atol=0, rtol=0)


def untrained(name: str = "toy-grid") -> MaskedTokenPipeline:
    torch.manual_seed(3)
    model = MaskedTransformer.for_tokenizer(
        build_toy(name), num_classes=CLASSES, num_tokens=TOKENS, width=16, layers=1, heads=1
    )
    return quiet(MaskedTokenPipeline(build_toy(name), model))


def test_the_seed_decides() -> None:
    pipeline = untrained()
    first, again, other = (pipeline([0, 1], generator=seeded(seed)).tokens.ids for seed in (5, 5, 6))
    assert first.tolist() == again.tolist() != other.tolist()


def test_with_a_generator_each_a_batch_equals_its_singles() -> None:
    pipeline = untrained("toy-sound")
    batch = pipeline([0, 1, None], generator=[seeded(seed) for seed in (1, 2, 3)]).tokens
    for index, told in enumerate([0, 1, None]):
        single = pipeline([told], generator=[seeded(index + 1)]).tokens
        assert single.ids[0].tolist() == batch.ids[index].tolist()


@pytest.mark.usefixtures("toy_families")
def test_a_saved_pipeline_makes_the_same(tmp_path: Path) -> None:
    pipeline = trained_masked("toy-sound")
    pipeline.save_pretrained(tmp_path)
    loaded = quiet(MaskedTokenPipeline.from_pretrained(tmp_path))
    before, after = (each([0, None], generator=seeded(4)) for each in (pipeline, loaded))
    assert after.tokens.identical(before.tokens)
    torch.testing.assert_close(after.audios, before.audios, atol=0, rtol=0)
    assert isinstance(tokenzoo.load(tmp_path / "tokenizer"), ToySound)
    model = AutoModel.from_pretrained(str(tmp_path), subfolder="transformer")
    assert type(model) is MaskedTransformer
    with pytest.raises(AttributeError, match="MaskedTokenPipeline"):
        DiffusionPipeline.from_pretrained(tmp_path)


def test_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    """diffusers' own download refuses components that are none of its classes."""
    tokenizer = tokenzoo.load("pyramid-128")
    model = MaskedTransformer.for_tokenizer(tokenizer, num_tokens=2, width=8, layers=1, heads=1)
    pipeline = quiet(MaskedTokenPipeline(tokenizer, model))
    pipeline.save_pretrained(tmp_path)
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.*")}
    repository = hub.repositories["me/pictures"] = Repository()
    sha = repository.commit(files | {"transformer/run.py": b"", "transformer/weights.bin": b""})
    repository.commit({"README.md": b"a later commit"})
    loaded = quiet(MaskedTokenPipeline.from_pretrained("me/pictures", revision=sha))
    before, after = (each([None], generator=seeded(4), output_type="pt") for each in (pipeline, loaded))
    assert after.tokens.identical(before.tokens)
    torch.testing.assert_close(after.images, before.images, atol=0, rtol=0)
    assert hub.asked("GET", ".safetensors") == 2 and not hub.asked("GET", ".bin") + hub.asked("GET", ".py")


def test_fewer_tokens_where_they_nest() -> None:
    made = untrained()([0], num_tokens=4, generator=seeded(0), output_type="tokens")
    assert made.tokens.ids.shape == (1, 4) and made.images is None


def test_the_loss_of_a_new_generator_is_that_of_chance() -> None:
    pipeline, ids = untrained("toy-sound"), ids_of_classes(build_toy("toy-sound"))
    loss = pipeline.transformer.loss(torch.cat([ids] * 50), generator=seeded(0))
    chance = torch.tensor([6.0, 8.0, 3.0]).log().mean()
    assert abs(float(loss.detach() - chance)) < 0.05


def test_fewer_codebooks_where_they_nest() -> None:
    tokenizer = build_toy("toy-sound")
    model = MaskedTransformer.for_tokenizer(tokenizer, num_tokens=5, depth=2, width=16, layers=1, heads=1)
    made = quiet(MaskedTokenPipeline(tokenizer, model))([None], generator=seeded(0))
    assert made.tokens.ids.shape == (1, 5, 2) and made.audios.shape == (1, 1, 20)  # pyright: ignore


def test_what_cannot_be_is_refused() -> None:
    grid, sound, model = build_toy("toy-grid"), build_toy("toy-sound"), untrained().transformer
    with pytest.raises(ValueError, match="toy-kl is continuous: floats have no ids to generate"):
        MaskedTransformer.for_tokenizer(build_toy("toy-kl"))
    with pytest.raises(ValueError, match="toy-kl is continuous"):
        MaskedTokenPipeline(build_toy("toy-kl"), model)
    with pytest.raises(ValueError, match=re.escape("writes codebooks of (16,), toy-sound reads")):
        MaskedTokenPipeline(sound, model)
    with pytest.raises(ValueError, match="items of toy-sound may have any length: say how long"):
        MaskedTransformer.for_tokenizer(sound)
    with pytest.raises(ValueError, match="num_tokens=65: toy-grid has at most 64"):
        MaskedTransformer.for_tokenizer(grid, num_tokens=65)
    with pytest.raises(ValueError, match="depth=2: toy-grid decodes 1 codebooks"):
        MaskedTransformer.for_tokenizer(grid, depth=2)
    with pytest.raises(ValueError, match=r"ids 16 \.\.\. 16: the codebooks have"):
        model.loss(torch.full((1, TOKENS), 16))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"classes": [0.5]}, "class 0.5: expected an integer, or None for none"),
        ({"classes": [CLASSES + 1]}, "class 4: expected 0 ... 2, or None for none"),
        ({"classes": [-1]}, "class -1: expected 0 ... 2"),
        ({"classes": []}, "classes are empty"),
        ({"classes": [True]}, "class True: expected an integer"),
        ({"classes": [1.0]}, "class 1.0: expected an integer"),
        ({"classes": 1}, r"classes=1: expected a list, one for each item, e\.g\. \[1\]"),
        ({"classes": [0], "guidance_scale": math.nan}, "guidance_scale=nan: expected a finite number"),
        ({"classes": [0], "temperature": (math.inf, 0)}, "temperature=inf: expected a finite number of at"),
        ({"classes": [0], "temperature": 1.0}, "temperature=1.0: expected two"),
        ({"classes": [0], "num_inference_steps": 0}, "num_inference_steps=0: expected an integer of at"),
        ({}, "nothing to generate"),
        ({"classes": [0], "output_type": "latent"}, "output_type='latent': expected one of pil, pt, tokens"),
        ({"classes": [0], "num_tokens": 9}, "num_tokens=9: this generator makes 1 ... 6"),
        ({"classes": [0], "generator": [seeded(0)] * 2}, "2 generators for 1 items"),
        ({"prompt_embeds": torch.zeros(1, 1, 4)}, "this generator takes no text"),
    ],
)
def test_a_wrong_call_is_told_so(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        untrained()(**call)


def test_classes_of_numpy_are_classes() -> None:
    ours, theirs = (
        untrained()(each, generator=seeded(0)).tokens for each in ([1, 2], list(np.array([1, 2])))
    )
    assert ours.identical(theirs)


def test_sound_is_no_picture_and_units_have_no_decoder() -> None:
    with pytest.raises(ValueError, match="output_type='pil': toy-sound makes audio"):
        untrained("toy-sound")([0], output_type="pil")
    units = ToySound(ToySoundConfig(decoder=False))
    pipeline = quiet(MaskedTokenPipeline(units, untrained("toy-sound").transformer))
    with pytest.raises(NoDecoder, match="ask for output_type='tokens'"):
        pipeline([0])
    assert pipeline([0], output_type="tokens").tokens.ids.shape == (1, TOKENS, 3)


@pytest.mark.usefixtures("toy_families")
def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    from diffusers import AmusedScheduler, DDPMScheduler
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokenzoo.zoo.autoregressive_pipeline import AutoregressiveTokenPipeline

    tokenizer = build_toy("toy-grid")
    masked = MaskedTransformer.for_tokenizer(tokenizer, width=8, layers=1, heads=2)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
    )
    with pytest.raises(
        TypeError, match="LlamaForCausalLM: expected a MaskedTransformer; a causal model belongs"
    ):
        MaskedTokenPipeline(tokenizer, llama)  # pyright: ignore
    with pytest.raises(TypeError, match="MaskedTransformer: expected a causal model of transformers"):
        AutoregressiveTokenPipeline(tokenizer, masked)
    with pytest.raises(TypeError, match="LlamaModel: expected a causal model of transformers"):
        AutoregressiveTokenPipeline(tokenizer, llama.model)
    with pytest.raises(TypeError, match="the scheduler is a DDPMScheduler: expected an AmusedScheduler"):
        MaskedTokenPipeline(tokenizer, masked, DDPMScheduler())
    for kind in (MaskedTokenPipeline, AutoregressiveTokenPipeline):
        with pytest.raises(
            TypeError, match="the tokenizer is a LlamaForCausalLM: expected one of tokenzoo's"
        ):
            kind(llama, masked)  # pyright: ignore
    MaskedTokenPipeline(tokenizer, torch.compile(masked, backend="eager"))  # pyright: ignore
    with pytest.raises(ValueError, match=f"masks with id 1, the transformer with {masked.mask_id}: leave"):
        MaskedTokenPipeline(tokenizer, masked, AmusedScheduler(mask_token_id=1))
    MaskedTokenPipeline(tokenizer, masked).save_pretrained(tmp_path)
    file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    folder = tmp_path / "transformer"
    again, found = MaskedTransformer.from_pretrained(
        pretrained_model_name_or_path=folder, output_loading_info=True
    )
    assert again.mask_id == masked.mask_id and not found["missing_keys"]
    weights = load_file(file)
    weights.pop("norm.weight")
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"no whole MaskedTransformer: .*missing_keys.*norm\.weight"):
        MaskedTokenPipeline.from_pretrained(tmp_path)
