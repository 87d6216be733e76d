"""The networks of SEED: a vision transformer, a causal Q-Former, and the way from codes to a CLIP embedding.

Source: AILab-CVC/SEED 93b3cf4, models/seed_qformer. Norms differ as theirs do: the blocks of EVA and timm
have an epsilon of 1e-6, BERT's 1e-12, the one after the vision transformer torch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..kernels.attention import attention
from .titok_parts import free_vectors

if TYPE_CHECKING:
    from .seed import QFormerSize, SeedConfig, VisionSize

VIT_EPS = 1e-6
BERT_EPS = 1e-12


class SeedEncoder(nn.Module):
    """Images to latents: (B, 3, S, S) float in [0, 1] -> (B, N, D) float; none saw a query after its own."""

    def __init__(self, config: SeedConfig) -> None:
        super().__init__()
        width = config.qformer.width
        self.mean, self.std = config.mean, config.std
        self.vision = EvaTransformer(config.vision, config.image_size)
        self.qformer = CausalQFormer(config.qformer, config.num_tokens, config.vision.width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.latent_dim))

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return self.head(self.qformer(self.vision((images - mean) / std)))


class SeedDecoder(nn.Module):
    """Quantized latents to the CLIP embedding of an image: (B, N, D) float -> (B, E) float."""

    def __init__(self, config: SeedConfig) -> None:
        super().__init__()
        width, dim = config.qformer.width, config.latent_dim
        self.widen = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, width))
        self.positions = nn.Parameter(torch.zeros(1, config.num_tokens, width))
        self.blocks = nn.Sequential(
            *(
                VitBlock(width, 4 * width, SelfAttention(width, config.qformer.heads))
                for _ in range(config.decoder_layers)
            )
        )
        first, second, last = config.narrowing
        self.narrow = nn.Sequential(
            nn.Linear(width, first, bias=False),
            nn.ReLU(),
            nn.Linear(first, second, bias=False),
            nn.ReLU(),
            nn.Linear(second, last, bias=False),
        )
        self.project = nn.Linear(config.num_tokens * last, config.embedding_dim)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.blocks(self.widen(latents) + self.positions)
        return self.project(self.narrow(x).flatten(1))


class EvaTransformer(nn.Module):
    """EVA-CLIP's vision transformer, as BLIP-2 has it: (B, 3, S, S) normalised float -> (B, 1 + P, W)."""

    def __init__(self, size: VisionSize, image_size: int) -> None:
        super().__init__()
        width, patches = size.width, (image_size // size.patch_size) ** 2
        self.patch_embed = nn.Conv2d(3, width, size.patch_size, stride=size.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = free_vectors(1, patches + 1, width)
        self.blocks = nn.Sequential(
            *(VitBlock(width, size.hidden, EvaAttention(width, size.heads)) for _ in range(size.layers))
        )
        self.norm_out = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).mT
        x = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.norm_out(self.blocks(x + self.positions))


class VitBlock(nn.Module):
    """Pre-norm block of a vision transformer: (B, N, width) -> the same."""

    def __init__(self, width: int, hidden: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=VIT_EPS)
        self.attention = mixer
        self.norm2 = nn.LayerNorm(width, eps=VIT_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SelfAttention(nn.Module):
    """Packed projections, all with a bias: (B, N, width) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self._projected(x).chunk(3, dim=-1)
        return self.out(_mixed(query, key, value, self.heads))

    def _projected(self, x: Tensor) -> Tensor:
        return self.qkv(x)


class EvaAttention(SelfAttention):
    """Queries and values have a bias, keys none: it would add the same to all scores of a query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.value_bias = nn.Parameter(torch.zeros(width))

    def _projected(self, x: Tensor) -> Tensor:
        none = torch.zeros_like(self.query_bias)
        return self.qkv(x) + torch.cat([self.query_bias, none, self.value_bias])


class CausalQFormer(nn.Module):
    """BLIP-2's Q-Former (Li et al. 2023, arXiv 2301.12597) with causal queries: (B, M, V) float -> (B, N, W).

    A BERT whose words are N learned queries. Some layers, from the first on, look at what was seen.
    """

    def __init__(self, size: QFormerSize, num_queries: int, seen_width: int) -> None:
        super().__init__()
        self.queries = free_vectors(1, num_queries, size.width)
        self.norm = nn.LayerNorm(size.width, eps=BERT_EPS)
        self.layers = nn.ModuleList(
            QFormerLayer(size, None if layer % size.look_every else seen_width)
            for layer in range(size.layers)
        )

    def forward(self, seen: Tensor) -> Tensor:
        x = self.norm(self.queries).expand(len(seen), -1, -1)
        for layer in self.layers:
            x = layer(x, seen)
        return x


class QFormerLayer(nn.Module):
    """Causal attention among queries (B, N, W), attention to what is seen (B, M, V), MLP; post-norm."""

    def __init__(self, size: QFormerSize, seen_width: int | None) -> None:
        super().__init__()
        self.self_attention = PostNormAttention(size.width, size.width, size.heads)
        self.cross_attention = None
        if seen_width is not None:
            self.cross_attention = PostNormAttention(size.width, seen_width, size.heads)
        self.hidden = nn.Linear(size.width, size.hidden)
        self.out = nn.Linear(size.hidden, size.width)
        self.norm = nn.LayerNorm(size.width, eps=BERT_EPS)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = self.self_attention(x, x, causal=True)
        if self.cross_attention is not None:
            x = self.cross_attention(x, seen)
        return self.norm(x + self.out(nn.functional.gelu(self.hidden(x))))


class PostNormAttention(nn.Module):
    """BERT's: LayerNorm(x + attention of x (B, N, W) to source (B, M, V))."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=BERT_EPS)

    def forward(self, x: Tensor, source: Tensor, *, causal: bool = False) -> Tensor:
        found = _mixed(self.query(x), self.key(source), self.value(source), self.heads, causal=causal)
        return self.norm(x + self.out(found))


def _mixed(query: Tensor, key: Tensor, value: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """Attention by heads: (B, N, W), (B, M, W), (B, M, W) -> (B, N, W)."""
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    return attention(query, key, value, causal=causal).transpose(1, 2).flatten(2)
