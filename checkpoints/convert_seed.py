"""SEED-2's quantizer: configuration and tensor names in ours.

Knows names only. Source of the layout: the module Blip2QformerQuantizer of AILab-CVC/SEED 93b3cf4,
models/seed_qformer. The published file was not at hand; the official loader takes it with strict=False.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "seed"

_LAYER, _OURS = "Qformer.bert.encoder.layer.*", "encoder.qformer.layers.*"

# Official name | ours.
RENAMES: Renames = (
    ("visual_encoder.cls_token", "encoder.vision.class_token"),
    ("visual_encoder.pos_embed", "encoder.vision.positions"),
    ("visual_encoder.patch_embed.proj.*", "encoder.vision.patch_embed.*"),
    ("ln_vision.*", "encoder.vision.norm_out.*"),
    ("visual_encoder.blocks.*.attn.q_bias", "encoder.vision.blocks.*.attention.query_bias"),
    ("visual_encoder.blocks.*.attn.v_bias", "encoder.vision.blocks.*.attention.value_bias"),
    ("visual_encoder.blocks.*.attn.qkv.*", "encoder.vision.blocks.*.attention.qkv.*"),
    ("visual_encoder.blocks.*.attn.proj.*", "encoder.vision.blocks.*.attention.out.*"),
    ("visual_encoder.blocks.*.mlp.fc1.*", "encoder.vision.blocks.*.mlp.0.*"),
    ("visual_encoder.blocks.*.mlp.fc2.*", "encoder.vision.blocks.*.mlp.2.*"),
    ("visual_encoder.blocks.**", "encoder.vision.blocks.**"),
    ("query_tokens", "encoder.qformer.queries"),
    ("Qformer.bert.embeddings.LayerNorm.*", "encoder.qformer.norm.*"),
    (f"{_LAYER}.attention.output.dense.*", f"{_OURS}.self_attention.out.*"),
    (f"{_LAYER}.attention.output.LayerNorm.*", f"{_OURS}.self_attention.norm.*"),
    (f"{_LAYER}.attention.self.*.*", f"{_OURS}.self_attention.*.*"),
    (f"{_LAYER}.crossattention.output.dense.*", f"{_OURS}.cross_attention.out.*"),
    (f"{_LAYER}.crossattention.output.LayerNorm.*", f"{_OURS}.cross_attention.norm.*"),
    (f"{_LAYER}.crossattention.self.*.*", f"{_OURS}.cross_attention.*.*"),
    (f"{_LAYER}.intermediate_query.dense.*", f"{_OURS}.hidden.*"),
    (f"{_LAYER}.output_query.dense.*", f"{_OURS}.out.*"),
    (f"{_LAYER}.output_query.LayerNorm.*", f"{_OURS}.norm.*"),
    ("encode_task_layer.*.*", "encoder.head.*.*"),
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("decode_task_layer.*.*", "decoder.widen.*.*"),
    ("pos_embed_image", "decoder.positions"),
    ("blocks_image.*.attn.qkv.*", "decoder.blocks.*.attention.qkv.*"),
    ("blocks_image.*.attn.proj.*", "decoder.blocks.*.attention.out.*"),
    ("blocks_image.*.mlp.fc1.*", "decoder.blocks.*.mlp.0.*"),
    ("blocks_image.*.mlp.fc2.*", "decoder.blocks.*.mlp.2.*"),
    ("blocks_image.**", "decoder.blocks.**"),
    ("image_down.*.*", "decoder.narrow.*.*"),
    ("distill_image_proj.*", "decoder.project.*"),
)
# The decoder of training, which no picture is made by, and the parts of BERT that read words.
DROPPED: Renames = tuple(
    (pattern, "")
    for pattern in (
        "pos_embed",
        "blocks.**",
        "Qformer.cls.**",
        "Qformer.bert.embeddings.position_ids",
        "Qformer.bert.embeddings.word_embeddings.*",
        "Qformer.bert.embeddings.position_embeddings.*",
        f"{_LAYER}.intermediate.**",
        f"{_LAYER}.output.**",
    )
)
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {"query_tokens", "encode_task_layer.0.weight", "pos_embed_image", "distill_image_proj.weight"}
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are SEED-2's quantizer; the official file has no configuration."""
    return len(SIGNATURE.difference(tensor_names)) <= 1


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of Blip2QformerQuantizer.

    config  absent entries have the official defaults. What the official code takes from EVA-CLIP and BERT, or
            hard-codes, may be there too: `vision` and `qformer` in our words, and the widths of `image_down`
    """
    image_size = config.get("img_size", 224)
    qformer = {"look_every": config.get("cross_attention_freq", 2)} | dict(config.get("qformer", {}))
    return {
        "num_tokens": config.get("num_query_token", 32),
        "num_codes": config.get("n_embed", 8192),
        "latent_dim": config.get("codebook_embed_dim", 32),
        "vision": dict(config.get("vision", {})),
        "qformer": qformer,
        "decoder_layers": config.get("decode_depth", 4),
        "narrowing": config.get("image_down", [256, 128, 32]),
        "embedding_dim": config.get("image_features_dim", 1024),
        "image_size": image_size,
        "preprocess": {"size": image_size, "resize": "squash", "interpolation": "bicubic"},
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor that makes tokens or embeddings; one nobody knows keeps its name."""
    renamed = {name: rename(name, (*RENAMES, *DROPPED)) for name in names}
    return {official: ours for official, ours in renamed.items() if ours}


def official_name(name: str) -> str:
    """The name that one of our tensors has in the official file, for messages about it."""
    return rename(name, reversed_renames(RENAMES))
