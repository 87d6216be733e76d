"""The embedded default for speech: a codec whose decoder is a vocoder, and whose codebooks nest.

Spectra of the sound are mapped to latents 50 times a second (`SpectrumEncoder`), which residual codebooks
quantize, coarse first (SoundStream, arXiv 2107.03312): the first q codebooks decode too. The decoder tells
from the codes the pitch, and how to filter a pulse train of that pitch and a hiss (`HarmonicDecoder`). Phases
are not coded, so a decoded sound is like the original to the ear and not in its samples: its SI-SDR means
nothing. It is made for one voice at a time; music and noises come out as something spoken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.chance import Chance
from ..zoo.codebook_care import Revival
from ..zoo.collective import num_ranks, sum_over_ranks
from ..zoo.config import Config, check_range
from ..zoo.ema_quantizer import EMAVectorQuantizer
from ..zoo.facts import Facts
from ..zoo.fitting import kmeans, principal_axes
from ..zoo.neural import Reconstruction
from ..zoo.residual_quantizer import ResidualQuantizer
from .audio_tokenizer import AudioTokenizer
from .harmonic_parts import KERNEL, PITCH_WINDOW, HarmonicDecoder, PitchGuess, SpectrumEncoder
from .pitch import track_pitch
from .preprocess import AudioPreprocess
from .stream import Overlap

# Of the teacher of the pitch, in fine frames.
_TAUGHT_EVERY = 2
# How far back a voice may have begun for pieces to decode as the whole does.
_VOICED_SECONDS = 1.28
# Of the k-means start.
_ROWS_PER_CODE, _ROUNDS = 20, 6


@dataclass(frozen=True)
class HarmonicConfig(Config):
    """One harmonic codec.

    hop_samples        samples of a token
    subframes          fine frames of a token, at whose rate pitch and filters move; their hop is even
    latent_dim         D, width of the latents and of the codes
    num_codebooks      Q, residual codebooks
    num_codes          K, size of each
    width, expand      of the blocks at the rate of the tokens
    encoder_depth, decoder_depth  how many of them
    fine_width, fine_depth        of the blocks at the rate of the fine frames
    commitment_weight, pitch_weight, voicing_weight  of the terms of the quantizer's loss: codes, octaves that
                       the pitch is off, whether there is one
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "harmonic"

    hop_samples: int = 320
    subframes: int = 4
    latent_dim: int = 64
    num_codebooks: int = 4
    num_codes: int = 1024
    width: int = 256
    expand: int = 3
    encoder_depth: int = 4
    decoder_depth: int = 4
    fine_width: int = 128
    fine_depth: int = 2
    commitment_weight: float = 0.25
    pitch_weight: float = 2.0
    voicing_weight: float = 0.2
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(sample_rate_hz=16_000))

    def __post_init__(self) -> None:
        for name, high in (("hop_samples", 1 << 14), ("subframes", 64), ("latent_dim", 4096),
                           ("num_codebooks", 64), ("num_codes", 1 << 20), ("width", 8192), ("expand", 8),
                           ("encoder_depth", 64), ("decoder_depth", 64), ("fine_width", 8192),
                           ("fine_depth", 64)):  # fmt: skip
            check_range(name, getattr(self, name), 1, high)
        for name in ("commitment_weight", "pitch_weight", "voicing_weight"):
            check_range(name, getattr(self, name), 0, 1e6)
        if self.hop_samples % (2 * self.subframes):
            raise ValueError(
                f"hop_samples={self.hop_samples}, subframes={self.subframes}: expected a hop that "
                "is a multiple of twice the subframes"
            )
        if self.preprocess.channels != 1:
            raise ValueError(f"{self.preprocess.channels} channels: expected mono")

    @property
    def fine_hop(self) -> int:
        """Samples of a fine frame."""
        return self.hop_samples // self.subframes

    def facts(self) -> Facts:
        """All but identity."""
        rate_hz = self.preprocess.sample_rate_hz
        return Facts(
            name="harmonic",
            modality="audio",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,) * self.num_codebooks,
            latent_dim=self.latent_dim,
            nested="codebooks",
        )


