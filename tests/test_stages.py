"""TiTok's two stages: from logits over a VQGAN's codes to the pixels it paints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tokenzoo
from tokenzoo.image.stages import main, with_pixels
from tokenzoo.image.titok import TiTok

from .toys_training import pictures, stage1, stage2, titok, vqgan

pytestmark = pytest.mark.usefixtures("one_thread", "toy_families")


def test_the_second_stage_paints_the_codes_of_the_first() -> None:
    first, below = stage1().eval(), vqgan()
    second = with_pixels(first, below)
    assert not first.facts.has_decoder and second.facts.has_decoder
    assert torch.equal(second.encode(pictures()).ids, first.encode(pictures()).ids)
    with torch.no_grad():
        logits = first(pictures()).signal
        codes = torch.einsum("bkhw,kd->bdhw", logits.softmax(1), below.quantizer.codebook)
        expected = below.decoder(codes).clamp(0, 1)
    torch.testing.assert_close(second.decode(second.encode(pictures())), expected)
    assert second.provenance == "titok, painted by maskgit-vqgan" and second.facts.fingerprint is None


def test_the_second_stage_trains_the_decoder_alone() -> None:
    module = stage2().finetune(freeze=["encoder", "quantizer"])
    learning = {
        name.split(".")[0] for name, each in module.tokenizer.named_parameters() if each.requires_grad
    }
    assert learning == {"decoder"}
    assert module.tokenizer.decoder.pixels.codebook.requires_grad


def test_the_command_writes_the_start_of_the_second_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage1().save_pretrained(tmp_path / "one")
    vqgan().save_pretrained(tmp_path / "vqgan")
    main([str(tmp_path / "one"), str(tmp_path / "vqgan"), "--out", str(tmp_path / "two")])
    loaded = tokenzoo.load(tmp_path / "two")
    assert isinstance(loaded, TiTok) and loaded.facts.has_decoder
    assert capsys.readouterr().out == f"{tmp_path / 'two'}\n"
    with pytest.raises(SystemExit):
        main([str(tmp_path / "one"), str(tmp_path / "one"), "--out", str(tmp_path / "three")])
    assert "expected a TiTok and a MaskGIT VQGAN" in capsys.readouterr().err


def test_stages_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="titok paints already: expected a first stage"):
        with_pixels(titok(), vqgan())
    with pytest.raises(ValueError, match="has 32 codes for patches of 4 pixels: titok predicts 50 for 4"):
        with_pixels(titok(legacy=True, pixel_codes=50), vqgan())
