"""EnCodec in both its layouts, Facebook's and transformers': configuration and tensor names in ours.

Sources: facebookresearch/encodec 0e2d0ae, model.py, whose .th files are plain state dicts; transformers 5.24,
models/encodec. Weight norm has either spelling there, by the age of the file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from .renames import Renames, rename, reversed_renames
from .weight_norm import fold_weight_norm, folded_name

TOKENIZER_TYPE = "encodec"

# Name on the Hub, weight norm folded | ours. Norms and LSTMs are called alike.
HUB_RENAMES: Renames = (
    ("*.layers.**.conv.*", "*.layers.**.*"),
    ("quantizer.layers.*.codebook.embed", "quantizer.stages.*.codebook"),
    ("quantizer.layers.*.codebook.embed_avg", "quantizer.stages.*.sums"),
    ("quantizer.layers.*.codebook.cluster_size", "quantizer.stages.*.counts"),
    ("quantizer.layers.*.codebook.inited", "quantizer.stages.*.started"),
)
# Name in Facebook's files | on the Hub.
FACEBOOK_RENAMES: Renames = (
    ("*.model.**.conv.conv.*", "*.layers.**.conv.*"),
    ("*.model.**.convtr.convtr.*", "*.layers.**.conv.*"),
    ("*.model.**.conv.norm.*", "*.layers.**.norm.*"),
    ("*.model.**.convtr.norm.*", "*.layers.**.norm.*"),
    ("*.model.*.lstm.*", "*.layers.*.lstm.*"),
    ("quantizer.vq.layers.*._codebook.*", "quantizer.layers.*.codebook.*"),
)
# On the Hub. One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "encoder.layers.0.conv.bias",
        "decoder.layers.0.conv.bias",
        "decoder.layers.1.lstm.weight_ih_l0",
        "quantizer.layers.0.codebook.embed",
    }
)
# SpeechTokenizer has the names of Facebook's files, and an LSTM that runs both ways.
FOREIGN_SUFFIX = "_reverse"


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are an EnCodec in either layout; Facebook's files have no configuration."""
    if any(name.endswith(FOREIGN_SUFFIX) for name in tensor_names):
        return False
    return len(SIGNATURE.difference(map(_hub_name, tensor_names))) <= 1


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of transformers' EncodecConfig or of the arguments of Facebook's
    modules; absent entries have the defaults there.

    Raises ValueError for a network that no release has.
    """
    return _of_transformers(config) if "sampling_rate" in config else _of_facebook(config)


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors that are one of ours together: the weight norm."""
    return fold_weight_norm(tensors)


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor, also of those that `fold` joins; one nobody knows keeps its name."""
    return {name: rename(_hub_name(name), HUB_RENAMES) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in the files on the Hub, weight norm folded, for messages."""
    if ".norm." in name or ".lstm." in name:
        return name
    return rename(name, reversed_renames(HUB_RENAMES))


def _hub_name(name: str) -> str:
    return rename(folded_name(name), FACEBOOK_RENAMES)


def _of_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in config.items() if value is not None}
    width, codes = told.get("hidden_size", 128), told.get("codebook_size", 1024)
    for name, expected in (("codebook_dim", width), ("trim_right_ratio", 1.0)):
        if told.get(name, expected) != expected:
            raise ValueError(f"{name}={told[name]!r}: expected {expected!r}, as in everything released")
    rate_hz, ratios = told.get("sampling_rate", 24_000), list(told.get("upsampling_ratios", [8, 5, 4, 2]))
    bits_per_second = math.ceil(rate_hz / math.prod(ratios)) * math.ceil(math.log2(codes))
    most = told.get("target_bandwidths", [24.0])[-1]
    return {
        "num_codebooks": int(1000 * most // bits_per_second),
        "num_codes": codes,
        "latent_dim": width,
        "seanet": {
            "channels": told.get("audio_channels", 1),
            "filters": told.get("num_filters", 32),
            "ratios": ratios,
            "kernel": told.get("kernel_size", 7),
            "last_kernel": told.get("last_kernel_size", 7),
            "residual_kernel": told.get("residual_kernel_size", 3),
            "residual_layers": told.get("num_residual_layers", 1),
            "dilation_base": told.get("dilation_growth_rate", 2),
            "compress": told.get("compress", 2),
            "true_skip": not told.get("use_conv_shortcut", True),
            "causal": told.get("use_causal_conv", True),
            "pad_mode": told.get("pad_mode", "reflect"),
            "group_norm": told.get("norm_type") == "time_group_norm",
            "lstm_layers": told.get("num_lstm_layers", 2),
        },
        "segment_seconds": told.get("chunk_length_s"),
        "segment_overlap": told.get("overlap", 0.01),
        "normalise": told.get("normalize", False),
        "preprocess": {"sample_rate_hz": rate_hz, "channels": told.get("audio_channels", 1)},
    }


def _of_facebook(config: Mapping[str, Any]) -> dict[str, Any]:
    norm, channels = config.get("norm", "weight_norm"), config.get("channels", 1)
    if norm not in ("none", "weight_norm", "time_group_norm"):
        raise ValueError(
            f"norm={norm!r}: expected 'weight_norm' or 'time_group_norm', as in what was released"
        )
    return {
        "num_codebooks": config.get("n_q", 32),
        "num_codes": config.get("bins", 1024),
        "latent_dim": config.get("dimension", 128),
        "seanet": {
            "channels": channels,
            "filters": config.get("n_filters", 32),
            "ratios": list(config.get("ratios", [8, 5, 4, 2])),
            "kernel": config.get("kernel_size", 7),
            "last_kernel": config.get("last_kernel_size", 7),
            "residual_kernel": config.get("residual_kernel_size", 3),
            "residual_layers": config.get("n_residual_layers", 1),
            "dilation_base": config.get("dilation_base", 2),
            "compress": config.get("compress", 2),
            "true_skip": config.get("true_skip", False),
            "causal": config.get("causal", False),
            "pad_mode": config.get("pad_mode", "reflect"),
            "group_norm": norm == "time_group_norm",
            "lstm_layers": config.get("lstm", 2),
        },
        "segment_seconds": config.get("segment"),
        "segment_overlap": config.get("overlap", 0.01),
        "normalise": config.get("normalize", False),
        "preprocess": {"sample_rate_hz": config.get("sample_rate", 24_000), "channels": channels},
    }
