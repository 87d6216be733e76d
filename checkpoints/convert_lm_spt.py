"""LM-SPT: configuration and tensor names in ours.

Source of the layout: kakao/lmspt b6e52d5, lmspt/model_codec/lmspt_model.py. The released files have their
configuration in the code, lmspt/infer/conf/model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .dac_names import NETWORKS, fold
from .renames import Renames, rename, reversed_renames
from .weight_norm import folded_name

__all__ = ["TOKENIZER_TYPE", "convert_config", "convert_names", "fold", "official_name", "recognise"]

TOKENIZER_TYPE = "lm-spt"


def _level(theirs: str, ours: str) -> Renames:
    return (
        (f"{theirs}.in_proj.*", f"{ours}.project_in.*"),
        (f"{theirs}.out_proj.*", f"{ours}.project_out.*"),
        (f"{theirs}.codebook.weight", f"{ours}.inner.codebook"),
    )


# Official name, weight norm folded | ours: DAC's networks, its encoder twice.
RENAMES: Renames = (
    *_level("quantizer.rvq_first.quantizers.0", "quantizer.first"),
    *_level("quantizer.rvq_rest.quantizers.*", "quantizer.rest.stages.*"),
    *(
        (f"{part}_{theirs}", f"encoder.{part}{ours.removeprefix('encoder')}")
        for part in ("semantic", "acoustic")
        for theirs, ours in NETWORKS
        if theirs.startswith("encoder.")
    ),
    *((theirs, ours) for theirs, ours in NETWORKS if theirs.startswith("decoder.")),
)
# The second decoder, which only training needed, and how often codes were used in it.
DROPPED_PREFIXES = ("aux_decoder.", "quantizer.semantic_vocab_usage", "quantizer.acoustic_vocab_usage")
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "semantic_encoder.block.0.bias",
        "acoustic_encoder.block.0.bias",
        "decoder.model.0.bias",
        "quantizer.rvq_first.quantizers.0.codebook.weight",
        "quantizer.rvq_rest.quantizers.0.codebook.weight",
    }
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are an LM-SPT; the official files have no configuration."""
    return len(SIGNATURE.difference(tensor_names)) <= 1


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of the official class (or of a recipe's `model`).

    Absent entries have the official defaults. Raises ValueError for what no release has: a causal network,
    one encoder for both, several semantic codebooks or a rounded one, other widths of the two kinds of codes.
    """
    told = config.get("model", config)
    code_dim = told.get("codebook_dim", 8)
    odd = {
        "n_semantic_codebooks": (told.get("n_semantic_codebooks", 1), 1),
        "semantic_quantizer": (told.get("semantic_quantizer", "rvq"), "rvq"),
        "use_shared_encoder": (told.get("use_shared_encoder", False), False),
        "is_causal": (told.get("is_causal", False), False),
        "dilation": (list(told.get("dilation", [1, 3, 9])), [1, 3, 9]),
        "residual_kernel_size": (told.get("residual_kernel_size", 7), 7),
        "acoustic_codebook_dim": (
            told.get("acoustic_codebook_dim") or code_dim,
            told.get("semantic_codebook_dim") or code_dim,
        ),
    }
    wrong = [
        f"{name}={value!r}, expected {wanted!r}" for name, (value, wanted) in odd.items() if value != wanted
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    strides, channels = list(told.get("encoder_rates", [2, 4, 8, 8])), told.get("encoder_dim", 64)
    size = told.get("codebook_size", 2048)
    return {
        "encoder_channels": channels,
        "encoder_strides": strides,
        "features": told.get("latent_dim") or channels << len(strides),
        "decoder_channels": told.get("decoder_dim", 1536),
        "decoder_strides": list(told.get("decoder_rates", [8, 8, 4, 2])),
        "num_codebooks": told.get("n_codebooks", 8),
        "semantic_codes": told.get("semantic_codebook_size") or size,
        "acoustic_codes": told.get("acoustic_codebook_size") or size,
        "code_dim": told.get("semantic_codebook_dim") or code_dim,
        "commitment_weight": 0.25,
        "subtracts": told.get("semantic_subtraction", True),
        "revives": False,
        "preprocess": {"sample_rate_hz": told.get("sample_rate", 44_100)},
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor but those dropped; one nobody knows keeps its name."""
    return {
        name: rename(folded_name(name), RENAMES) for name in names if not name.startswith(DROPPED_PREFIXES)
    }


def official_name(name: str) -> str:
    """The name that one of our tensors has in the official files, weight norm folded, for messages."""
    return rename(name, reversed_renames(RENAMES))
