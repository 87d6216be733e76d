"""X-Codec 2 in three layouts: the released file, the package xcodec2, and transformers.

The package spells the weight norm and SnakeBeta's second parameter in its own way. Sources: xcodec2 0.1.5,
modeling_xcodec2.py; transformers 5.24, models/xcodec2; issue 24 of zhenye234/X-Codec-2.0 for the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .alias_free_names import FILTERS, network_names
from .renames import Renames, rename, reversed_renames
from .weight_norm import fold_weight_norm, folded_name

TOKENIZER_TYPE = "xcodec2"

# The official code reads hidden_states[16] of w2v-BERT, which has 24 layers.
SEMANTIC_LAYERS = 16
STRIDES = [2, 2, 4, 4, 5]


def _w2v_bert(official: str) -> Renames:
    """w2v-BERT, as transformers names it."""
    layer, ours = f"{official}.encoder.layers.*", "encoder.semantic.layers.*"
    return (
        (f"{official}.feature_projection.layer_norm.*", "encoder.semantic.norm.*"),
        (f"{official}.feature_projection.projection.*", "encoder.semantic.project.*"),
        *((f"{layer}.ffn{half}_layer_norm.*", f"{ours}.mlp{half}.0.*") for half in (1, 2)),
        *((f"{layer}.ffn{half}.intermediate_dense.*", f"{ours}.mlp{half}.1.*") for half in (1, 2)),
        *((f"{layer}.ffn{half}.output_dense.*", f"{ours}.mlp{half}.3.*") for half in (1, 2)),
        (f"{layer}.self_attn_layer_norm.*", f"{ours}.attention_norm.*"),
        (f"{layer}.self_attn.linear_q.*", f"{ours}.attention.query.*"),
        (f"{layer}.self_attn.linear_k.*", f"{ours}.attention.key.*"),
        (f"{layer}.self_attn.linear_v.*", f"{ours}.attention.value.*"),
        (f"{layer}.self_attn.linear_out.*", f"{ours}.attention.out.*"),
        (f"{layer}.self_attn.distance_embedding.*", f"{ours}.attention.distances.*"),
        (f"{layer}.conv_module.layer_norm.*", f"{ours}.convolution.norm.*"),
        (f"{layer}.conv_module.pointwise_conv1.*", f"{ours}.convolution.gate.*"),
        (f"{layer}.conv_module.depthwise_conv.*", f"{ours}.convolution.depthwise.*"),
        (f"{layer}.conv_module.depthwise_layer_norm.*", f"{ours}.convolution.depthwise_norm.*"),
        (f"{layer}.conv_module.pointwise_conv2.*", f"{ours}.convolution.out.*"),
        (f"{layer}.final_layer_norm.*", f"{ours}.norm.*"),
    )


_LAYER, _BACKBONE = "generator.backbone.transformers.*", "generator.backbone"
# Name in the released file, weight norm folded | ours.
RENAMES: Renames = (
    *_w2v_bert("semantic_model"),
    ("SemanticEncoder_module.initial_conv.*", "encoder.adapter.conv_in.*"),
    ("SemanticEncoder_module.residual_blocks.1.*", "encoder.adapter.conv1.*"),
    ("SemanticEncoder_module.residual_blocks.3.*", "encoder.adapter.conv2.*"),
    ("SemanticEncoder_module.final_conv.*", "encoder.adapter.conv_out.*"),
    ("CodecEnc.conv_final_block.0.**", f"encoder.acoustic.{len(STRIDES) + 1}.**"),
    ("CodecEnc.conv_final_block.1.**", f"encoder.acoustic.{len(STRIDES) + 2}.**"),
    *network_names("CodecEnc.conv_blocks", "encoder.acoustic"),
    ("fc_prior.*", "encoder.mix.*"),
    ("generator.quantizer.project_in.*", "quantizer.project_in.*"),
    ("generator.quantizer.project_out.*", "quantizer.project_out.*"),
    ("fc_post_a.*", "decoder.project.*"),
    (f"{_BACKBONE}.embed.*", "decoder.conv_in.*"),
    (f"{_BACKBONE}.prior_net.**", "decoder.before.**"),
    (f"{_LAYER}.att_norm.*", "decoder.layers.*.attention_norm.*"),
    (f"{_LAYER}.att.c_attn.*", "decoder.layers.*.qkv.*"),
    (f"{_LAYER}.att.c_proj.*", "decoder.layers.*.out.*"),
    (f"{_LAYER}.ffn_norm.*", "decoder.layers.*.mlp.0.*"),
    (f"{_LAYER}.mlp.fc1.*", "decoder.layers.*.mlp.1.*"),
    (f"{_LAYER}.mlp.fc2.*", "decoder.layers.*.mlp.3.*"),
    (f"{_BACKBONE}.post_net.**", "decoder.after.**"),
    (f"{_BACKBONE}.final_layer_norm.*", "decoder.norm.*"),
    ("generator.head.**", "decoder.head.**"),
)


def _acoustic_of_transformers() -> Renames:
    """Blocks and units have other numbers there, and their layers names."""
    official, ours = "acoustic_encoder.block", "encoder.acoustic"
    unit_layers = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
    block_layers = {"snake1": 3, "conv1": 4}
    blocks = range(len(STRIDES))
    return (
        *(
            (f"{official}.{block}.res_unit{unit}.{name}.**", f"{ours}.{block + 1}.{unit - 1}.{place}.**")
            for block in blocks
            for unit in (1, 2, 3)
            for name, place in unit_layers.items()
        ),
        *(
            (f"{official}.{block}.{name}.**", f"{ours}.{block + 1}.{place}.**")
            for block in blocks
            for name, place in block_layers.items()
        ),
        ("acoustic_encoder.conv1.*", f"{ours}.0.*"),
        ("acoustic_encoder.snake1.**", f"{ours}.{len(blocks) + 1}.**"),
        ("acoustic_encoder.conv2.*", f"{ours}.{len(blocks) + 2}.*"),
    )


_HF_LAYER = "acoustic_decoder.layers.*"
# Queries, keys and values, which `fold` joins.
_PROJECTIONS = tuple(f"self_attn.{name}_proj.weight" for name in ("q", "k", "v"))
# Name in transformers | ours.
TRANSFORMERS_RENAMES: Renames = (
    *_w2v_bert("semantic_encoder"),
    ("semantic_adapter.conv1.*", "encoder.adapter.conv_in.*"),
    ("semantic_adapter.conv2.*", "encoder.adapter.conv1.*"),
    ("semantic_adapter.conv3.*", "encoder.adapter.conv2.*"),
    ("semantic_adapter.conv4.*", "encoder.adapter.conv_out.*"),
    *_acoustic_of_transformers(),
    ("fc_encoder.*", "encoder.mix.*"),
    ("acoustic_decoder.fc.*", "decoder.project.*"),
    ("acoustic_decoder.embed.*", "decoder.conv_in.*"),
    ("acoustic_decoder.prior_net.**", "decoder.before.**"),
    (f"{_HF_LAYER}.input_layernorm.*", "decoder.layers.*.attention_norm.*"),
    *((f"{_HF_LAYER}.{name}", "decoder.layers.*.qkv.weight") for name in _PROJECTIONS),
    (f"{_HF_LAYER}.self_attn.o_proj.*", "decoder.layers.*.out.*"),
    (f"{_HF_LAYER}.post_attention_layernorm.*", "decoder.layers.*.mlp.0.*"),
    (f"{_HF_LAYER}.mlp.fc1.*", "decoder.layers.*.mlp.1.*"),
    (f"{_HF_LAYER}.mlp.fc2.*", "decoder.layers.*.mlp.3.*"),
    ("acoustic_decoder.post_net.**", "decoder.after.**"),
    ("acoustic_decoder.norm.*", "decoder.norm.*"),
    ("acoustic_decoder.head.linear.*", "decoder.head.out.*"),
    ("acoustic_decoder.head.window", "decoder.head.istft.window"),
)
# A statistic of w2v-BERT's own training, and what training checkpoints of X-Codec 2 hold besides.
DROPPED_PREFIXES = (
    "semantic_model.masked_spec_embed",
    "semantic_encoder.masked_spec_embed",
    "discriminator.",
    "spec_discriminator.",
    "SemanticDecoder_module.",
    "fc_post_s.",
)
_SEMANTIC_LAYER = re.compile(r"semantic_model\.encoder\.layers\.(\d+)\.")

# Of each layout one name may be missing, so that the strict load can say which.
SIGNATURES = (
    frozenset(
        {"CodecEnc.conv_blocks.0.bias", "fc_prior.weight", "fc_post_a.weight", "generator.head.out.bias"}
    ),
    frozenset(
        {
            "acoustic_encoder.conv1.bias",
            "fc_encoder.weight",
            "acoustic_decoder.fc.weight",
            "acoustic_decoder.head.linear.bias",
        }
    ),
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are an X-Codec 2 in one of the layouts."""
    return any(len(signature.difference(tensor_names)) <= 1 for signature in SIGNATURES)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the published config.json or of transformers' Xcodec2Config.

    The published one names no sizes. What the package hard-codes may be there too, as in the fixtures:
    `semantic_model`, `codec_encoder` and `codec_decoder`; absent entries have its values.

    Raises ValueError for a graph other than the released one.
    """
    if config.get("model_type") == "xcodec2":
        return _of_transformers(config)
    encoder, decoder = dict(config.get("codec_encoder", {})), dict(config.get("codec_decoder", {}))
    width = decoder.get("hidden_dim", 1024)
    return {
        "acoustic_channels": encoder.get("ngf", 48),
        "acoustic_strides": encoder.get("up_ratios", STRIDES),
        "acoustic_features": encoder.get("hidden_dim", 1024),
        "semantic": _semantic(config.get("semantic_model", {})),
        "decoder": {
            "width": width,
            "layers": decoder.get("depth", 12),
            "heads": decoder.get("heads", 16),
            "hidden": 4 * width,
        },
    }


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the weight norm folded; of transformers' layout with queries, keys and values in one,
    and the window, which is not stored there. Parts that are missing or do not fit stay as they are."""
    folded = fold_weight_norm(tensors)
    for name in [name for name in folded if name.endswith(_PROJECTIONS[0])]:
        layer = name.removesuffix(_PROJECTIONS[0])
        names = [f"{layer}{part}" for part in _PROJECTIONS]
        parts = [folded[part] for part in names if part in folded]
        if len(parts) == 3 and parts[0].ndim == 2 and len({part.shape for part in parts}) == 1:
            folded |= {name: torch.cat(parts)}
            del folded[names[1]], folded[names[2]]
    head = folded.get("acoustic_decoder.head.linear.bias")
    if head is not None:
        folded["acoustic_decoder.head.window"] = torch.hann_window(head.shape[-1] - 2)
    return folded


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor, folded or not; one nobody knows keeps its name.

    Without the filters, which are constants, and the layers of w2v-BERT that nothing reads.
    """
    return {name: _our_name(name) for name in names if not _is_dropped(name)}


def official_name(name: str) -> str:
    """The name that one of our tensors has in the released file, weight norm folded, for messages."""
    return rename(name, reversed_renames(RENAMES))


@lru_cache(maxsize=4096)
def _our_name(name: str) -> str:
    plain = re.sub(r"\.act\.bias$", ".act.beta", folded_name(name))
    return rename(plain, (*RENAMES, *TRANSFORMERS_RENAMES))


def _is_dropped(name: str) -> bool:
    layer = _SEMANTIC_LAYER.match(name)
    unread = layer is not None and int(layer[1]) >= SEMANTIC_LAYERS
    return unread or name.endswith(FILTERS) or name.startswith(DROPPED_PREFIXES)


def _of_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Absent entries have the defaults of Xcodec2Config."""
    width, heads = config.get("hidden_size", 1024), config.get("num_attention_heads", 16)
    expected = {
        "head_dim": width // heads,
        "num_key_value_heads": heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "sampling_rate": 16_000,
    }
    for name, value in expected.items():
        if config.get(name, value) not in (value, None):
            raise ValueError(f"{name}={config[name]!r}: expected {value!r}, as in the released model")
    return {
        "acoustic_channels": config.get("encoder_hidden_size", 48),
        "acoustic_strides": config.get("downsampling_ratios", STRIDES),
        "acoustic_features": width,
        "semantic": _semantic(config.get("semantic_model_config") or {}, read_all=True),
        "levels": config.get("quantization_levels", [4] * 8),
        "decoder": {
            "width": width,
            "layers": config.get("num_hidden_layers", 12),
            "heads": heads,
            "hidden": config.get("intermediate_size", 4096),
        },
    }


def _semantic(config: Mapping[str, Any], *, read_all: bool = False) -> dict[str, Any]:
    """Sizes of w2v-BERT, of a Wav2Vec2BertConfig; transformers keeps no more layers than are read."""
    expected = {
        "position_embeddings_type": "relative_key",
        "feature_projection_input_dim": 160,
        "add_adapter": False,
        "hidden_act": "swish",
        "layer_norm_eps": 1e-5,
    }
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"w2v-BERT with {name}={config[name]!r}: expected {value!r}")
    layers = config.get("num_hidden_layers", SEMANTIC_LAYERS)
    return {
        "width": config.get("hidden_size", 1024),
        "layers": layers if read_all else min(layers, SEMANTIC_LAYERS),
        "heads": config.get("num_attention_heads", 16),
        "hidden": config.get("intermediate_size", 4096),
        "kernel": config.get("conv_depthwise_kernel_size", 31),
        "left": config.get("left_max_position_embeddings", 64),
        "right": config.get("right_max_position_embeddings", 8),
    }
