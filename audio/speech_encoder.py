"""HuBERT and WavLM as encoders: transformers' own models, cut off after the layer that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..zoo.config import check_range
from ..zoo.optional import require

CONV_KERNELS = (10, 3, 3, 3, 3, 2, 2)
CONV_STRIDES = (5, 2, 2, 2, 2, 2, 2)


@dataclass(frozen=True, kw_only=True)
class SpeechEncoderSize:
    """Sizes of a HuBERT or a WavLM; the defaults are those of HuBERT base.

    kind             which of the two: WavLM's attention adds gated relative positions
    width            of the transformer, heads of its attention, hidden width of its MLPs
    layer            how many of its layers are computed; the published model may have more
    conv_width       of every convolution, conv_kernels and conv_strides of each
    conv_bias        whether the convolutions have one
    conv_norm        "group": the first convolution is normalised over time; "layer": each over features
    norm_first       pre-norm blocks (the large models), otherwise post-norm ones
    position_kernel  of the convolution that tells positions, position_groups of its channels
    norm_eps         of the layer norms
    buckets          of WavLM's relative positions; distances from max_distance on share the last one
    """

    kind: Literal["hubert", "wavlm"] = "hubert"
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    layer: int = 6
    conv_width: int = 512
    conv_kernels: tuple[int, ...] = CONV_KERNELS
    conv_strides: tuple[int, ...] = CONV_STRIDES
    conv_bias: bool = False
    conv_norm: Literal["group", "layer"] = "group"
    norm_first: bool = False
    position_kernel: int = 128
    position_groups: int = 16
    norm_eps: float = 1e-5
    buckets: int = 320
    max_distance: int = 800

    def __post_init__(self) -> None:
        for name in ("width", "heads", "hidden", "conv_width", "position_kernel", "position_groups"):
            check_range(name, getattr(self, name), 1, 65536)
        check_range("layer", self.layer, 1, 256)
        check_range("norm_eps", self.norm_eps, 0, 1)
        check_range("buckets", self.buckets, 4, 65536)
        check_range("max_distance", self.max_distance, self.buckets // 4 + 1, 1 << 20)
        if not 1 <= len(self.conv_kernels) == len(self.conv_strides) <= 32:
            raise ValueError(
                f"{len(self.conv_kernels)} conv_kernels with {len(self.conv_strides)} conv_strides: expected "
                "as many, from 1 to 32"
            )
        for size in (*self.conv_kernels, *self.conv_strides):
            check_range("conv_kernels and conv_strides", size, 1, 1024)
        if self.width % self.heads or self.width % self.position_groups:
            raise ValueError(
                f"width={self.width} with heads={self.heads} and position_groups={self.position_groups}: "
                "expected a multiple of both"
            )

    @property
    def hop_samples(self) -> int:
        """Samples from one vector to the next."""
        return prod(self.conv_strides)

    @property
    def reach_samples(self) -> int:
        """Samples that one vector is made of before attention: 400, the least that the model takes."""
        reach = 1
        for kernel, stride in zip(reversed(self.conv_kernels), reversed(self.conv_strides), strict=True):
            reach = (reach - 1) * stride + kernel
        return reach

    def count(self, samples: int) -> int:
        """Vectors of so many samples: only whole windows count."""
        return max(0, (samples - self.reach_samples) // self.hop_samples + 1)


class SpeechEncoder(nn.Module):
    """Waveforms (B, S) to what layer `size.layer` gives: (B, N, width) float, hidden_states[layer].

    lengths  (B,) int64, samples of each item where zeros follow the shorter ones; the rest is then not
             attended to, but a "group" norm has counted it

    That is fairseq's `output_layer`, too: the norm after the last block of the large models is not taken.
    Dropout, layer drop and masking are off: the encoder stays as it was trained.
    """

    def __init__(self, size: SpeechEncoderSize) -> None:
        super().__init__()
        self.size = size
        self.model = _model(size)
        # Folded: a convolution is one multiplication less a call.
        parametrize.remove_parametrizations(self.model.encoder.pos_conv_embed.conv, "weight")
        if size.norm_first:
            self.model.encoder.layer_norm = nn.Identity()

    def forward(self, sound: Tensor, lengths: Tensor | None = None) -> Tensor:
        if not len(sound):  # which transformers cannot reshape
            return sound.new_zeros(0, self.size.count(sound.shape[1]), self.size.width)
        mask = None
        if lengths is not None:
            mask = torch.arange(sound.shape[1], device=sound.device) < lengths[:, None]
        return self.model(sound, attention_mask=mask).last_hidden_state


def _model(size: SpeechEncoderSize) -> Any:
    """transformers' model without weights of its own choosing."""
    transformers = require("transformers", "transformers")
    kind = "Hubert" if size.kind == "hubert" else "WavLM"
    told = (
        {}
        if size.kind == "hubert"
        else {
            "num_buckets": size.buckets,
            "max_bucket_distance": size.max_distance,
        }
    )
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=size.width,
        num_hidden_layers=size.layer,
        num_attention_heads=size.heads,
        intermediate_size=size.hidden,
        conv_dim=[size.conv_width] * len(size.conv_kernels),
        conv_kernel=list(size.conv_kernels),
        conv_stride=list(size.conv_strides),
        conv_bias=size.conv_bias,
        feat_extract_norm=size.conv_norm,
        do_stable_layer_norm=size.norm_first,
        num_conv_pos_embeddings=size.position_kernel,
        num_conv_pos_embedding_groups=size.position_groups,
        layer_norm_eps=size.norm_eps,
        apply_spec_augment=False,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        layerdrop=0.0,
        hidden_dropout=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        **told,
    )
    return getattr(transformers, f"{kind}Model")(config)
