"""The two networks of TiTok and One-D-Piece: plain tensors in, plain tensors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from ..zoo.transformer import NORM_EPS, Transformer
from .maskgit import PixelDecoder, PixelDecoderConfig

if TYPE_CHECKING:
    from .titok import TiTokConfig


class TiTokEncoder(nn.Module):
    """Images to latents: (B, 3, H, W) float in [0, 1] -> (B, N, D) float, D as the quantizer wants it."""

    def __init__(self, config: TiTokConfig, dim: int) -> None:
        super().__init__()
        width = config.encoder.width
        self.legacy = config.legacy
        self.image_size = config.image_size
        self.patch_embed = nn.Conv2d(3, width, config.encoder_patch_size, stride=config.encoder_patch_size)
        self.class_token = free_vectors(1, width)
        self.latent_tokens = free_vectors(config.num_tokens, width)
        self.patch_positions = free_vectors((config.image_size // config.encoder_patch_size) ** 2 + 1, width)
        self.latent_positions = free_vectors(config.num_tokens, width)
        self.transformer = Transformer(config.encoder)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(width, dim, 1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self._read(images)

    def _read(self, images: Tensor, *beside: Tensor) -> Tensor:
        """What becomes of the queries beside the patches, and beside further rows (B, M, width)."""
        size = self.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(
                f"images have shape {tuple(images.shape)}: expected (B, 3, {size}, {size}); "
                "pass each picture through tokenizer.preprocess"
            )
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        batch = patches.shape[0]
        patches = torch.cat([self.class_token.expand(batch, 1, -1), patches], dim=1) + self.patch_positions
        latents = (self.latent_tokens + self.latent_positions).expand(batch, -1, -1)
        x = self.transformer(torch.cat([patches, latents, *beside], dim=1))
        latents = self.norm_out(x[:, patches.shape[1] :][:, : latents.shape[1]])
        if self.legacy:
            # Reshaped where a transpose was meant: feature d of token n is flat element d N + n, so every
            # token mixes all queries. Trained weights rely on it.
            latents = latents.reshape(batch, latents.shape[2], latents.shape[1])
        else:
            latents = latents.transpose(1, 2)
        return self.conv_out(latents.unsqueeze(-1)).squeeze(-1).transpose(1, 2)


class TiTokDecoder(nn.Module):
    """Quantized latents to pixels, or to logits over VQGAN codes where the model ends there.

    latents  (B, N, D) float; N may be any prefix, the row simply gets shorter
    lengths  (B,) int64, tokens of each item, when they differ: the padding is read by nobody, nor computed
    returns  (B, 3, H, W) float, not clamped; stage-1 models (B, pixel_codes, h, w) logits
    """

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__()
        width = config.decoder.width
        self.grid = config.image_size // config.decoder_patch_size
        self.latent_embed = nn.Linear(config.latent_dim, width)
        self.class_token = free_vectors(1, width)
        self.mask_token = free_vectors(1, 1, width)
        self.patch_positions = free_vectors(self.grid**2 + 1, width)
        self.latent_positions = free_vectors(config.num_tokens, width)
        self.transformer = Transformer(config.decoder)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = (
            CodeHead(width, config.pixel_codes)
            if config.legacy
            else PatchHead(width, config.decoder_patch_size)
        )
        self.apply(initialise)
        self.pixels = None
        if config.pixel_decoder is not None:
            self.pixels = SoftCodeDecoder(config.pixel_codes, config.pixel_decoder)

    def forward(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._paint(self._embed(latents), lengths)

    def _embed(self, latents: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, width)."""
        latents = latents.to(self.latent_embed.weight.dtype)
        return self.latent_embed(latents) + self.latent_positions[: latents.shape[1]]

    def _paint(self, row: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What becomes of the mask tokens beside this row (B, M, width)."""
        batch, count, _ = row.shape
        masks = self.mask_token[0].expand(self.grid**2, -1)
        patches = torch.cat([self.class_token, masks]) + self.patch_positions
        x = torch.cat([patches.expand(batch, -1, -1).to(row.dtype), row], dim=1)
        x = self.transformer(x, None if lengths is None else _keep(lengths, len(patches), count))
        x = self.norm_out(x[:, 1 : len(patches)])
        x = self.head(rearrange(x, "b (h w) d -> b d h w", h=self.grid))
        return x if self.pixels is None else self.pixels(x)


class CodeHead(nn.Module):
    """Logits over the codes of a VQGAN: (B, width, h, w) -> (B, codes, h, w)."""

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(width, 2 * width, 1)
        self.logits = nn.Conv2d(2 * width, codes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(torch.tanh(self.hidden(x)))


class PatchHead(nn.Module):
    """Pixels of each patch, then a 3x3 convolution over the image: (B, width, h, w) -> (B, 3, H, W)."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patches = nn.Conv2d(width, 3 * patch_size**2, 1)
        self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # Channels vary fastest within a patch, unlike in nn.PixelShuffle.
        pixels = rearrange(
            self.patches(x), "b (p q c) h w -> b c (h p) (w q)", p=self.patch_size, q=self.patch_size
        )
        return self.conv_out(pixels)


class SoftCodeDecoder(nn.Module):
    """The probability-weighted mean of the VQGAN codes, decoded: (B, codes, h, w) logits -> (B, 3, H, W)."""

    def __init__(self, codes: int, config: PixelDecoderConfig, *, middle: int | None = None) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.empty(codes, config.latent_dim).uniform_(-1 / codes, 1 / codes))
        self.decoder = PixelDecoder(config, middle=middle)

    def forward(self, logits: Tensor) -> Tensor:
        return self.decoder(torch.einsum("bkhw,kd->bdhw", logits.softmax(dim=1), self.codebook))


def _keep(lengths: Tensor, patches: int, count: int) -> Tensor:
    """Which of [class, patches, latents] are there: lengths (B,) -> (B, patches + count) bool."""
    real = torch.arange(count, device=lengths.device) < lengths[:, None]
    return torch.cat([real.new_ones(real.shape[0], patches), real], dim=1)


def free_vectors(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * shape[-1] ** -0.5)


def initialise(module: nn.Module) -> None:
    """As the official code starts; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
