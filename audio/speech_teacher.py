"""Frozen encoders of speech that teach a codec what is said: HuBERT, WavLM, Whisper, w2v-BERT."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.loading import load
from ..zoo.recipes import stored_config
from .asr_encoder import AsrEncoder
from .speech_encoder import SpeechEncoder, SpeechEncoderSize
from .units import Units
from .xcodec2 import XCodec2

SAMPLE_RATE_HZ = 16_000


class SpeechTeacher(nn.Module, ABC):
    """Speech at 16 kHz to features, one for every 320 samples; frozen, always in eval mode.

    width  of the features
    """

    width: int

    def train(self, mode: bool = True) -> SpeechTeacher:
        """Stays in eval mode."""
        return super().train(False)

    @abstractmethod
    def forward(self, sound: Tensor) -> Tensor:
        """(B, S) float32 in [-1, 1] to (B, ceil(S / 320), width), each vector over its hop."""


class HiddenStates(SpeechTeacher):
    """A HuBERT or WavLM.

    layer      None: the mean of all hidden states, what SpeechTokenizer was taught by; else that of the last
               layer that `encoder` computes
    normalise  sounds to mean 0 and variance 1 first, as the large models want it
    """

    def __init__(self, encoder: SpeechEncoder, *, is_mean: bool, normalise: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.is_mean = is_mean
        self.normalise = normalise
        self.width = encoder.size.width
        self.requires_grad_(False).eval()

    def forward(self, sound: Tensor) -> Tensor:
        """With silence around the sound, so that a window stands over each hop, the last one too."""
        size = self.encoder.size
        if self.normalise:
            sound = F.layer_norm(sound, sound.shape[-1:])
        spare = size.reach_samples - size.hop_samples
        before = spare // 2
        after = spare - before + -sound.shape[-1] % size.hop_samples
        sound = F.pad(sound, (before, after))
        if not self.is_mean:
            return self.encoder(sound)
        states = self.encoder.model(sound, output_hidden_states=True).hidden_states
        return torch.stack(states).mean(dim=0)


class Recognizer(SpeechTeacher):
    """The encoder of a Whisper.

    layer  counted from 1; None: after the last, normalised
    """

    def __init__(self, encoder: AsrEncoder, layer: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = () if layer is None else (layer,)
        self.width = encoder.norm.normalized_shape[0]
        self.requires_grad_(False).eval()

    def forward(self, sound: Tensor) -> Tensor:
        (found,) = self.encoder(F.pad(sound, (0, -sound.shape[-1] % 320)), self.layers)
        return found


class Conformer(SpeechTeacher):
    """w2v-BERT, as it lies in an X-Codec 2."""

    def __init__(self, tokenizer: XCodec2) -> None:
        super().__init__()
        # In a tuple: of its parts only this one is needed on the device.
        self._tokenizer = (tokenizer,)
        self.encoder = tokenizer.encoder.semantic
        self.width = tokenizer.config.semantic.width
        self.requires_grad_(False).eval()

    def forward(self, sound: Tensor) -> Tensor:
        whole = F.pad(sound, (0, -sound.shape[-1] % self._tokenizer[0].config.hop_samples))
        return self.encoder(self._tokenizer[0].semantic_features(whole[:, None]))


def read_teacher(source: str, layer: int | None = None) -> SpeechTeacher:
    """The teacher in a folder, or of a name or Hub id, on the CPU.

    source  a HuBERT, WavLM or Whisper in the layout of transformers, a Whisper in that of CTranslate2, or a
            tokenizer of ours that holds one: units, or X-Codec 2
    layer   see `HiddenStates` and `Recognizer`; units and X-Codec 2 have theirs

    CheckpointError or ValueError for anything else.
    """
    config = stored_config(source)
    kind = config.get("model_type")
    if kind in ("hubert", "wavlm"):
        return _hidden_states(source, layer)
    if "tokenizer_type" not in config:
        return Recognizer(AsrEncoder.from_whisper(source), layer)
    if layer is not None:
        raise ValueError(f"teacher_layer={layer}: {source} has its layer; leave it out")
    tokenizer = load(source)
    if isinstance(tokenizer, Units):
        return HiddenStates(tokenizer.encoder, is_mean=False, normalise=tokenizer.config.normalise)
    if isinstance(tokenizer, XCodec2):
        return Conformer(tokenizer)
    raise ValueError(
        f"{source} is a {type(tokenizer).__name__}: expected units, X-Codec 2, or the folder of a HuBERT, "
        "WavLM or Whisper"
    )


def _hidden_states(source: str, layer: int | None) -> HiddenStates:
    from ..checkpoints import unit_parts, weights

    parts = unit_parts.read_encoder(source, layer)
    size = SpeechEncoderSize(**parts.size)
    holder = nn.Module()
    with torch.device("meta"):
        holder.encoder = SpeechEncoder(size)
    weights.load_strict(holder, parts.tensors, source=parts.source)
    return HiddenStates(holder.encoder, is_mean=layer is None, normalise=size.conv_norm == "layer")
