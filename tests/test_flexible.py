"""From fixed to flexible: what falls off a cliff before the recipe falls smoothly after it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tokenzoo
from tokenzoo.image.flexible import flexible, main
from tokenzoo.image.metrics import psnr
from tokenzoo.image.titok import TiTok
from tokenzoo.image.training import ImageTraining
from tokenzoo.zoo.transformer import TransformerSize

from .photo_crops import photo_crops
from .test_training import new_trainer, weights_of
from .toys import build_toy
from .toys_training import titok

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.usefixtures("one_thread"),
]
LENGTHS = (1, 2, 4, 6, 8)
SIZE = TransformerSize(width=64, layers=1, heads=2)


def train(module: ImageTraining, array: Path, steps: int) -> TiTok:
    from tokenzoo.image.data import ImageFolderData

    data = ImageFolderData(str(array), validation_share=0.0, batch_size=32, flip=False)
    new_trainer(steps).fit(module, datamodule=data)
    assert isinstance(module.tokenizer, TiTok)
    return module.tokenizer


def recipe(**changes: Any) -> dict[str, Any]:
    optimizer = {"learning_rate": 3e-3, "warmup_steps": 20}
    return {"losses": {"mse": 0.0, "log_mse": 1.0}, "optimizer": optimizer, "ema_decay": None} | changes


def scores(tokenizer: TiTok, images: torch.Tensor) -> list[float]:
    """PSNR in dB of each of LENGTHS."""
    tokens = tokenizer.encode(images)
    return [float(psnr(tokenizer.decode(tokens.keep(count)), images).mean()) for count in LENGTHS]


def test_the_recipe_makes_a_fixed_tokenizer_flexible(tmp_path: Path) -> None:
    """Thirty-two crops of photographs, learned by heart: the same tokens, and a decoder for every length."""
    array = tmp_path / "crops.npy"
    np.save(array, photo_crops(["astronaut", "cat", "coffee", "dandelion"], 32, 16))
    images = torch.from_numpy(np.load(array)).permute(0, 3, 1, 2).float() / 255
    torch.manual_seed(0)
    size = {
        "encoder": SIZE,
        "decoder": SIZE,
        "latent_dim": 8,
        "encoder_patch_size": 8,
        "decoder_patch_size": 8,
    }
    start = titok(**size, quantizer="gaussian", num_codes=None, l2=False)
    fixed = train(start.finetune(**recipe()), array, 350)
    full = float(psnr(fixed.decode(fixed.encode(images)), images).mean())

    before = scores(flexible(fixed), images)
    assert before[-1] == pytest.approx(full) and before[0] < full - 3.5, (before, full)

    lengths = {"distribution": "uniform", "full": 0.2}
    module = flexible(fixed).finetune(**recipe(freeze="encoder,quantizer", lengths=lengths))
    after = scores(train(module, array, 250), images)
    assert all(one < other + 0.05 for one, other in pairwise(after)), after
    assert before[-1] - before[2] > 2 and after[-1] - after[2] < 1.2, "what half of the tokens are worth"
    assert after[0] > before[0] + 2 and after[-1] > full - 0.5, (before, after, full)
    tokens = module.encode(images)
    assert torch.equal(tokens.values, fixed.encode(images).values), "stored tokens stay good"


def test_a_flexible_copy_has_the_same_weights_and_other_facts(tmp_path: Path) -> None:
    fixed = titok().eval()
    made = flexible(fixed)
    assert made.facts.nested == "tokens" and fixed.facts.nested is None
    assert (made.facts.name, made.facts.fingerprint) == ("titok-flexible", None)
    assert made.provenance == "titok, made flexible"
    before, after = weights_of(fixed), weights_of(made)
    assert all(torch.equal(before[name], after[name]) for name in before)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(made.encode(images).ids, fixed.encode(images).ids)
    assert made.decode(made.encode(images).keep(3)).shape == images.shape
    fixed.save_pretrained(tmp_path / "fixed")
    main([str(tmp_path / "fixed"), "--out", str(tmp_path / "start")])
    loaded = tokenzoo.load(tmp_path / "start")
    assert loaded.facts.nested == "tokens" and loaded.facts.name == "titok-flexible"


def test_what_cannot_become_flexible_says_why() -> None:
    with pytest.raises(ValueError, match="one-d-piece is nested already"):
        flexible(titok(nested=True))
    with pytest.raises(TypeError, match=r"ta-titok is a SmallTaTiTok: flexible\(\) takes a TiTok"):
        flexible(build_toy("ta-titok"))
    with pytest.raises(TypeError, match="bytes is a ByteTokenizer"):
        flexible(tokenzoo.load("bytes"))
