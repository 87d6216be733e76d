"""Translation of official TiTok configurations, and recognising the layout."""

from copy import deepcopy
from typing import Any

import pytest

from tokenzoo.checkpoints import convert_titok
from tokenzoo.checkpoints.convert_titok import convert_config, convert_names, official_name, recognise
from tokenzoo.checkpoints.renames import rename, reversed_renames
from tokenzoo.image.titok import TiTokConfig

# As the three repositories of 2024-08 publish it: without quantize_mode, is_legacy and finetune_decoder.
OLD: dict[str, Any] = {
    "experiment": {"tokenizer_checkpoint": "tokenizer_titok_l32.bin"},
    "model": {
        "vq_model": {
            "codebook_size": 4096,
            "token_size": 12,
            "use_l2_norm": True,
            "commitment_cost": 0.25,
            "vit_enc_model_size": "large",
            "vit_dec_model_size": "large",
            "vit_enc_patch_size": 16,
            "vit_dec_patch_size": 16,
            "num_latent_tokens": 32,
        },
        "generator": {"image_seq_len": "${model.vq_model.num_latent_tokens}"},
    },
    "dataset": {"preprocessing": {"crop_size": 256}},
}


def changed(**settings: Any) -> dict[str, Any]:
    config = deepcopy(OLD)
    config["model"]["vq_model"].update(settings)
    return config


def test_absent_keys_have_the_official_defaults() -> None:
    config = TiTokConfig.from_dict(convert_config(OLD))
    assert config.quantizer == "vq" and config.legacy and not config.nested
    assert config.pixel_decoder is not None and config.pixel_decoder.multipliers == (1, 1, 2, 2, 4)
    assert (config.encoder.width, config.encoder.layers, config.encoder.heads) == (1024, 24, 16)


def test_one_d_piece_is_told_by_its_type_or_its_relaxed_check() -> None:
    assert convert_config(changed(strict_length_assertion=False))["nested"]
    typed = deepcopy(OLD)
    typed["model"]["type"] = "one_d_piece"
    assert convert_config(typed)["nested"]
    assert not convert_config(changed(strict_length_assertion=True))["nested"]


def test_unresolved_references_are_followed() -> None:
    config = changed(num_latent_tokens="${model.generator.image_seq_len}")
    config["model"]["generator"]["image_seq_len"] = "${experiment.tokens}"
    config["experiment"]["tokens"] = 48
    assert convert_config(config)["num_tokens"] == 48


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "One-D-Piece"),
        ({"model": "text"}, "expected an official config.json"),
        ({"model": {"vq_model": []}, "dataset": {"preprocessing": {"crop_size": 1}}}, "official config.json"),
        (changed(vit_enc_model_size="huge"), "model size 'huge'; known: small, base, large"),
        (changed(vit_enc_model_size=["small"]), "known: small, base, large"),
        (changed(quantize_mode="lfq"), "quantize_mode 'lfq'; expected 'vq' or 'vae'"),
        (changed(num_latent_tokens="${model.vq_model.num_latent_tokens}"), "refers to itself"),
        (changed(num_latent_tokens="${model.nowhere}"), "configuration without model.nowhere"),
    ],
)
def test_what_is_no_titok_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_config(config)


@pytest.mark.parametrize("settings", [{"token_size": "12"}, {"use_l2_norm": 1}, {"token_size": -3}])
def test_ill_typed_settings_are_refused_by_the_configuration(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"latent_dim|l2"):
        TiTokConfig.from_dict(convert_config(changed(**settings)))


def test_recognise() -> None:
    names = set(convert_titok.SIGNATURE) | {"encoder.ln_pre.weight"}
    assert recognise(OLD, names) and recognise({}, names) and recognise(None, names)
    assert recognise(OLD, names - {"latent_tokens"}), "one may be missing: the strict load says which"
    assert not recognise(OLD, names - {"latent_tokens", "decoder.mask_token"})
    assert not recognise(OLD, names | {"decoder.text_guidance_proj.weight"}), (
        "TA-TiTok is a family of its own"
    )
    assert not recognise({"hidden_size": 768}, names)


def test_unknown_names_pass_unchanged() -> None:
    assert convert_names(["discriminator.0.weight"]) == {"discriminator.0.weight": "discriminator.0.weight"}
    assert (
        official_name("encoder.transformer.blocks.3.attention.qkv.bias")
        == "encoder.transformer.3.attn.in_proj_bias"
    )


def test_rename_table() -> None:
    table = (("a.*.b", "x.*"), ("c.**", "y.**.z"), ("*.d.*", "*.e.*"))
    assert rename("a.1.b", table) == "x.1"
    assert rename("a.1.2.b", table) == "a.1.2.b", "a star is one part"
    assert rename("c.1.2", table) == "y.1.2.z"
    assert rename("p.d.q", table) == "p.e.q"
    assert rename("p.e.q", reversed_renames(table)) == "p.d.q"
    assert rename("aX1Xb", (("a.*", "wrong"),)) == "aX1Xb", "a dot is a dot"
