"""SpeechTokenizer (Zhang et al. 2023, arXiv 2308.16692): the first of eight codebooks says what HuBERT hears.

It was trained to hold the content of speech, and the others what it leaves out, the timbre above all.
Source: ZhangXInFD/SpeechTokenizer, speechtokenizer/model.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor, nn

from ..zoo.chance import Chance
from ..zoo.codebook_care import KMeansStart, Revival
from ..zoo.config import Config, check_range
from ..zoo.ema_quantizer import EMAVectorQuantizer
from ..zoo.facts import Facts
from ..zoo.residual_quantizer import ResidualQuantizer
from ..zoo.tokens import Tokens
from .audio_tokenizer import AudioTokenizer
from .preprocess import AudioPreprocess
from .seanet import SeanetConfig, SeanetDecoder, SeanetEncoder
from .stream import Overlap


@dataclass(frozen=True)
class SpeechTokenizerConfig(Config):
    """One SpeechTokenizer.

    num_codebooks      Q
    num_codes          K, size of each codebook
    latent_dim         D, width of a code
    semantic_dim       width of the features that the first codebook was taught by
    commitment_weight  weight of the commitment loss, a mean over codebooks, beside a mel loss of weight 45
    seanet             sizes of the networks
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "speechtokenizer"

    num_codebooks: int = 8
    num_codes: int = 1024
    latent_dim: int = 1024
    semantic_dim: int = 768
    commitment_weight: float = 10.0
    seanet: SeanetConfig = field(default_factory=lambda: SeanetConfig(filters=64, bidirectional=True))
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(16_000, mix="first"))

    def __post_init__(self) -> None:
        check_range("num_codebooks", self.num_codebooks, 1, 64)
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("latent_dim", self.latent_dim, 1, 8192)
        check_range("semantic_dim", self.semantic_dim, 1, 8192)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        if self.preprocess.channels != self.seanet.channels:
            raise ValueError(
                f"{self.preprocess.channels} channels of sound, {self.seanet.channels} of the networks: "
                "expected as many"
            )

    @property
    def hop_samples(self) -> int:
        return self.seanet.hop_samples

    def facts(self) -> Facts:
        """All but identity."""
        rate_hz = self.preprocess.sample_rate_hz
        return Facts(
            name="speechtokenizer",
            modality="audio",
            sample_rate_hz=rate_hz,
            channels=self.preprocess.channels,
            token_rate_hz=rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,) * self.num_codebooks,
            latent_dim=self.latent_dim,
            roles=("semantic",) + ("acoustic",) * (self.num_codebooks - 1),
            nested="codebooks",
        )


class SpeechTokenizer(AudioTokenizer):
    """Speech as a content id and seven more for every 20 ms.

    Content alone is `decode(tokens.keep(1))`, all but content `decode(tokens, first_codebook=1)`; ids of two
    voices, joined along the codebooks, come back through `stamp`.

    The official `encode(st=i)` is left out: it quantizes the latent itself with codebook i, not what the
    codebooks before it left over, so its ids are others than those of codebook i here. They are
    `ResidualQuantizer(list(tok.quantizer.stages)[i:]).encode(tok.encode_latents(signal).values)`.

    The official decoder gives whole hops of sound; here the samples beyond the input are cut off.
    """

    config_type = SpeechTokenizerConfig
    config: SpeechTokenizerConfig
    # Semantic distillation alone teaches it.
    untaught = ("transform",)

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = SeanetEncoder(config.seanet, config.latent_dim)
        # The losses of the stages add up here, where the official code takes their mean.
        weight = config.commitment_weight / config.num_codebooks
        self.quantizer = ResidualQuantizer(
            [
                EMAVectorQuantizer(
                    config.num_codes,
                    config.latent_dim,
                    commitment_weight=weight,
                    start=KMeansStart(rounds=50),
                    revival=Revival(),
                )
                for _ in range(config.num_codebooks)
            ]
        )
        self.decoder = SeanetDecoder(config.seanet, config.latent_dim)
        # The distillation of HuBERT reads it; without a change of width the official model has none.
        same_width = config.latent_dim == config.semantic_dim
        self.transform = nn.Identity() if same_width else nn.Linear(config.latent_dim, config.semantic_dim)

    @property
    def overlap(self) -> Overlap:
        """The LSTM of the encoder runs both ways over the whole item, the decoder's one way: measured."""
        return Overlap(encode_tokens=64, decode_tokens=64, is_exact=False)

    def pad_signal(self, signal: Tensor) -> Tensor:
        """As it is: each convolution pads by itself, by reflection, so that the last hop is whole."""
        return signal

    def semantic_features(self, tokens: Tokens) -> Tensor:
        """(B, N, semantic_dim): the first codebook, in the space of the HuBERT features that taught it.

        What stands beyond the length of an item means nothing.
        """
        self.check_tokens(tokens)
        content = self.dequantize(tokens.keep(1).to(self.device))
        return self.transform(content.values.to(self.dtype))

    def decode(
        self,
        tokens: Tokens,
        *,
        generator: Chance = None,
        chunk_seconds: float | None = None,
        first_codebook: int = 0,
    ) -> Tensor:
        """See `AudioTokenizer.decode`.

        first_codebook  leave out the codebooks before this one, counted from 0; whole sounds only
        """
        if not first_codebook:
            return super().decode(tokens, generator=generator, chunk_seconds=chunk_seconds)
        self.check_tokens(tokens)
        if chunk_seconds is not None:
            raise ValueError("first_codebook and chunk_seconds do not go together: leave one out")
        held = len(tokens.codebook_sizes)
        if not 0 < first_codebook < held:
            raise ValueError(f"first_codebook={first_codebook}: expected 0 ... {held - 1}")

        def sound_of_the_others(latents: Tokens) -> Tensor:
            ids = tokens.ids.clone()
            ids[..., :first_codebook] = -1  # a stage without an id adds nothing
            values = self.quantizer.decode(ids.to(self.device)).to(self.dtype)
            return self.decode_latents(replace(latents, values=values))

        return self._decode_with(tokens, generator, sound_of_the_others)
