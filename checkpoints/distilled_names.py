"""What the official layouts of KARL and ALIT share: the transformers, and the autoencoder below.

Knows names only. Source of the layouts: ShivamDuggal4/karl 5c1a569 and adaptive-length-tokenizer 8c0b4ec.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from . import conv_names, convert_ldm_vae
from .renames import Renames

# Discriminators and perceptual losses that checkpoints of the last stage hold, of no use here.
LOSS_PREFIX = "gan_losses."

_VQGAN: Renames = (
    ("base_tokenizer.vqgan.quantize.embedding.weight", "decoder.vqgan.codebook"),
    ("base_tokenizer.vqgan.encoder.mid.block_1.**", "encoder.vqgan.mid.0.**"),
    ("base_tokenizer.vqgan.encoder.mid.block_2.**", "encoder.vqgan.mid.1.**"),
    ("base_tokenizer.vqgan.encoder.down.*.block.**", "encoder.vqgan.down.*.**"),
    ("base_tokenizer.vqgan.encoder.**", "encoder.vqgan.**"),
    ("base_tokenizer.vqgan.decoder.mid.block_1.**", "decoder.vqgan.decoder.mid.0.**"),
    ("base_tokenizer.vqgan.decoder.mid.block_2.**", "decoder.vqgan.decoder.mid.1.**"),
    ("base_tokenizer.vqgan.decoder.up.*.upsample.conv.*", "decoder.vqgan.decoder.up.*.upsample_conv.*"),
    ("base_tokenizer.vqgan.decoder.**", "decoder.vqgan.decoder.**"),
)
_VAE: Renames = (
    *(
        (f"base_tokenizer.vae.{official}", ours.replace(".", ".vae.", 1))
        for official, ours in conv_names.RENAMES
    ),
    ("base_tokenizer.vae.*.**", "*.vae.**"),
)

# Official name | ours. A name without a row is passed on, for the strict load to refuse.
RENAMES: Renames = (
    *_VQGAN,
    *_VAE,
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("latent_tokens", "encoder.latent_tokens"),
    ("patch_embed.*", "encoder.patch_embed.*"),
    ("pre_quantizer_mlp.*", "encoder.latent_out.*"),
    ("encoder_ln_post.*", "encoder.norm_out.*"),
    ("encoder_positional_embedding", "encoder.patch_positions"),
    ("decoder_positional_embedding", "decoder.patch_positions"),
    ("decoder_mask_token", "decoder.mask_token"),
    ("decoder.ln_pre.*", "decoder.transformer.norm.*"),
    ("decoder.ln_post.*", "decoder.norm_out.*"),
    ("decoder.ffn.**", "decoder.head.**"),
    ("*.transformer.*.ln_1.*", "*.transformer.blocks.*.norm1.*"),
    ("*.transformer.*.ln_2.*", "*.transformer.blocks.*.norm2.*"),
    ("*.transformer.*.attn.in_proj_weight", "*.transformer.blocks.*.attention.qkv.weight"),
    ("*.transformer.*.attn.in_proj_bias", "*.transformer.blocks.*.attention.qkv.bias"),
    ("*.transformer.*.attn.out_proj.*", "*.transformer.blocks.*.attention.out.*"),
    ("*.transformer.*.mlp.c_fc.*", "*.transformer.blocks.*.mlp.0.*"),
    ("*.transformer.*.mlp.c_proj.*", "*.transformer.blocks.*.mlp.2.*"),
)


def has_most(tensor_names: Collection[str], signature: frozenset[str]) -> bool:
    """Whether all names of a signature but one are there; the strict load says which is missing."""
    return len(signature.difference(tensor_names)) <= 1


def convert_shared(config: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """The fields of `DistilledConfig` out of the arguments of the official constructors.

    Raises ValueError naming a setting that is missing or that no released model has.
    """
    needed = {
        f"{part}_{what}" for part in ("encoder", "decoder") for what in ("width", "num_layers", "num_heads")
    }
    needed |= {"base_tokenizer", "base_tokenizer_config", "patch_size", "quantize_latent"}
    if missing := sorted(needed - set(config)):
        raise ValueError(f"configuration without {', '.join(missing)}: expected the official arguments")
    if not (config.get("factorize_latent", True) or config["quantize_latent"]):
        raise ValueError("factorize_latent False: expected True, tokens narrower than the transformers")
    return {
        "image_size": image_size,
        "patch_size": config["patch_size"],
        "preprocess": {"size": image_size, "resize": "shorter_edge", "interpolation": "bicubic"},
        "encoder": _size(config, "encoder"),
        "decoder": _size(config, "decoder"),
        "latent_dim": config.get("vq_token_dim", 12),
        "num_codes": config.get("vq_codebook_size", 4096) if config["quantize_latent"] else None,
        "l2": config.get("vq_use_l2_norm", True),
        "commitment_weight": config.get("vq_commitment_cost", 0.25),
        config["base_tokenizer"]: _base(config["base_tokenizer"], config["base_tokenizer_config"]),
    }


def _size(config: Mapping[str, Any], part: str) -> dict[str, int]:
    return {
        "width": config[f"{part}_width"],
        "layers": config[f"{part}_num_layers"],
        "heads": config[f"{part}_num_heads"],
    }


def _base(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The VQGAN or the VAE below."""
    if kind == "vae":
        vae = convert_ldm_vae.convert_config(config)
        return {"latent_dim": vae["latent_dim"], "network": vae["conv"]}
    if kind != "vqgan":
        raise ValueError(f"base_tokenizer {kind!r}: expected 'vqgan' or 'vae'")
    shape = config["ddconfig"]
    return {
        "codes": config["n_embed"],
        "network": {
            "channels": shape["ch"],
            "multipliers": shape["ch_mult"],
            "blocks": shape["num_res_blocks"],
            "latent_dim": shape["z_channels"],
        },
    }
