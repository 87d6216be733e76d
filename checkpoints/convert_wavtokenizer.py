"""WavTokenizer in both its layouts, the authors' and that of transformers: configuration and names in ours.

Sources: jishengpeng/WavTokenizer 5cf440d, decoder/pretrained.py, whose files are Lightning checkpoints with
all that training needed; transformers 5.24, models/wavtokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .renames import Renames, rename, reversed_renames
from .seanet_names import SEANET, codebook
from .weight_norm import fold_weight_norm, folded_name

TOKENIZER_TYPE = "wavtokenizer"

# Its encoder and codebook are those of an EnCodec, whose decoder is of no use and stays in the files.
ENCODEC = "feature_extractor.encodec."
WINDOW, TRANSFORMERS_HEAD = "head.istft.window", "head.linear.weight"
# Official name, weight norm folded | ours; the authors' names first, as messages speak them.
RENAMES: Renames = (
    *((f"{ENCODEC}{theirs}", ours) for theirs, ours in SEANET if theirs.startswith("*")),
    *codebook(f"{ENCODEC}quantizer.vq.layers.0._codebook", "quantizer"),
    ("backbone.norm.*.weight", "decoder.backbone.norm.*"),
    ("backbone.convnext.*.norm.*.weight", "decoder.backbone.convnext.*.norm.*"),
    ("head.out.*", "decoder.head.out.*"),
    # transformers
    ("encoder_model.encoder.layers.**.conv.*", "encoder.layers.**.*"),
    ("encoder_model.encoder.layers.**", "encoder.layers.**"),
    *codebook("encoder_model.quantizer.codebook", "quantizer"),
    ("head.linear.*", "decoder.head.out.*"),
    # both
    ("backbone.**", "decoder.backbone.**"),
    ("head.**", "decoder.head.**"),
)
DROPPED_PREFIXES = (
    f"{ENCODEC}decoder.",
    # Discriminators and losses of training.
    "multiperioddisc.",
    "multiresddisc.",
    "dac.",
    "dacdiscriminator.",
    "melspec_loss.",
)

# Of each layout one name may be missing, so that the strict load can say which.
SIGNATURES = tuple(
    frozenset({*names, "backbone.norm.scale.weight", "backbone.pos_net.0.conv1.weight"})
    for names in (
        (f"{ENCODEC}encoder.model.0.conv.conv.bias", f"{ENCODEC}quantizer.vq.layers.0._codebook.embed"),
        ("encoder_model.encoder.layers.0.conv.bias", "encoder_model.quantizer.codebook.embed"),
    )
)
# The one graph that was released, as transformers calls its options; what is absent is so.
GRAPH = {
    "audio_channels": 1,
    "use_causal_conv": False,
    "norm_type": "weight_norm",
    "decoder_attention_num_groups": 32,
    "norm_eps": 1e-6,
}


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a WavTokenizer; the authors' files have their configuration beside them."""
    return any(len(signature.difference(tensor_names)) <= 1 for signature in SIGNATURES)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of transformers' WavTokenizerConfig or of the authors' yaml (or
    what stands there at `model.init_args`).

    Raises ValueError for a network that no release has.
    """
    return _of_transformers(config) if "sampling_rate" in config else _of_authors(config)


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors that are one of ours together, the weight norm; and the window, which transformers
    makes anew."""
    folded = fold_weight_norm(tensors)
    head = folded.get(TRANSFORMERS_HEAD)
    if head is not None and head.ndim == 2 and len(head) > 2:
        folded[WINDOW] = torch.hann_window(len(head) - 2, device=head.device)
    return folded


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor but those dropped; one nobody knows keeps its name."""
    return {
        name: rename(folded_name(name), RENAMES) for name in names if not name.startswith(DROPPED_PREFIXES)
    }


def official_name(name: str) -> str:
    """The name that one of our tensors has in the authors' files, weight norm folded, for messages."""
    return rename(name, reversed_renames(RENAMES))


def _of_authors(config: Mapping[str, Any]) -> dict[str, Any]:
    """Absent entries have the defaults of the official classes."""
    told = config.get("model", config)
    told = told.get("init_args", told)
    parts = (told[name] for name in ("feature_extractor", "backbone", "head"))
    encoder, backbone, head = (part.get("init_args", part) for part in parts)
    conditions = backbone.get("adanorm_num_embeddings")
    codebooks, padding = encoder.get("num_quantizers", 1), head.get("padding", "same")
    # With several codebooks the official code decodes the last alone.
    if codebooks != 1 or padding != "same" or not conditions:
        raise ValueError(
            f"num_quantizers {codebooks}, padding {padding!r}, adanorm_num_embeddings {conditions}: "
            "expected 1, 'same' and a number"
        )
    return {
        "num_codes": encoder.get("vq_bins", 16384),
        "latent_dim": backbone["input_channels"],
        "encoder": {
            "filters": encoder.get("n_filters", 32),
            "ratios": encoder.get("dowmsamples", [6, 5, 5, 4]),
        },
        "decoder": {
            "width": backbone["dim"],
            "inner": backbone["intermediate_dim"],
            "layers": backbone["num_layers"],
            "conditions": conditions,
            "n_fft": head["n_fft"],
        },
        "preprocess": _preprocess(told.get("sample_rate", 24_000)),
    }


def _of_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Absent entries have the defaults of WavTokenizerConfig."""
    for name, expected in GRAPH.items():
        if config.get(name, expected) != expected:
            raise ValueError(f"{name}={config[name]!r}: expected {expected!r}, as in everything released")
    ratios = list(config.get("upsampling_ratios", [6, 5, 5, 4]))
    return {
        "num_codes": config.get("codebook_size", 4096),
        "latent_dim": config.get("hidden_size", 512),
        "encoder": {
            "filters": config.get("num_filters", 32),
            "ratios": ratios,
            "kernel": config.get("kernel_size", 7),
            "last_kernel": config.get("last_kernel_size", 7),
            "residual_kernel": config.get("residual_kernel_size", 3),
            "residual_layers": config.get("num_residual_layers", 1),
            "dilation_base": config.get("dilation_growth_rate", 2),
            "compress": config.get("compress", 2),
            "true_skip": not config.get("use_conv_shortcut", True),
            "pad_mode": config.get("pad_mode", "reflect"),
            "lstm_layers": config.get("num_lstm_layers", 2),
        },
        "decoder": {
            "width": config.get("decoder_hidden_size", 768),
            "inner": config.get("decoder_intermediate_size", 2304),
            "layers": config.get("decoder_num_layers", 12),
            "conditions": config.get("adanorm_num_embeddings", 4),
            "n_fft": 4 * math.prod(ratios),
        },
        "preprocess": _preprocess(config["sampling_rate"]),
    }


def _preprocess(sample_rate_hz: int) -> dict[str, Any]:
    return {"sample_rate_hz": sample_rate_hz, "channels": 1, "mix": "mean"}
