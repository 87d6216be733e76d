"""The networks of BigCodec, whose encoder X-Codec 2 has too: DAC's with alias-free activations and an LSTM.

Layers are numbered as in the official files, whose weight norm is folded when loading.
Source: Aria-K-Alethia/BigCodec 09845ab, vq/codec_encoder.py, vq/codec_decoder.py and vq/module.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .dac_parts import DownBlock, UpBlock, wide_conv
from .seanet import ResidualLstm
from .snake import AliasFreeActivation, SnakeBeta


class AliasFreeEncoder(nn.Sequential):
    """Sound (B, 1, N * hop) -> latents (B, features, N); every stride doubles the channels.

    lstm_layers  after the last stride; 0 for none
    """

    def __init__(self, channels: int, strides: Sequence[int], features: int, *, lstm_layers: int = 0) -> None:
        widest = channels << len(strides)
        super().__init__(
            wide_conv(1, channels),
            *(
                DownBlock(channels << level, stride, activation=alias_free)
                for level, stride in enumerate(strides)
            ),
            *([ResidualLstm(widest, lstm_layers)] if lstm_layers else []),
            alias_free(widest),
            nn.Conv1d(widest, features, 3, padding=1),
        )


class AliasFreeDecoder(nn.Sequential):
    """Latents (B, features, N) -> sound (B, 1, N * hop) in [-1, 1]; every stride halves the channels.

    lstm_layers  before the first stride
    """

    def __init__(self, features: int, channels: int, strides: Sequence[int], *, lstm_layers: int) -> None:
        narrowest = channels >> len(strides)
        super().__init__(
            wide_conv(features, channels),
            ResidualLstm(channels, lstm_layers),
            *(
                UpBlock(channels >> level, stride, fills=True, activation=alias_free)
                for level, stride in enumerate(strides)
            ),
            alias_free(narrowest),
            wide_conv(narrowest, 1),
            nn.Tanh(),
        )


def alias_free(channels: int) -> AliasFreeActivation:
    """SnakeBeta at twice the rate."""
    return AliasFreeActivation(SnakeBeta(channels))
