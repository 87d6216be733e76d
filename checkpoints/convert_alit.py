"""Official ALIT checkpoints: their configuration and tensor names in ours.

Knows names only. Source of the layout: ShivamDuggal4/adaptive-length-tokenizer 8c0b4ec, adaptive_tokenizers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .distilled_names import LOSS_PREFIX, RENAMES, convert_shared, has_most
from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "alit"

# The official decoder has positions for so many latents, whatever the number of rounds.
SLOTS = 256

# Official name | ours, before the shared ones.
_RENAMES: Renames = (
    ("latent_token_positional_embedding", "encoder.latent_positions"),
    ("timestep_embedding", "encoder.round_embedding"),
    ("encoder_class_embedding", "encoder.class_token"),
    ("encoder_mask_token", "encoder.mask_token"),
    ("encoder_ln_pre.*", "encoder.norm_in.*"),
    ("encoder_ln_recursive.*", "encoder.norm_round.*"),
    ("encoder.transformer.*.ln_1.*", "encoder.blocks.*.norm1.*"),
    ("encoder.transformer.*.ln_2.*", "encoder.blocks.*.norm2.*"),
    ("encoder.transformer.*.attn.in_proj_weight", "encoder.blocks.*.attention.qkv.weight"),
    ("encoder.transformer.*.attn.in_proj_bias", "encoder.blocks.*.attention.qkv.bias"),
    ("encoder.transformer.*.attn.out_proj.*", "encoder.blocks.*.attention.out.*"),
    ("encoder.transformer.*.mlp.c_fc.*", "encoder.blocks.*.mlp.0.*"),
    ("encoder.transformer.*.mlp.c_proj.*", "encoder.blocks.*.mlp.2.*"),
    ("decoder_class_embedding", "decoder.class_token"),
    ("decoder.decoder_embed.*", "decoder.latent_embed.*"),
    ("decoder.latent_token_positional_embedding", "decoder.latent_positions"),
    *RENAMES,
)

SIGNATURE = frozenset(
    {
        "timestep_embedding",
        "encoder_ln_recursive.weight",
        "encoder_class_embedding",
        "decoder_class_embedding",
    }
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are ALIT's; the official files have no configuration."""
    return has_most(tensor_names, SIGNATURE)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of the official constructor.

    config  with `base_tokenizer` "vqgan" or "vae" and the arguments of that as `base_tokenizer_config`

    Raises ValueError naming a setting that is missing.
    """
    masks = config.get("dynamic_halting", True) and config.get("base_tokenizer") == "vqgan"
    return convert_shared(config, config.get("img_size", 256)) | {
        "tokens_per_round": config.get("num_init_latent_tokens", 32),
        "rounds": config.get("max_rollout_iters", 8),
        "slots": SLOTS,
        "mask_threshold": config.get("dynamic_halting_threshold", 0.55) if masks else None,
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; the training losses are dropped, one nobody knows keeps its name."""
    return {name: rename(name, _RENAMES) for name in names if not name.startswith(LOSS_PREFIX)}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(_RENAMES))
