"""What a reconstructed sound is trained to be: close in mel spectra, in spectra, and in samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from ..kernels.precision import without_autocast
from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, QuantizerLoss, Step
from .distillation import SemanticDistance, SemanticDistillation
from .log_mel import mel_filters
from .metrics import si_sdr
from .resynthesis import FeatureDistance, ResynthesisDistillation

MelDistance = Literal["l1", "l1_l2"]

# Magnitudes below this are silence: the logarithm of less would be louder in the loss than the sound.
_FLOOR = 1e-5
_TERMS = ("waveform", "mel", "stft", "si_sdr", "quantizer", "semantic", "resynthesis")


@dataclass(frozen=True)
class AudioLossWeights:
    """Weight of each term; 0 leaves it out.

    waveform           mean absolute error of samples in [-1, 1]
    mel                `MelError`, at several scales
    stft               `SpectralError`, at several scales
    si_sdr             minus the scale-invariant signal-to-distortion ratio in dB
    quantizer          the quantizer's own loss
    semantic           `SemanticDistillation`: the first codebook says what a speech encoder hears
    teacher            of `semantic`: folder, name or Hub id of a HuBERT, WavLM or Whisper, see `read_teacher`
    teacher_layer      of `semantic`: whose features, from 1; None for the mean of all of HuBERT or WavLM
    teacher_width      of `semantic`: width of those features
    semantic_distance  of `semantic`: "d_axis" (SpeechTokenizer) or "cosine" (Mimi)
    resynthesis        `ResynthesisDistillation` (LM-SPT): what a recognizer hears of the semantic ids alone
    asr_encoder        of `resynthesis`: folder or Hub id of a Whisper
    asr_layers         of `resynthesis`: whose features, counted from 1; () for those after the last layer
    asr_distance       of `resynthesis`: "l2", "l1" or "cosine"
    mel_distance       "l1": of log10 mels, as DAC; "l1_l2": L1 of mels, squares of their logs, as EnCodec
    mel_windows        samples of each scale's window; a quarter of one is its hop
    mel_bands          bands of each scale
    stft_windows       as `mel_windows`, of `stft`
    stft_floor         of `stft`: magnitudes below are silence; a full-scale sine has a quarter of the window

    The defaults of `mel` are DAC's (arXiv 2306.06546); for EnCodec's (arXiv 2210.13438) give "l1_l2", windows
    (32, 64, ..., 2048) and 64 bands for each.
    """

    waveform: float = 1.0
    mel: float = 15.0
    stft: float = 0.0
    si_sdr: float = 0.0
    quantizer: float = 1.0
    semantic: float = 0.0
    teacher: str | None = None
    teacher_layer: int | None = None
    teacher_width: int = 768
    semantic_distance: SemanticDistance = "d_axis"
    resynthesis: float = 0.0
    asr_encoder: str | None = None
    asr_layers: tuple[int, ...] = ()
    asr_distance: FeatureDistance = "l2"
    mel_distance: MelDistance = "l1"
    mel_windows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    mel_bands: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320)
    stft_windows: tuple[int, ...] = (512, 1024, 2048)
    stft_floor: float = 1e-5

    def __post_init__(self) -> None:
        for name in _TERMS:
            if not getattr(self, name) >= 0:
                raise ValueError(f"weight of {name} is {getattr(self, name)}: expected at least 0")
        if not self.stft_floor > 0:
            raise ValueError(f"stft_floor={self.stft_floor}: expected above 0")
        if self.mel_distance not in get_args(MelDistance):
            raise ValueError(f"mel_distance {self.mel_distance!r}: expected 'l1' or 'l1_l2'")
        if len(self.mel_windows) != len(self.mel_bands):
            raise ValueError(
                f"{len(self.mel_windows)} mel_windows and {len(self.mel_bands)} mel_bands: expected as many"
            )
        for name in ("mel_windows", "stft_windows"):
            windows = getattr(self, name)
            if not windows or any(window < 4 or window % 4 for window in windows):
                raise ValueError(f"{name} {tuple(windows)}: expected multiples of 4, one or more")


class WaveformError(Objective):
    """Mean absolute error of samples."""

    name = "waveform"

    def forward(self, step: Step) -> Tensor:
        return (step.rebuilt.float() - step.signal.float()).abs().mean()


class MelError(Objective):
    """Distance of mel spectra, mean over scales.

    distance        see `AudioLossWeights`
    windows, bands  one each a scale
    sample_rate_hz  of the sound

    Filters are Slaney's triangles of equal area on magnitudes. Source: DAC, audiotools' MelSpectrogramLoss
    with power 1; EnCodec, section 3.4 with all alphas 1, squares for the norm as audiocraft has it.
    """

    name = "mel"

    def __init__(
        self,
        weight: float,
        distance: MelDistance,
        windows: Sequence[int],
        bands: Sequence[int],
        sample_rate_hz: int,
    ) -> None:
        super().__init__(weight)
        self.distance: MelDistance = distance
        self.scales = tuple(zip(windows, bands, strict=True))
        self.sample_rate_hz = sample_rate_hz

    def forward(self, step: Step) -> Tensor:
        return mel_distance(step.rebuilt, step.signal, self.scales, self.sample_rate_hz, self.distance)


class SpectralError(Objective):
    """Spectral convergence and L1 of log magnitudes, mean over scales.

    Source: Parallel WaveGAN (Yamamoto et al. 2020, arXiv 1910.11480), equations 4 to 6.
    """

    name = "stft"

    def __init__(self, weight: float, windows: Sequence[int], floor: float) -> None:
        super().__init__(weight)
        self.windows = tuple(windows)
        self.floor = floor

    def forward(self, step: Step) -> Tensor:
        terms = []
        for window in self.windows:
            made, wanted = magnitudes(step.rebuilt, window), magnitudes(step.signal, window)
            size = wanted.flatten(1).norm(dim=1).clamp(min=_FLOOR)
            terms.append(((made - wanted).flatten(1).norm(dim=1) / size).mean())
            terms.append((_log(made, self.floor) - _log(wanted, self.floor)).abs().mean())
        return torch.stack(terms).sum() / len(self.windows)


class DistortionRatio(Objective):
    """Minus the scale-invariant signal-to-distortion ratio in dB: phases count."""

    name = "si_sdr"

    def forward(self, step: Step) -> Tensor:
        return -si_sdr(step.rebuilt.float(), step.signal.float()).mean()


def audio_objectives(weights: AudioLossWeights, tokenizer: NeuralTokenizer) -> list[Objective]:
    """The terms of these weights that are not 0, and the quantizer's own, for the tokenizer to train."""
    sample_rate_hz = tokenizer.facts.sample_rate_hz or 0
    terms = [
        WaveformError(weights.waveform),
        MelError(weights.mel, weights.mel_distance, weights.mel_windows, weights.mel_bands, sample_rate_hz),
        SpectralError(weights.stft, weights.stft_windows, weights.stft_floor),
        DistortionRatio(weights.si_sdr),
        ResynthesisDistillation(
            weights.resynthesis, weights.asr_encoder, weights.asr_layers, weights.asr_distance
        ),
        SemanticDistillation(
            weights.semantic,
            weights.teacher,
            weights.teacher_layer,
            weights.teacher_width,
            weights.semantic_distance,
            tokenizer,
        ),
    ]
    # That one stays at weight 0: without it DDP would miss the gradients of codebooks.
    return [*(term for term in terms if term.weight), QuantizerLoss(weights.quantizer)]


