"""Official TiTok and One-D-Piece repositories: their configuration and tensor names in ours.

Knows names only. Source of the layout: bytedance/1d-tokenizer 942a96f, turingmotors/One-D-Piece 473665d.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "titok"

# Official model sizes: width, layers, heads (modeling/modules/blocks.py).
SIZES: Mapping[str, Mapping[str, int]] = {
    "small": {"width": 512, "layers": 8, "heads": 8},
    "base": {"width": 768, "layers": 12, "heads": 12},
    "large": {"width": 1024, "layers": 24, "heads": 16},
}

# MaskGIT's VQGAN, as stage 2 builds it (modeling/titok.py); the official config.json does not mention it.
PIXEL_DECODER: Mapping[str, Any] = {
    "channels": 128,
    "multipliers": (1, 1, 2, 2, 4),
    "blocks": 2,
    "latent_dim": 256,
}

# Official name | ours. A name without a row is passed on, for the strict load to refuse.
RENAMES: Renames = (
    ("latent_tokens", "encoder.latent_tokens"),
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("pixel_quantize.embedding.weight", "decoder.pixels.codebook"),
    ("pixel_decoder.**", "decoder.pixels.decoder.**"),
    ("*.class_embedding", "*.class_token"),
    ("*.positional_embedding", "*.patch_positions"),
    ("*.latent_token_positional_embedding", "*.latent_positions"),
    ("*.ln_pre.*", "*.transformer.norm.*"),
    ("*.ln_post.*", "*.norm_out.*"),
    ("*.transformer.*.ln_1.*", "*.transformer.blocks.*.norm1.*"),
    ("*.transformer.*.ln_2.*", "*.transformer.blocks.*.norm2.*"),
    ("*.transformer.*.attn.in_proj_weight", "*.transformer.blocks.*.attention.qkv.weight"),
    ("*.transformer.*.attn.in_proj_bias", "*.transformer.blocks.*.attention.qkv.bias"),
    ("*.transformer.*.attn.out_proj.*", "*.transformer.blocks.*.attention.out.*"),
    ("*.transformer.*.mlp.c_fc.*", "*.transformer.blocks.*.mlp.0.*"),
    ("*.transformer.*.mlp.c_proj.*", "*.transformer.blocks.*.mlp.2.*"),
    ("decoder.decoder_embed.*", "decoder.latent_embed.*"),
    ("decoder.conv_out.*", "decoder.head.conv_out.*"),
)
# The head is a stack of two convolutions in legacy models, one convolution in the others.
LEGACY_HEAD: Renames = (
    ("decoder.ffn.0.*", "decoder.head.hidden.*"),
    ("decoder.ffn.2.*", "decoder.head.logits.*"),
)
PATCH_HEAD: Renames = (("decoder.ffn.0.*", "decoder.head.patches.*"),)

# Names that every TiTok has; one may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "latent_tokens",
        "encoder.latent_token_positional_embedding",
        "decoder.mask_token",
        "decoder.ffn.0.weight",
    }
)
# TA-TiTok has them all and these besides.
FOREIGN_PREFIX = "decoder.text_guidance"


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether a folder holds an official TiTok or One-D-Piece; the latter comes without a configuration."""
    if len(SIGNATURE.difference(tensor_names)) > 1:
        return False
    if any(name.startswith(FOREIGN_PREFIX) for name in tensor_names):
        return False
    return not config or has_settings(config)


def convert_config(
    config: Mapping[str, Any],
    *,
    sizes: Mapping[str, Mapping[str, int]] = SIZES,
    pixel_decoder: Mapping[str, Any] = PIXEL_DECODER,
) -> dict[str, Any]:
    """Our configuration, as plain values, of an official config.json.

    config         the whole OmegaConf tree; absent keys have the defaults of the official code, references
                   that were saved unresolved ("${model.vq_model...}") are followed
    sizes          width, layers and heads by the official name of a size
    pixel_decoder  the decoder of stage-2 models, which the official code hard-codes

    Raises ValueError naming the key when a setting is missing, or a size unknown.
    """
    if not config:
        raise ValueError(
            "no configuration, as in the repositories of One-D-Piece: load it by its catalogue name or Hub id"
        )
    if not has_settings(config):
        raise ValueError(
            "configuration without model.vq_model or dataset.preprocessing: expected an official config.json"
        )
    settings = config["model"]["vq_model"]

    def read(key: str, *default: Any) -> Any:
        if key not in settings and default:
            return default[0]
        return _resolve(config, f"model.vq_model.{key}")

    mode = read("quantize_mode", "vq")
    if mode not in ("vq", "vae"):
        raise ValueError(f"model.vq_model.quantize_mode {mode!r}; expected 'vq' or 'vae'")
    discrete = mode == "vq"
    image_size = _resolve(config, "dataset.preprocessing.crop_size")
    # One-D-Piece publishes the type; its forks at least relax the check of the length.
    nested = config["model"].get("type") == "one_d_piece" or not read("strict_length_assertion", True)
    return {
        "num_tokens": read("num_latent_tokens"),
        "latent_dim": read("token_size"),
        "encoder": _size(read("vit_enc_model_size"), sizes),
        "decoder": _size(read("vit_dec_model_size"), sizes),
        "image_size": image_size,
        "preprocess": {"size": image_size, "resize": "shorter_edge", "interpolation": "bicubic"},
        "encoder_patch_size": read("vit_enc_patch_size"),
        "decoder_patch_size": read("vit_dec_patch_size"),
        "quantizer": "vq" if discrete else "gaussian",
        "num_codes": read("codebook_size") if discrete else None,
        "l2": read("use_l2_norm") if discrete else False,
        "commitment_weight": read("commitment_cost") if discrete else 0.0,
        "legacy": read("is_legacy", True),
        "pixel_decoder": dict(pixel_decoder) if read("finetune_decoder", True) else None,
        "nested": nested,
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; none is dropped, and one nobody knows keeps its name."""
    legacy = any(name.startswith("decoder.ffn.2.") for name in names)
    table = RENAMES + (LEGACY_HEAD if legacy else PATCH_HEAD)
    return {name: rename(name, table) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES + LEGACY_HEAD + PATCH_HEAD))


def has_settings(config: Mapping[str, Any]) -> bool:
    """Whether this is the configuration of a tokenizer of bytedance/1d-tokenizer."""
    try:
        return (
            "num_latent_tokens" in config["model"]["vq_model"]
            and "crop_size" in config["dataset"]["preprocessing"]
        )
    except (KeyError, TypeError):
        return False


def _size(name: str, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    if not isinstance(name, str) or name not in sizes:
        raise ValueError(f"model size {name!r}; known: {', '.join(sizes)}")
    return dict(sizes[name])


def _resolve(config: Mapping[str, Any], path: str, seen: tuple[str, ...] = ()) -> Any:
    """The value at a dotted path; the text "${other.path}", left by saving unresolved, is followed."""
    if path in seen:
        raise ValueError(f"configuration key {path} refers to itself: {' -> '.join((*seen, path))}")
    value: Any = config
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"configuration without {path}; expected the official config.json")
        value = value[part]
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    return _resolve(config, reference[1], (*seen, path)) if reference else value
