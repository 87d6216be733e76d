"""The inverse Fourier transform that gives one hop a frame, and the head in front of it."""

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio.istft import InverseStft, IstftHead


def spectrum(frames: int, n_fft: int, seed: int = 0) -> Tensor:
    chance = Generator().manual_seed(seed)
    return torch.view_as_complex(torch.randn(2, frames, n_fft // 2 + 1, 2, generator=chance).double())


def added_up(frames: Tensor, window: Tensor, hop: int) -> Tensor:
    """(N, n_fft) by the definition: windowed frames over the sum of the squared windows, without the ends."""
    count, n_fft = frames.shape
    total, weight = torch.zeros(2, (count - 1) * hop + n_fft, dtype=frames.dtype)
    for index, frame in enumerate(frames):
        place = slice(index * hop, index * hop + n_fft)
        total[place] += frame * window
        weight[place] += window.square()
    cut = (n_fft - hop) // 2
    return (total / weight)[cut : len(total) - cut]


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (16, 8), (20, 6), (24, 2)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_one_hop_a_frame_by_the_definition(n_fft: int, hop: int, frames: int) -> None:
    istft, given = InverseStft(n_fft, hop).double(), spectrum(frames, n_fft)
    sound = istft(given)
    assert sound.shape == (2, frames * hop)
    for item, one in zip(sound, given, strict=True):
        expected = added_up(torch.fft.irfft(one, n_fft), torch.hann_window(n_fft).double(), hop)
        torch.testing.assert_close(item, expected, atol=1e-12, rtol=1e-10)


def test_inside_it_is_the_inverse_of_the_transform() -> None:
    sound = torch.randn(1, 200, generator=Generator().manual_seed(0)).double()
    window = torch.hann_window(16).double()
    given = torch.stft(sound, 16, 4, window=window, center=False, return_complex=True).transpose(1, 2)
    back = InverseStft(16, 4).double()(given)
    torch.testing.assert_close(back, sound[:, 6:-6], atol=1e-12, rtol=1e-10)


def test_magnitudes_are_limited() -> None:
    head = IstftHead(3, 16, 4)
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias[:9] = 1e4  # exp of it overflows
        head.out.bias[9:] = 0
        limited = head(torch.zeros(1, 5, 3))
        head.out.bias[:9] = torch.tensor(100.0).log()
        torch.testing.assert_close(limited, head(torch.zeros(1, 5, 3)))


def test_half_precision_computes_in_float32() -> None:
    head, features = IstftHead(8, 16, 4), torch.randn(2, 6, 8, generator=Generator().manual_seed(1))
    half = head.bfloat16()(features.bfloat16())
    assert half.dtype == torch.bfloat16 and half.shape == (2, 1, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert head.float()(features).isfinite().all()


def test_gradients_reach_the_features() -> None:
    head = IstftHead(4, 16, 4).double()
    features = torch.randn(1, 3, 4, generator=Generator().manual_seed(2)).double().requires_grad_()
    assert torch.autograd.gradcheck(head, (features,))


@pytest.mark.parametrize(("n_fft", "hop"), [(15, 4), (16, 5), (16, 10), (16, 0)])
def test_windows_that_do_not_overlap_evenly_are_refused(n_fft: int, hop: int) -> None:
    with pytest.raises(ValueError, match=f"n_fft={n_fft}, hop_samples={hop}: expected an even window"):
        InverseStft(n_fft, hop)
