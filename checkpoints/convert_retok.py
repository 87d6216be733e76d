"""Official ReTok files: their configuration and tensor names in ours.

Knows names only. Source of the layout: zfu006/ReTok ffaa8a7, tokenizer/tokenizer_image/vq.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "retok"

# Official transformer sizes: width, layers, heads (blocks.py).
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"width": 256, "layers": 4, "heads": 4},
    "small": {"width": 512, "layers": 6, "heads": 8},
    "base": {"width": 768, "layers": 12, "heads": 12},
    "large": {"width": 1024, "layers": 24, "heads": 16},
    "xl": {"width": 1280, "layers": 36, "heads": 20},
    "xxl": {"width": 1536, "layers": 48, "heads": 24},
}
# Tokens that the encoder does not double; the official code has the number in several places.
UNDOUBLED = 32
# The one graph that was released, out of many options, and what stands for an absent one.
GRAPH: Mapping[str, tuple[Any, Any]] = {
    "codebook_l2_norm": (True, True),
    "multi_level_query_init": (True, False),
    "adaptive_gn": (True, False),
    "d2s_up": (True, False),
    "use_attn": (False, True),
    "use_rope": (False, False),
    "use_qk_norm": (False, False),
    "rope_1d": (False, False),
    "learnable_1d_query_init": (False, False),
    "learnable_2d_query_init": (False, False),
    "last_level_2d_query_init": (False, False),
    "multi_level_2d_query_init": (False, False),
    "res_up_down_sample": (False, False),
    "res_codebook_updown_sample": (False, False),
    "downsample_improve": (False, False),
    "use_lfq": (False, False),
    "simvq": (False, False),
    "stochastic": (False, False),
}

# Official name | ours: what the two transformers share, then everything. Ours hold the convolutions.
TRANSFORMER: Renames = (
    ("transformer.*.self_attn.in_proj_weight", "blocks.*.self_attention.qkv.weight"),
    ("transformer.*.self_attn.in_proj_bias", "blocks.*.self_attention.qkv.bias"),
    ("transformer.*.self_attn.out_proj.*", "blocks.*.self_attention.out.*"),
    ("transformer.*.multihead_attn.in_proj_weight", "blocks.*.cross_attention.qkv.weight"),
    ("transformer.*.multihead_attn.in_proj_bias", "blocks.*.cross_attention.qkv.bias"),
    ("transformer.*.multihead_attn.out_proj.*", "blocks.*.cross_attention.out.*"),
    ("transformer.*.linear1.*", "blocks.*.mlp.0.*"),
    ("transformer.*.linear2.*", "blocks.*.mlp.2.*"),
    ("transformer.**", "blocks.**"),
    ("ln_pre.*", "norm_in.*"),
    ("ln_post.*", "norm_out.*"),
    ("conv_out.*", "conv_out.*"),
    ("positional_embedding", "places"),
    ("latent_token_positional_embedding", "positions"),
)
RENAMES: Renames = (
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("quant_conv.*", "encoder.quant_conv.*"),
    ("post_quant_conv.*", "decoder.post_quant_conv.*"),
    ("s2to1encoder.encoder_embed.*", "encoder.embed.*"),
    ("s2to1encoder.global_proj.*", "encoder.query.*"),
    ("s2to1encoder.latent_token_positional_embedding_comp", "encoder.spare_positions"),
    ("s1to2decoder.decoder_embed.*", "decoder.embed.*"),
    ("s1to2decoder.distill_mlp.**", "decoder.semantic.**"),
    *((f"s2to1encoder.{official}", f"encoder.{ours}") for official, ours in TRANSFORMER),
    *((f"s1to2decoder.{official}", f"decoder.{ours}") for official, ours in TRANSFORMER),
    ("encoder.conv_blocks.*.res.**", "encoder.pixels.down.*.block.**"),
    ("encoder.conv_blocks.**", "encoder.pixels.down.**"),
    ("encoder.**", "encoder.pixels.**"),
    ("decoder.conv_blocks.*.res.**", "decoder.pixels.up.*.block.**"),
    ("decoder.conv_blocks.*.upsample.conv1.*", "decoder.pixels.up.*.upsample.*"),
    ("decoder.adaptive.*.**", "decoder.pixels.up.*.adaptive.**"),
    ("decoder.**", "decoder.pixels.**"),
)
# A statistic of training; and places of the spare tokens, which no decoder reads.
DROPPED = frozenset({"quantize.codebook_used", "s1to2decoder.latent_token_positional_embedding_comp"})

# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "quantize.embedding.weight",
        "s2to1encoder.latent_token_positional_embedding_comp",
        "s1to2decoder.decoder_embed.weight",
        "decoder.adaptive.0.gamma.weight",
    }
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a ReTok; the official files have no configuration beside them."""
    return len(SIGNATURE.difference(tensor_names)) <= 1


def convert_config(
    config: Mapping[str, Any], *, sizes: Mapping[str, Mapping[str, int]] = SIZES
) -> dict[str, Any]:
    """Our configuration, as plain values, of the `model` part of an official yaml.

    config  its `init_args`; absent ones have the official defaults. `ch`, `num_res_blocks` and `image_size`,
            which the official code hard-codes, may be there too
    sizes   width, layers and heads by the official name of a size

    Raises ValueError for a size that is unknown, and for options that were never released.
    """
    settings = config.get("init_args", {})
    for name, (released, absent) in GRAPH.items():
        if settings.get(name, absent) != released:
            raise ValueError(
                f"init_args.{name}={settings.get(name, absent)}: expected {released}, as released"
            )
    multipliers = settings.get("encoder_ch_mult", [1, 1, 2, 2, 4])
    if settings.get("decoder_ch_mult", multipliers) != multipliers:
        raise ValueError(
            f"encoder_ch_mult {multipliers}, decoder_ch_mult {settings['decoder_ch_mult']}: expected the same"
        )
    tokens, image_size = settings.get("num_latent_tokens", 256), settings.get("image_size", 256)
    return {
        "encoder": _size(settings.get("encoder_size") or settings.get("model_size", "small"), sizes),
        "decoder": _size(settings.get("decoder_size") or settings.get("model_size", "small"), sizes),
        "num_tokens": tokens,
        "num_spare": tokens - UNDOUBLED,
        "num_codes": settings.get("codebook_size", 16384),
        "latent_dim": settings.get("codebook_embed_dim", 8),
        "commitment_weight": settings.get("commit_loss_beta", 0.25),
        "rotation": settings.get("rot", False),
        "features": settings.get("z_channels", 256),
        "conv": {
            "channels": settings.get("ch", 128),
            "multipliers": multipliers,
            "blocks": settings.get("num_res_blocks", 2),
        },
        "image_size": image_size,
        "preprocess": {"size": image_size, "resize": "halving", "interpolation": "bicubic"},
        "semantic_depth": settings.get("distill_depth", 3),
        "semantic_dim": settings.get("out_inner_dim", 768),
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor but those dropped; one nobody knows goes with the convolutions."""
    return {name: rename(name, RENAMES) for name in names if name not in DROPPED}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))


def _size(name: Any, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    if not isinstance(name, str) or name not in sizes:
        raise ValueError(f"model size {name!r}; known: {', '.join(sizes)}")
    return dict(sizes[name])
