"""DAC in both its layouts, that of Descript and that of transformers: configuration and tensor names in ours.

Sources: descriptinc/descript-audio-codec c7cfc5d, dac/model/dac.py; transformers 5.24, models/dac. Descript's
.pth holds `state_dict` and `metadata`, whose `kwargs` are the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from . import dac_names
from .dac_names import fold
from .renames import Renames, rename, reversed_renames
from .weight_norm import folded_name

__all__ = ["TOKENIZER_TYPE", "convert_config", "convert_names", "fold", "official_name", "recognise"]

TOKENIZER_TYPE = "dac"

QUANTIZER = dac_names.codebooks("quantizer.stages.*")
# Official name, weight norm folded | ours.
RENAMES: Renames = (*QUANTIZER, *dac_names.NETWORKS)
# One may be missing, so that the strict load can say which.
TRANSFORMERS_SIGNATURE = frozenset(
    {
        "encoder.conv1.weight",
        "encoder.block.0.res_unit1.conv1.weight",
        "decoder.conv1.weight",
        "quantizer.quantizers.0.in_proj.weight",
    }
)
# SNAC's decoder begins with two convolutions, and has noise.
FOREIGN = re.compile(r"decoder\.model\.(1\.(weight|bias)|\d+\.block\.2\.linear\.weight)")

_BLOCK = re.compile(r"encoder\.block\.(\d+)\.res_unit1\.")
# Layers of a residual unit, in order.
_UNIT = ("snake1", "conv1", "snake2", "conv2")


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a DAC in either layout; the official files have no configuration."""
    names = {folded_name(name) for name in tensor_names}
    if len(TRANSFORMERS_SIGNATURE - names) <= 1:
        return True
    return len(dac_names.SIGNATURE - names) <= 1 and not any(map(FOREIGN.fullmatch, names))


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of the official DAC or of transformers' DacConfig.

    Absent entries have the official defaults.
    """
    given = _as_descript(config) if config.get("model_type") == "dac" else config
    strides, channels = list(given.get("encoder_rates", [2, 4, 8, 8])), given.get("encoder_dim", 64)
    return {
        "encoder_channels": channels,
        "encoder_strides": strides,
        "features": given.get("latent_dim") or channels << len(strides),
        "decoder_channels": given.get("decoder_dim", 1536),
        "decoder_strides": list(given.get("decoder_rates", [8, 8, 4, 2])),
        "num_codebooks": given.get("n_codebooks", 9),
        "num_codes": given.get("codebook_size", 1024),
        "code_dim": given.get("codebook_dim", 8),
        "commitment_weight": given.get("commitment_loss_weight", 0.25),
        "preprocess": {"sample_rate_hz": given.get("sample_rate", 44_100)},
    }


def _as_descript(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' configuration in the words of Descript's; its decoder always mirrors the encoder."""
    strides = list(config.get("downsampling_ratios", [2, 4, 8, 8]))
    return dict(config) | {
        "encoder_dim": config.get("encoder_hidden_size", 64),
        "encoder_rates": strides,
        "decoder_dim": config.get("decoder_hidden_size", 1536),
        "decoder_rates": strides[::-1],
        "sample_rate": config.get("sampling_rate", 16_000),
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; one nobody knows keeps its name."""
    table = _transformers_renames(names) if any(".res_unit" in name for name in names) else RENAMES
    return {name: rename(folded_name(name), table) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in Descript's files, weight norm folded, for messages about it."""
    return rename(name, reversed_renames(RENAMES))


def _transformers_renames(names: Collection[str]) -> Renames:
    """That layout counts blocks and units by themselves; ours counts all layers in a row."""
    blocks = 1 + max((int(found[1]) for name in names if (found := _BLOCK.match(name))), default=0)
    rows = [*QUANTIZER]
    for block in range(blocks):
        for side, first in (("encoder", 0), ("decoder", 2)):
            there, here = f"{side}.block.{block}", f"{side}.{block + 1}"
            rows += [
                (f"{there}.res_unit{unit + 1}.{layer}.*", f"{here}.{first + unit}.{place}.*")
                for unit in range(3)
                for place, layer in enumerate(_UNIT)
            ]
        rows += [
            (f"encoder.block.{block}.snake1.*", f"encoder.{block + 1}.3.*"),
            (f"encoder.block.{block}.conv1.*", f"encoder.{block + 1}.4.*"),
            (f"decoder.block.{block}.snake1.*", f"decoder.{block + 1}.0.*"),
            (f"decoder.block.{block}.conv_t1.*", f"decoder.{block + 1}.1.*"),
        ]
    for side in ("encoder", "decoder"):
        rows += [
            (f"{side}.conv1.*", f"{side}.0.*"),
            (f"{side}.snake1.*", f"{side}.{blocks + 1}.*"),
            (f"{side}.conv2.*", f"{side}.{blocks + 2}.*"),
        ]
    return tuple(rows)
