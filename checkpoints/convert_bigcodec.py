"""BigCodec: configuration and tensor names in ours.

Source of the layout: Aria-K-Alethia/BigCodec 09845ab, vq/codec_encoder.py and vq/codec_decoder.py. The
official bigcodec.pt is a dict of two state dicts, CodecEnc and generator; these stand before the names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from .alias_free_names import FILTERS, network_names
from .renames import Renames, rename, reversed_renames
from .weight_norm import fold_weight_norm, folded_name

TOKENIZER_TYPE = "bigcodec"

_QUANTIZER = "generator.quantizer.layers.0"
# Official name, weight norm folded | ours.
RENAMES: Renames = (
    *network_names("CodecEnc.block", "encoder"),
    *network_names("generator.model", "decoder"),
    (f"{_QUANTIZER}.in_proj.*", "quantizer.project_in.*"),
    (f"{_QUANTIZER}._codebook.weight", "quantizer.inner.codebook"),
    (f"{_QUANTIZER}.out_proj.*", "quantizer.project_out.*"),
)
DILATIONS = [1, 3, 9]
# What training checkpoints hold besides.
DROPPED_PREFIXES = ("discriminator.", "spec_discriminator.")
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "CodecEnc.block.0.bias",
        "CodecEnc.block.7.act.alpha",
        "generator.model.0.bias",
        f"{_QUANTIZER}._codebook.weight",
    }
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a BigCodec; the official file has no configuration."""
    return len(SIGNATURE.difference(tensor_names)) <= 1


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of the official CodecEncoder and CodecDecoder.

    config  `codec_encoder` and `codec_decoder`; absent entries have the values of the official inference.py

    Raises ValueError for a model with no LSTM, one that looks ahead, or several codebooks: none is published.
    """
    encoder, decoder = dict(config.get("codec_encoder", {})), dict(config.get("codec_decoder", {}))
    for name, part in (("codec_encoder", encoder), ("codec_decoder", decoder)):
        if not part.get("use_rnn", True) or part.get("rnn_bidirectional", False):
            raise ValueError(f"{name} has no LSTM, or one in both directions: expected one that runs forward")
        if list(part.get("dilations", DILATIONS)) != DILATIONS:
            raise ValueError(f"{name} has dilations {part['dilations']}: expected {DILATIONS}")
    if decoder.get("vq_num_quantizers", 1) != 1:
        raise ValueError(f"vq_num_quantizers={decoder['vq_num_quantizers']}: expected 1")
    return {
        "encoder_channels": encoder.get("ngf", 48),
        "encoder_strides": encoder.get("up_ratios", [2, 2, 2, 5, 5]),
        "encoder_lstm": encoder.get("rnn_num_layers", 2),
        "features": encoder.get("out_channels", 1024),
        "decoder_channels": decoder.get("upsample_initial_channel", 1536),
        "decoder_strides": decoder.get("up_ratios", [5, 5, 2, 2, 2]),
        "decoder_lstm": decoder.get("rnn_num_layers", 2),
        "num_codes": decoder.get("codebook_size", 8192),
        "code_dim": decoder.get("codebook_dim", 8),
        "commitment_weight": decoder.get("vq_commit_weight", 0.25),
    }


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors that are one of ours together: the weight norm."""
    return fold_weight_norm(tensors)


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor but the filters, which are constants; unknown ones keep theirs."""
    return {
        name: rename(folded_name(name), RENAMES)
        for name in names
        if not name.endswith(FILTERS) and not name.startswith(DROPPED_PREFIXES)
    }


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, weight norm folded, for messages about it."""
    return rename(name, reversed_renames(RENAMES))
