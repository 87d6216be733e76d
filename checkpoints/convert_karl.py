"""Official KARL checkpoints: their configuration and tensor names in ours.

Knows names only. Source of the layout: ShivamDuggal4/karl 5c1a569, kolmogorov_tokenizers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .distilled_names import LOSS_PREFIX, RENAMES, convert_shared, has_most
from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "karl"

# The official code asserts a grid of 16 x 16 places, and makes tables for 512 latents.
GRID_SIDE = 16
MAX_TOKENS = 512
# It was trained with multiples of 16, up to 368.
BUDGET_STEP = 16

# Official name | ours, before the shared ones.
_RENAMES: Renames = (
    ("rec_loss_embeddings", "encoder.error_tokens"),
    ("encoder_ln_pre.*", "encoder.transformer.norm.*"),
    ("encoder_ln_post_halt.*", "encoder.norm_halt.*"),
    ("halting_mlp.**", "encoder.halting.**"),
    ("decoder_embed.*", "decoder.latent_embed.*"),
    ("decoder_latent_tokens_timestep_embed", "decoder.latent_positions"),
    *RENAMES,
)

SIGNATURE = frozenset(
    {
        "rec_loss_embeddings",
        "halting_mlp.0.weight",
        "encoder_ln_post_halt.weight",
        "decoder_latent_tokens_timestep_embed",
    }
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are KARL's; the official files have no configuration."""
    return has_most(tensor_names, SIGNATURE)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of the official constructor.

    config  with `base_tokenizer` "vqgan" or "vae" and the arguments of that as `base_tokenizer_config`

    Raises ValueError naming a setting that is missing.
    """
    side = config.get("max_grid_tokens", 64)
    return convert_shared(config, GRID_SIDE * config.get("patch_size", 16)) | {
        "max_tokens": MAX_TOKENS,
        "budget_step": BUDGET_STEP,
        "table_side": side,
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; the training losses are dropped, one nobody knows keeps its name."""
    return {name: rename(name, _RENAMES) for name in names if not name.startswith(LOSS_PREFIX)}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(_RENAMES))
