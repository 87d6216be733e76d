"""A CLIP text tower of random weights in a folder, so that no test of captions reaches the network."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tokenzoo.image.captions import TextTowerConfig

WIDTH, HIDDEN, LAYERS, LENGTH = 16, 32, 2, 10
LETTERS = [chr(code) for code in range(33, 127)]
WORDS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]


@cache
def tiny_clip() -> TextTowerConfig:
    """A tower that spells: every letter is a token of its own. The folder lives as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-clip-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "max_position_embeddings": LENGTH,
        "bos_token_id": len(WORDS) - 2,
        "eos_token_id": len(WORDS) - 1,
    }
    (folder / "config.json").write_text(json.dumps({"text_config": text}))
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    save_file(clip_tensors(), folder / "model.safetensors")
    return TextTowerConfig(
        repo=str(folder), revision=None, weights="model.safetensors", length=LENGTH, dim=WIDTH
    )


def clip_tensors() -> dict[str, Tensor]:
    """As OpenAI's checkpoints name them, with a table that is no weight and a tensor of the vision tower."""
    chance = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance) * shape[-1] ** -0.5

    def linear(name: str, out: int, given: int) -> dict[str, Tensor]:
        return {f"{name}.weight": drawn(out, given), f"{name}.bias": drawn(out)}

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + drawn(WIDTH), f"{name}.bias": drawn(WIDTH)}

    tensors = {
        "text_model.embeddings.token_embedding.weight": drawn(len(WORDS), WIDTH),
        "text_model.embeddings.position_embedding.weight": drawn(LENGTH, WIDTH),
        "text_model.embeddings.position_ids": torch.arange(LENGTH)[None],
        "vision_model.embeddings.class_embedding": drawn(WIDTH),
        **norm("text_model.final_layer_norm"),
    }
    for layer in range(LAYERS):
        at = f"text_model.encoder.layers.{layer}"
        tensors |= norm(f"{at}.layer_norm1") | norm(f"{at}.layer_norm2")
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors |= linear(f"{at}.self_attn.{part}", WIDTH, WIDTH)
        tensors |= linear(f"{at}.mlp.fc1", HIDDEN, WIDTH) | linear(f"{at}.mlp.fc2", WIDTH, HIDDEN)
    return tensors