class HarmonicCodec(AudioTokenizer):
    """Speech as rows of residual ids, decoded by a vocoder. The networks look a third of a second ahead."""

    config_type = HarmonicConfig
    config: HarmonicConfig

    def __init__(self, config: HarmonicConfig) -> None:
        super().__init__(config)
        self.encoder = SpectrumEncoder(
            config.hop_samples,
            config.subframes,
            config.width,
            config.encoder_depth,
            config.expand,
            config.latent_dim,
        )
        self.quantizer = ResidualQuantizer(
            [
                EMAVectorQuantizer(
                    config.num_codes,
                    config.latent_dim,
                    commitment_weight=config.commitment_weight,
                    revival=Revival(),
                )
                for _ in range(config.num_codebooks)
            ]
        )
        self.decoder = HarmonicDecoder(
            sample_rate_hz=config.preprocess.sample_rate_hz,
            hop_samples=config.hop_samples,
            subframes=config.subframes,
            latent_dim=config.latent_dim,
            width=config.width,
            depth=config.decoder_depth,
            fine_width=config.fine_width,
            fine_depth=config.fine_depth,
            expand=config.expand,
        )

    @property
    def overlap(self) -> Overlap:
        """All that the convolutions look at. The phase of the pulses goes back to where the voice began: a
        piece that begins inside a longer stretch of voice has another phase, and the hiss is another."""
        config, side = self.config, KERNEL // 2
        window = -(-(PITCH_WINDOW - config.hop_samples) // (2 * config.hop_samples))
        fine = -(-(side * config.fine_depth + 2) // config.subframes)
        decode = 1 + side * config.decoder_depth + fine
        rate_hz = config.preprocess.sample_rate_hz / config.hop_samples
        return Overlap(
            encode_tokens=max(window, 1) + side * config.encoder_depth,
            decode_tokens=max(decode, round(_VOICED_SECONDS * rate_hz)),
            is_exact=False,
        )

    @torch.no_grad()
    def initialise(self, sounds: Tensor) -> None:
        """Fit the linear part of the encoder and the codebooks to sounds (M, 1, S): principal components and
        k-means, seed 0. The encoder's correction starts at zero; training does the rest."""
        self.check_signal(sounds)
        sounds = self.pad_signal(sounds)
        rows = torch.cat([self.encoder.features(some[:, 0]).flatten(0, 1) for some in sounds.split(64)])
        mean, linear = rows.mean(0), self.encoder.linear
        axes = principal_axes(rows - mean, self.config.latent_dim)
        # A quarter of unit variance in the mean over all components.
        axes = axes * (0.5 / ((rows - mean) @ axes).var(0).mean().sqrt())
        linear.weight.copy_(axes.T)
        linear.bias.copy_(-mean @ axes)
        latents = torch.cat([self.encoder(some).transpose(1, 2).flatten(0, 1) for some in sounds.split(64)])
        chance = torch.Generator().manual_seed(0)
        for stage in self.quantizer.stages:
            assert isinstance(stage, EMAVectorQuantizer)
            codes = kmeans(
                latents, self.config.num_codes, generator=chance, rounds=_ROUNDS, rows_per_code=_ROWS_PER_CODE
            )
            stage.codebook.copy_(codes)
            stage.sums.copy_(codes)
            stage.counts.fill_(1.0)
            latents = latents - stage.decode(stage.encode(latents))

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; lengths (B,) counts codebooks. The loss of the quantizer holds that of the
        pitch: what the decoder hears in the codes, against what is in the signal."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        latents = self.encode_latents(signal)
        quantized = self.quantizer(latents.values, lengths=lengths, generator=generator)
        features = self.decoder.features(quantized.latents.transpose(1, 2))
        guess = self.decoder.guess_pitch(features)
        sound = self.decoder.synthesise(features, guess)[..., : signal.shape[-1]]
        loss = quantized.loss + self._pitch_loss(guess, self.pad_signal(signal)[:, 0])
        return Reconstruction(sound, replace(quantized, loss=loss))

    def _pitch_loss(self, guess: PitchGuess, sound: Tensor) -> Tensor:
        """Octaves off, in the mean over voiced frames, and the cross entropy of voicing, weighted."""
        config = self.config
        rate_hz, every = config.preprocess.sample_rate_hz, _TAUGHT_EVERY * config.fine_hop
        pitch = track_pitch(sound, rate_hz, every)
        count = pitch.hz.shape[1] * _TAUGHT_EVERY
        hz = pitch.hz.repeat_interleave(_TAUGHT_EVERY, dim=1)
        voiced = pitch.voiced.repeat_interleave(_TAUGHT_EVERY, dim=1).to(guess.voicing.dtype)
        off = (guess.log2_hz[:, :count] - hz.clamp(min=1.0).log2()).abs() * voiced
        # Of all ranks, so that every voiced frame counts alike.
        frames = sum_over_ranks(voiced.sum())[0].clamp(min=1.0) / num_ranks()
        octaves = off.sum() / frames
        voicing = F.binary_cross_entropy_with_logits(guess.voicing[:, :count], voiced, reduction="sum")
        return config.pitch_weight * octaves + config.voicing_weight * voicing / max(1, voiced.numel())