def mel_distance(
    made: Tensor,
    wanted: Tensor,
    scales: Sequence[tuple[int, int]],
    sample_rate_hz: int,
    distance: MelDistance = "l1",
) -> Tensor:
    """() mean over scales of the distance of mel spectra; gradient through `made` alone.

    made, wanted  (B, C, S) float in [-1, 1]
    scales        (window, bands) of each
    """
    terms = []
    for window, bands in scales:
        first = mel_magnitudes(made, window, bands, sample_rate_hz)
        with torch.no_grad():
            second = mel_magnitudes(wanted, window, bands, sample_rate_hz)
        if distance == "l1":
            terms.append((_log(first) - _log(second)).abs().mean() / math.log(10))
        else:
            terms.append((first - second).abs().mean() + (_log(first) - _log(second)).square().mean())
    return torch.stack(terms).mean()


def mel_magnitudes(sound: Tensor, window: int, bands: int, sample_rate_hz: int) -> Tensor:
    """(B * C, bands, frames) float32 of (B, C, S)."""
    spectrum = magnitudes(sound, window)
    with without_autocast(sound.device):
        return _filters(sample_rate_hz, window, bands, str(sound.device)) @ spectrum


def magnitudes(sound: Tensor, window: int) -> Tensor:
    """(B * C, window / 2 + 1, frames) float32 of (B, C, S), a quarter of a window apart, centred, mirrored at
    the ends. ValueError for a sound too short to be mirrored."""
    if sound.shape[-1] <= window // 2:
        raise ValueError(
            f"sound of {sound.shape[-1]} samples under a window of {window}: expected more than half of one; "
            "take longer crops or shorter windows"
        )
    with without_autocast(sound.device):
        rows = sound.float().flatten(0, 1)
        spectrum = torch.stft(
            rows, window, window // 4, window=_hann(window, str(sound.device)), return_complex=True
        )
        # The root of a sum of squares, which has no gradient at 0: so small a part of silence is nothing.
        return (spectrum.real.square() + spectrum.imag.square()).clamp(min=_FLOOR**2 / 100).sqrt()


def _log(magnitude: Tensor, floor: float = _FLOOR) -> Tensor:
    return magnitude.clamp(min=floor).log()


@lru_cache(maxsize=64)
def _filters(sample_rate_hz: int, window: int, bands: int, device: str) -> Tensor:
    """`mel_filters` where they are used: a copy to a device at each step would wait for it."""
    with torch.inference_mode(False):
        return mel_filters(sample_rate_hz, window, bands).to(device)


@lru_cache(maxsize=64)
def _hann(window: int, device: str) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(window, device=device)
