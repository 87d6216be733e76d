"""SEANet's parts: step by step they give what they give at once, and they pad as the official ones do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from tokenzoo.audio.conv import Conv1d, ConvTranspose1d, PadMode, pad
from tokenzoo.audio.seanet import ResidualLstm, SeanetConfig, SeanetDecoder, SeanetEncoder
from tokenzoo.audio.stream_state import Streaming, StreamState, step_through

# Float64 leaves no room for anything but rounding.
EXACT = {"atol": 1e-12, "rtol": 0}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def in_steps(part: Streaming, x: Tensor, cuts: list[int], *, last_with_input: bool) -> Tensor:
    """The outputs of all steps; what the cuts leave goes with the last step, or before it."""
    state, start, outputs = StreamState(), 0, []
    for cut in cuts:
        outputs.append(part.step(x[..., start : start + cut], state))
        start += cut
    if not last_with_input:
        outputs.append(part.step(x[..., start:], state))
        start = x.shape[-1]
    outputs.append(part.step(x[..., start:], state, last=True))
    return torch.cat(outputs, dim=-1)


def build(part: nn.Module) -> nn.Module:
    generator = Generator().manual_seed(0)
    part = part.double()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    return part


CUTS = st.lists(st.integers(0, 9), max_size=8)
MODES = ("constant", "reflect", "replicate")
# Kernel, stride, dilation, groups.
SHAPES = ((7, 1, 1, 1), (3, 1, 4, 1), (1, 1, 1, 1), (8, 4, 1, 2), (10, 5, 1, 1), (4, 2, 1, 2), (5, 3, 1, 1))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from(SHAPES),
    mode=st.sampled_from(MODES),
    samples=st.integers(1, 40),
    cuts=CUTS,
    last_with_input=st.booleans(),
)
@torch.no_grad()
def test_a_causal_convolution_in_steps(
    shape: tuple[int, int, int, int], mode: PadMode, samples: int, cuts: list[int], last_with_input: bool
) -> None:
    kernel, stride, dilation, groups = shape
    conv = Conv1d(2, 4, kernel, stride=stride, dilation=dilation, groups=groups, causal=True, pad_mode=mode)
    x = noise(2, 2, samples)
    whole = build(conv)(x)
    assert whole.shape == (2, 4, -(-samples // stride))
    torch.testing.assert_close(in_steps(conv, x, cuts, last_with_input=last_with_input), whole, **EXACT)


@settings(deadline=None, max_examples=30)
@given(shape=st.sampled_from(((8, 4), (4, 2), (5, 5), (7, 2))), frames=st.integers(1, 12), cuts=CUTS)
@torch.no_grad()
def test_a_causal_transposed_convolution_in_steps(
    shape: tuple[int, int], frames: int, cuts: list[int]
) -> None:
    conv = build(ConvTranspose1d(2, 4, shape[0], stride=shape[1], groups=2, causal=True))
    x = noise(2, 2, frames)
    whole = conv(x)
    assert whole.shape == (2, 4, frames * shape[1])
    torch.testing.assert_close(in_steps(conv, x, cuts, last_with_input=True), whole, **EXACT)  # pyright: ignore


# Mimi's kind, EnCodec's kind, and one of Snakes.
CONFIGS = (
    SeanetConfig(
        filters=2,
        ratios=(3, 2),
        last_kernel=3,
        true_skip=True,
        causal=True,
        pad_mode="constant",
        lstm_layers=0,
    ),
    SeanetConfig(filters=2, ratios=(3, 2), residual_layers=2, causal=True),
    SeanetConfig(filters=2, ratios=(2,), causal=True, activation="snake", lstm_layers=1),
)


@settings(deadline=None, max_examples=30)
@given(
    config=st.sampled_from(CONFIGS),
    samples=st.integers(1, 150),
    cuts=st.lists(st.integers(0, 40), max_size=8),
    last_with_input=st.booleans(),
)
@torch.no_grad()
def test_networks_in_steps(
    config: SeanetConfig, samples: int, cuts: list[int], last_with_input: bool
) -> None:
    encoder, decoder = build(SeanetEncoder(config, 3)), build(SeanetDecoder(config, 3))
    x = noise(1, 1, samples)
    latents = encoder(x)
    assert latents.shape == (1, 3, -(-samples // config.hop_samples))
    got = in_steps(encoder, x, cuts, last_with_input=last_with_input)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(got, latents, **EXACT)
    frames = [cut // config.hop_samples for cut in cuts]
    sound = decoder(latents)
    assert sound.shape == (1, 1, latents.shape[-1] * config.hop_samples)
    got = in_steps(decoder, latents, frames, last_with_input=last_with_input)  # pyright: ignore
    torch.testing.assert_close(got, sound, **EXACT)


@torch.no_grad()
def test_outputs_come_as_soon_as_they_can() -> None:
    """Reflection waits for seven latents, zeros for nothing."""
    ready = []
    for config in CONFIGS[:2]:
        encoder, state = SeanetEncoder(config, 3), StreamState()
        ready.append([encoder.step(torch.zeros(1, 1, 6), state).shape[-1] for _ in range(9)])
    assert ready == [[1] * 9, [0, 0, 0, 0, 0, 0, 7, 1, 1]]


def test_nothing_given_nothing_got() -> None:
    for config in CONFIGS:
        encoder, decoder = SeanetEncoder(config, 3), SeanetDecoder(config, 3)
        assert encoder.step(torch.zeros(1, 1, 0), StreamState(), last=True).shape == (1, 3, 0)
        assert decoder.step(torch.zeros(1, 3, 0), StreamState(), last=True).shape == (1, 1, 0)


def test_reflection_of_short_inputs_sees_zeros() -> None:
    x = torch.tensor([[[1.0, 2.0]]])
    assert pad(x, 3, 0, "reflect").tolist() == [[[0, 0, 2, 1, 2]]]
    assert pad(x, 1, 1, "reflect").tolist() == [[[2, 1, 2, 1]]]
    assert pad(x, 0, 0, "reflect") is x
    assert pad(x, 1, 2, "replicate").tolist() == [[[1, 1, 2, 2, 2]]]
    assert pad(x, 1, 2, "constant").tolist() == [[[0, 1, 2, 0, 0]]]


def test_centred_padding_has_its_larger_half_on_the_left() -> None:
    conv = Conv1d(1, 1, 5, stride=2, bias=False, pad_mode="constant")
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[16.0, 8.0, 4.0, 2.0, 1.0]]]))
    # Three zeros in all, two of them on the left, and one more on the right to fill the last window.
    assert conv(torch.tensor([[[1.0, 1.0, 1.0]]])).tolist() == [[[7, 28]]]


def test_a_bidirectional_lstm_adds_its_input_to_both_ways() -> None:
    lstm = ResidualLstm(3, 2, bidirectional=True)
    x = torch.randn(2, 3, 5)
    found, _ = lstm.lstm(x.permute(2, 0, 1))
    assert torch.equal(lstm(x), found.permute(1, 2, 0) + torch.cat([x, x], dim=1))
    encoder = SeanetEncoder(SeanetConfig(filters=2, ratios=(2,), bidirectional=True), 3)
    assert encoder.layers[-1].weight.shape == (3, 8, 7)


def test_the_past_of_a_stream_does_not_pin_its_chunks() -> None:
    conv, state = Conv1d(1, 1, 3, causal=True, pad_mode="constant"), StreamState()
    step_through([conv], torch.zeros(1, 1, 100_000), state)
    window = state.recall(conv)
    assert window is not None and window.inputs.untyped_storage().nbytes() == 8


def test_what_looks_ahead_has_no_steps() -> None:
    x, state = torch.zeros(1, 2, 8), StreamState()
    for part in (Conv1d(2, 2, 3), ConvTranspose1d(2, 2, 4, stride=2)):
        with pytest.raises(ValueError, match="looks ahead, or norms over time: only causal ones have steps"):
            part.step(x, state)
    with pytest.raises(ValueError, match="a bidirectional LSTM looks ahead: it has no steps"):
        ResidualLstm(2, 1, bidirectional=True).step(x, state)
    with pytest.raises(ValueError, match="causal with group_norm or bidirectional"):
        SeanetConfig(causal=True, group_norm=True)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SeanetConfig(ratios=()), r"number of ratios=0: expected 1 \.\.\. 8"),
        (lambda: SeanetConfig(filters=1 << 20), "filters=1048576: expected"),
        (lambda: SeanetConfig(filters=4, compress=8), r"compress=8: expected 1 \.\.\. 4"),
        (
            lambda: Conv1d(1, 1, 4, stride=4, causal=True),
            "sees 0 inputs besides its stride; expected at least 3",
        ),
        (lambda: Conv1d(1, 1, 2, stride=4), "sees -2 inputs besides its stride"),
        (lambda: ConvTranspose1d(1, 1, 2, stride=4), "expected a kernel that leaves no gaps"),
    ],
)
def test_sizes_that_cannot_be(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
