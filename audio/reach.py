"""How far a convolutional network looks: the context that makes pieces of a long sound exact."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Span:
    """Positions first ... last of a row; negative ones lie before the piece in question."""

    first: int
    last: int


class WindowedLayer(nn.Module):
    """Base of layers in which every position of a window of `window_size` may look at all others in it."""

    window_size: int


def encoder_context(encoder: nn.Module, latents: int, samples: int) -> int:
    """How many pieces before or after one the encoder looks at, for `latents` that stand for `samples`.

    A piece must begin where a window does, if there are windows.
    """
    seen = seen_by(encoder, Span(0, latents - 1))
    return max(-(seen.first // samples), seen.last // samples, 0)


def decoder_context(decoder: nn.Module, latents: int, samples: int) -> int:
    """How many pieces before or after one the decoder looks at, for `samples` that `latents` stand for."""
    seen = seen_by(decoder, Span(0, samples - 1))
    return max(-(seen.first // latents), seen.last // latents, 0)


def seen_by(network: nn.Module, outputs: Span) -> Span:
    """The inputs that these outputs depend on.

    Looks at the convolutions and windows of the network, which must be registered in the order they run;
    layers beside others, such as skips, must look no further than those.
    """
    span = outputs
    for layer in reversed(list(network.modules())):
        if isinstance(layer, nn.Conv1d):
            kernel, stride, padding = _numbers(layer)
            first = span.first * stride - padding
            span = Span(first, span.last * stride - padding + (kernel - 1) * layer.dilation[0])
        elif isinstance(layer, nn.ConvTranspose1d):
            kernel, stride, padding = _numbers(layer)
            # Input i adds to the outputs from i * stride - padding on, `kernel` of them.
            span = Span(-((kernel - 1 - padding - span.first) // stride), (span.last + padding) // stride)
        elif isinstance(layer, WindowedLayer):
            size = layer.window_size
            span = Span(span.first // size * size, (span.last // size + 1) * size - 1)
    return span


def _numbers(layer: nn.Conv1d | nn.ConvTranspose1d) -> tuple[int, int, int]:
    """Kernel, stride and padding."""
    (kernel,), (stride,), (padding,) = layer.kernel_size, layer.stride, layer.padding
    return kernel, stride, int(padding)
