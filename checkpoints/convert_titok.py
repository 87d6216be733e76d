"""Official TiTok and One-D-Piece repositories: their configuration and tensor names in ours.

Knows names only. Source of the layout: bytedance/1d-tokenizer 942a96f, turingmotors/One-D-Piece 473665d.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from .conversion import Conversion

if TYPE_CHECKING:
    from torch import Tensor

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

# Official name -> ours; one without a match is passed on for the strict load to refuse.
RENAMES: tuple[tuple[str, str], ...] = (
    (r"latent_tokens", "encoder.latent_tokens"),
    (r"quantize\.embedding\.weight", "quantizer.codebook"),
    (r"pixel_quantize\.embedding\.weight", "decoder.pixels.codebook"),
    (r"pixel_decoder\.(.+)", r"decoder.pixels.decoder.\1"),
    (r"(encoder|decoder)\.class_embedding", r"\1.class_token"),
    (r"(encoder|decoder)\.positional_embedding", r"\1.patch_positions"),
    (r"(encoder|decoder)\.latent_token_positional_embedding", r"\1.latent_positions"),
    (r"(encoder|decoder)\.ln_pre\.(.+)", r"\1.transformer.norm.\2"),
    (r"(encoder|decoder)\.ln_post\.(.+)", r"\1.norm_out.\2"),
    (r"(encoder|decoder)\.transformer\.(\d+)\.ln_([12])\.(.+)", r"\1.transformer.blocks.\2.norm\3.\4"),
    (
        r"(encoder|decoder)\.transformer\.(\d+)\.attn\.in_proj_(.+)",
        r"\1.transformer.blocks.\2.attention.qkv.\3",
    ),
    (
        r"(encoder|decoder)\.transformer\.(\d+)\.attn\.out_proj\.(.+)",
        r"\1.transformer.blocks.\2.attention.out.\3",
    ),
    (r"(encoder|decoder)\.transformer\.(\d+)\.mlp\.c_fc\.(.+)", r"\1.transformer.blocks.\2.mlp.0.\3"),
    (r"(encoder|decoder)\.transformer\.(\d+)\.mlp\.c_proj\.(.+)", r"\1.transformer.blocks.\2.mlp.2.\3"),
    (r"decoder\.decoder_embed\.(.+)", r"decoder.latent_embed.\1"),
    (r"decoder\.conv_out\.(.+)", r"decoder.head.conv_out.\1"),
)
LEGACY_HEAD = (
    (r"decoder\.ffn\.0\.(.+)", r"decoder.head.hidden.\1"),
    (r"decoder\.ffn\.2\.(.+)", r"decoder.head.logits.\1"),
)
PATCH_HEAD = ((r"decoder\.ffn\.0\.(.+)", r"decoder.head.patches.\1"),)

# Names that every TiTok has, and names of its relatives that are families of their own.
SIGNATURE = frozenset(
    {
        "latent_tokens",
        "encoder.latent_token_positional_embedding",
        "decoder.mask_token",
        "decoder.ffn.0.weight",
    }
)
FOREIGN = frozenset({"decoder.text_guidance_proj.weight"})


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether a folder holds an official TiTok or One-D-Piece; the latter comes without a configuration."""
    names = set(tensor_names)
    if not names >= SIGNATURE or names & FOREIGN:
        return False
    return not config or _has_settings(config)


def convert(config: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> Conversion:
    """The checkpoint in our names, nothing dropped; without a configuration (One-D-Piece) it has none."""
    names = convert_names(tensors)
    return Conversion(
        config=convert_config(config) if config else None,
        tensors={names[name]: tensor for name, tensor in tensors.items()},
    )


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
    if not _has_settings(config):
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
    head = LEGACY_HEAD if "decoder.ffn.2.weight" in names else PATCH_HEAD
    return {name: _rename(name, RENAMES + head) for name in names}


def _rename(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return name


def _has_settings(config: Mapping[str, Any]) -> bool:
    try:
        return (
            "num_latent_tokens" in config["model"]["vq_model"]
            and "crop_size" in config["dataset"]["preprocessing"]
        )
    except (KeyError, TypeError):
        return False


def _size(name: str, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    if name not in sizes:
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
