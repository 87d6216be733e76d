"""SpeechTokenizer: configuration and tensor names in ours.

Source of the layout: ZhangXInFD/SpeechTokenizer 30c96fb, speechtokenizer/model.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from .renames import Renames, rename, reversed_renames
from .seanet_names import SEANET, codebook
from .weight_norm import fold_weight_norm, folded_name

TOKENIZER_TYPE = "speechtokenizer"

# Official name, weight norm folded | ours. `transform` has its own name on both sides.
RENAMES: Renames = (*codebook("quantizer.vq.layers.*._codebook", "quantizer.stages.*"), *SEANET)

# One may be missing, so that the strict load can say which. EnCodec has all but the LSTM that runs both ways.
SIGNATURE = frozenset(
    {
        "encoder.model.0.conv.conv.bias",
        "encoder.model.1.block.1.conv.conv.bias",
        "decoder.model.0.conv.conv.bias",
        "quantizer.vq.layers.0._codebook.embed",
    }
)
BACKWARD = "_l0_reverse"


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a SpeechTokenizer."""
    if len(SIGNATURE.difference(tensor_names)) > 1:
        return False
    return any(name.startswith("encoder.") and name.endswith(BACKWARD) for name in tensor_names)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the official config.json; absent entries have the values of the
    published models, and those of training are read by nobody.

    Raises ValueError for an activation that is neither ELU nor Snake, and for an LSTM that runs one way.
    """
    activation = config.get("activation", "ELU")
    both_ways = config.get("bidirectional", True)
    if activation not in ("ELU", "Snake") or not both_ways:
        raise ValueError(
            f"activation {activation!r}, bidirectional {both_ways}: expected 'ELU' or 'Snake', and True"
        )
    return {
        "num_codebooks": config.get("n_q", 8),
        "num_codes": config.get("codebook_size", 1024),
        "latent_dim": config.get("dimension", 1024),
        "semantic_dim": config.get("semantic_dimension", 768),
        "commitment_weight": float(config.get("commitment_loss_lambda", 10)),
        "seanet": {
            "filters": config.get("n_filters", 64),
            "ratios": config.get("strides", [8, 5, 4, 2]),
            "residual_kernel": config.get("residual_kernel_size", 3),
            "residual_layers": config.get("n_residual_layers", 1),
            "dilation_base": config.get("dilation_base", 2),
            "activation": activation.lower(),
            "lstm_layers": config.get("lstm_layers", 2),
            "bidirectional": True,
        },
        "preprocess": {"sample_rate_hz": config.get("sample_rate", 16_000), "channels": 1, "mix": "first"},
    }


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors that are one of ours together: the weight norm."""
    return fold_weight_norm(tensors)


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; one nobody knows keeps its name."""
    return {name: rename(folded_name(name), RENAMES) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, weight norm folded, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
