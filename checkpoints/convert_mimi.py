"""Mimi in three layouts: kyutai's, and those of transformers 4 (on the Hub) and 5.

Sources of the layouts: kyutai-labs/moshi e6a55d2, models/loaders.py; huggingface/transformers 5.23,
models/mimi/modeling_mimi.py and conversion_mapping.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "mimi"

# transformers sorts the features of queries and keys in halves within each head, kyutai in pairs; the tensors
# do not tell how wide a head is. In everything released it has so many features.
HEAD_FEATURES = 64
# Unused codes are divided by this count.
LEAST_USAGE = 1e-5

# Official name | ours, without what is inside a layer; the Hub's layout first, as messages speak it.
PLACES: Renames = (
    ("*.layers.**.conv.*", "*.seanet.layers.**.*"),
    ("*_transformer.layers.**", "*.transformer.layers.**"),
    ("downsample.conv.*", "encoder.downsample.*"),
    ("upsample.conv.*", "decoder.upsample.*"),
    ("quantizer.semantic_residual_vector_quantizer.layers.*.codebook.*", "quantizer.first.inner.stages.*.*"),
    ("quantizer.acoustic_residual_vector_quantizer.layers.*.codebook.*", "quantizer.rest.inner.stages.*.*"),
    ("quantizer.semantic_residual_vector_quantizer.**", "quantizer.first.**"),
    ("quantizer.acoustic_residual_vector_quantizer.**", "quantizer.rest.**"),
    # transformers 5
    ("encoder.encoder_seanet.layers.**.conv.*", "encoder.seanet.layers.**.*"),
    ("decoder.decoder_seanet.layers.**.conv.*", "decoder.seanet.layers.**.*"),
    ("encoder.encoder_transformer.layers.**", "encoder.transformer.layers.**"),
    ("decoder.decoder_transformer.layers.**", "decoder.transformer.layers.**"),
    ("encoder.downsample.conv.*", "encoder.downsample.*"),
    ("decoder.upsample.conv.*", "decoder.upsample.*"),
    # kyutai
    ("*.model.**.conv.conv.*", "*.seanet.layers.**.*"),
    ("*.model.**.convtr.convtr.*", "*.seanet.layers.**.*"),
    ("*_transformer.transformer.layers.**", "*.transformer.layers.**"),
    ("downsample.conv.conv.conv.*", "encoder.downsample.*"),
    ("upsample.convtr.convtr.convtr.*", "decoder.upsample.*"),
    ("quantizer.rvq_first.vq.layers.*._codebook.*", "quantizer.first.inner.stages.*.*"),
    ("quantizer.rvq_rest.vq.layers.*._codebook.*", "quantizer.rest.inner.stages.*.*"),
    ("quantizer.rvq_first.**", "quantizer.first.**"),
    ("quantizer.rvq_rest.**", "quantizer.rest.**"),
)
# Inside a layer. kyutai's file has the older spelling of the projections, its present code the other.
PARTS: Renames = (
    *((f"**.self_attn.{name}_proj.weight", "**.attention.qkv.weight") for name in ("qkv", "q", "k", "v")),
    ("**.self_attn.o_proj.weight", "**.attention.out.weight"),
    ("**.input_layernorm.*", "**.norm1.*"),
    ("**.post_attention_layernorm.*", "**.norm2.*"),
    ("**.mlp.fc1.weight", "**.mlp.0.weight"),
    ("**.mlp.fc2.weight", "**.mlp.2.weight"),
    ("**.self_attn_layer_scale.scale", "**.scale1"),
    ("**.mlp_layer_scale.scale", "**.scale2"),
    ("quantizer.**.input_proj.weight", "quantizer.**.project_in.weight"),
    ("quantizer.**.output_proj.weight", "quantizer.**.project_out.weight"),
    ("quantizer.**.initialized", "quantizer.**.started"),
    ("quantizer.**.cluster_usage", "quantizer.**.counts"),
    ("quantizer.**.embed_sum", "quantizer.**.sums"),
    ("quantizer.**.embed", "quantizer.**.codebook"),
    # kyutai
    ("**.self_attn.in_proj_weight", "**.attention.qkv.weight"),
    ("**.self_attn.in_projs.0.weight", "**.attention.qkv.weight"),
    ("**.self_attn.out_proj.weight", "**.attention.out.weight"),
    ("**.self_attn.out_projs.0.weight", "**.attention.out.weight"),
    ("**.linear1.weight", "**.mlp.0.weight"),
    ("**.linear2.weight", "**.mlp.2.weight"),
    ("**.layer_scale_1.scale", "**.scale1"),
    ("**.layer_scale_2.scale", "**.scale2"),
    ("quantizer.**._initialized", "quantizer.**.started"),
    ("quantizer.**.embedding_sum", "quantizer.**.sums"),
)
SUMS = (".embed_sum", ".embedding_sum")

# Of each layout one name may be missing, so that the strict load can say which.
SIGNATURES = tuple(
    frozenset(names)
    for names in (
        (
            "downsample.conv.weight",
            "upsample.conv.weight",
            "quantizer.semantic_residual_vector_quantizer.input_proj.weight",
            "quantizer.acoustic_residual_vector_quantizer.input_proj.weight",
        ),
        (
            "encoder.downsample.conv.weight",
            "decoder.upsample.conv.weight",
            "quantizer.semantic_residual_vector_quantizer.input_proj.weight",
            "quantizer.acoustic_residual_vector_quantizer.input_proj.weight",
        ),
        (
            "downsample.conv.conv.conv.weight",
            "upsample.convtr.convtr.convtr.weight",
            "quantizer.rvq_first.input_proj.weight",
            "quantizer.rvq_rest.input_proj.weight",
        ),
    )
)

# The one graph that was released, out of many options; what is absent is so.
KYUTAI_GRAPH = {
    "seanet": {
        "causal": True,
        "activation": "ELU",
        "norm": "none",
        "disable_norm_outer_blocks": 0,
        "trim_right_ratio": 1.0,
    },
    "transformer": {
        "causal": True,
        "conv_layout": True,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "kv_repeat": 1,
    },
}
TRANSFORMERS_GRAPH = {
    "use_causal_conv": True,
    "trim_right_ratio": 1.0,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "attention_bias": False,
}


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a Mimi in one of the three layouts."""
    return any(len(signature.difference(tensor_names)) <= 1 for signature in SIGNATURES)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of kyutai's nested one or of transformers' flat one.

    Raises ValueError for a graph other than the released one, or a nested one that lacks an entry.
    """
    if "seanet" not in config:
        return _of_transformers(config)
    try:
        return _of_kyutai(config)
    except KeyError as missing:
        raise ValueError(f"the configuration of Mimi lacks {missing}") from missing


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor, also of those that `fold` joins; one nobody knows keeps its name."""
    return {name: rename(rename(name, PLACES), PARTS) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in the file on the Hub, once folded."""
    return rename(rename(name, reversed_renames(PARTS)), reversed_renames(PLACES))


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with each codebook beside its sums and counts, 1 x 1 convolutions as matrices, and queries,
    keys and values in one, in kyutai's order. Parts that are missing or do not fit stay as they are."""
    folded = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith(SUMS):
            _add_codebook(folded, name)
        elif name.endswith("put_proj.weight") and tensor.ndim == 3 and tensor.shape[2] == 1:
            folded[name] = tensor[..., 0]
        elif name.endswith(".self_attn.q_proj.weight"):
            _join_projections(folded, name.removesuffix("q_proj.weight"))
    return folded


def _add_codebook(folded: dict[str, Tensor], name: str) -> None:
    """The codes are kept as sums and counts of what they stand for."""
    codebook, _, _ = name.rpartition(".")
    sums, usage = folded[name], folded.get(f"{codebook}.cluster_usage")
    if usage is not None and sums.ndim == 2 and usage.shape == sums.shape[:1]:
        folded[f"{codebook}.embed"] = sums.float() / usage.float().clamp(min=LEAST_USAGE)[:, None]


def _join_projections(folded: dict[str, Tensor], attention: str) -> None:
    names = [f"{attention}{part}_proj.weight" for part in ("q", "k", "v")]
    parts = [folded[name] for name in names if name in folded]
    if len(parts) < 3 or parts[0].ndim != 2 or len({part.shape for part in parts}) > 1:
        return
    if len(parts[0]) % HEAD_FEATURES:
        return
    query, key, value = parts
    for name in names:
        del folded[name]
    folded[f"{attention}qkv_proj.weight"] = torch.cat([_paired(query), _paired(key), value])


def _paired(weight: Tensor) -> Tensor:
    """Rows from halves to pairs within each head, so that neighbours turn together."""
    return weight.unflatten(0, (-1, 2, HEAD_FEATURES // 2)).transpose(1, 2).flatten(0, 2)


def _of_kyutai(config: Mapping[str, Any]) -> dict[str, Any]:
    seanet, transformer, quantizer = config["seanet"], config["transformer"], config["quantizer"]
    width, rate_hz = seanet["dimension"], config["sample_rate"]
    for part, graph in KYUTAI_GRAPH.items():
        _check_graph(config[part], graph)
    _check_graph(transformer, {"d_model": width, "input_dimension": width, "output_dimensions": [width]})
    _check_graph(quantizer, {"input_dimension": width, "output_dimension": width})
    return {
        "num_codes": quantizer["bins"],
        "codebooks": quantizer["n_q"],
        "semantic_codebooks": quantizer.get("n_q_semantic", 1),
        "code_dim": quantizer["dimension"],
        "stride": round(rate_hz / math.prod(seanet["ratios"]) / config["frame_rate"]),
        "seanet": _seanet(
            channels=seanet["channels"],
            filters=seanet["n_filters"],
            ratios=list(seanet["ratios"]),
            kernel=seanet["kernel_size"],
            last_kernel=seanet["last_kernel_size"],
            residual_kernel=seanet["residual_kernel_size"],
            residual_layers=seanet["n_residual_layers"],
            dilation_base=seanet["dilation_base"],
            compress=seanet["compress"],
            true_skip=seanet["true_skip"],
            pad_mode=seanet["pad_mode"],
        ),
        "transformer": {
            "width": width,
            "layers": transformer["num_layers"],
            "heads": transformer["num_heads"],
            "hidden": transformer["dim_feedforward"],
            "window": transformer["context"],
            "period": float(transformer["max_period"]),
            "layer_scale": transformer["layer_scale"],
        },
        "preprocess": _preprocess(rate_hz, seanet["channels"]),
    }


def _of_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Absent entries have the defaults of MimiConfig."""
    told = {name: value for name, value in config.items() if value is not None}
    width, heads = told.get("hidden_size", 512), told.get("num_attention_heads", 8)
    _check_graph(told, TRANSFORMERS_GRAPH)
    _check_graph(told, {"upsample_groups": width, "num_key_value_heads": heads, "head_dim": HEAD_FEATURES})
    if width != heads * HEAD_FEATURES:
        raise ValueError(f"{heads} heads for {width} features: expected heads of {HEAD_FEATURES} features")
    code_dim = told.get("vector_quantization_hidden_dimension", 256)
    _check_graph(told, {"codebook_dim": code_dim})
    rate_hz, channels = told.get("sampling_rate", 24_000), told.get("audio_channels", 1)
    ratios = list(told.get("upsampling_ratios", [8, 6, 5, 4]))
    latents_hz = rate_hz / math.prod(ratios)
    rope = told.get("rope_parameters", told)
    return {
        "num_codes": told.get("codebook_size", 2048),
        "codebooks": told.get("num_quantizers", 32),
        "semantic_codebooks": told.get("num_semantic_quantizers", 1),
        "code_dim": code_dim,
        "stride": round(latents_hz / told.get("frame_rate", latents_hz / 2)),
        "seanet": _seanet(
            channels=channels,
            filters=told.get("num_filters", 64),
            ratios=ratios,
            kernel=told.get("kernel_size", 7),
            last_kernel=told.get("last_kernel_size", 3),
            residual_kernel=told.get("residual_kernel_size", 3),
            residual_layers=told.get("num_residual_layers", 1),
            dilation_base=told.get("dilation_growth_rate", 2),
            compress=told.get("compress", 2),
            true_skip=not told.get("use_conv_shortcut", False),
            pad_mode=told.get("pad_mode", "constant"),
        ),
        "transformer": {
            "width": width,
            "layers": told.get("num_hidden_layers", 8),
            "heads": heads,
            "hidden": told.get("intermediate_size", 2048),
            "window": told.get("sliding_window", 250),
            "period": float(rope.get("rope_theta", 10_000)),
            "layer_scale": told.get("layer_scale_initial_scale", 0.01),
        },
        "preprocess": _preprocess(rate_hz, channels),
    }


def _seanet(**sizes: Any) -> dict[str, Any]:
    return sizes | {"causal": True, "lstm_layers": 0}


def _preprocess(sample_rate_hz: int, channels: int) -> dict[str, Any]:
    """kyutai's scripts hear the first channel of a file."""
    return {"sample_rate_hz": sample_rate_hz, "channels": channels, "mix": "first"}


def _check_graph(config: Mapping[str, Any], graph: Mapping[str, Any]) -> None:
    for name, expected in graph.items():
        if config.get(name, expected) != expected:
            raise ValueError(f"{name}={config[name]!r}: expected {expected!r}, as in everything released")
