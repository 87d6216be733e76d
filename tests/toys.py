"""Tiny tokenizers of every modality and family: what the contract test holds to the whole interface.

Weights are drawn from seed 0. Dropout and batch normalisation are there to catch verbs that train.
"""

from __future__ import annotations

import pytest
import torch

from tokenzoo.zoo import catalogue
from tokenzoo.zoo.neural import NeuralTokenizer

from .toys_audio import ToyCodec
from .toys_bigcodec import SmallBigCodec, SmallXCodec2
from .toys_captions import SmallTaTiTok, SmallTaTiTokKl, SmallTexTok, SmallTexTokVq
from .toys_conv import (
    SmallElmBae,
    SmallIbq,
    SmallLdmVae,
    SmallLlamaGen,
    SmallMaskgitVqgan,
    SmallOpenMagvit2,
    SmallTokenBridge,
)
from .toys_dac import SmallDac, SmallSnac, SmallWindowedSnac
from .toys_distilled import SmallAlit, SmallAlitVae, SmallKarl, SmallKarlVae
from .toys_encodec import SmallEncodec, SmallSegmentedEncodec
from .toys_flextok import SmallFlexTok
from .toys_harmonic import SmallHarmonic
from .toys_image import ToyGrid, ToyKL
from .toys_lm_spt import SmallLmSpt, SmallLmSpt6, SmallLmSpt12
from .toys_mimi import SmallMimi
from .toys_retok import SmallReTok
from .toys_s3 import SmallS3, SmallS3V2
from .toys_seed import SmallSeed
from .toys_sequence import ToySound, ToyWords
from .toys_speechtokenizer import SmallSpeechTokenizer
from .toys_units import SmallUnits, SmallWavLmUnits
from .toys_visual import SmallMatryoshka, SmallTokenFlex, SmallTokenShuffle, SmallVisualTransformer
from .toys_wavtokenizer import SmallWavTokenizer

TOYS: dict[str, type[NeuralTokenizer]] = {
    "toy-kl": ToyKL,
    "toy-grid": ToyGrid,
    "toy-sound": ToySound,
    "toy-codec": ToyCodec,
    "toy-words": ToyWords,
    "ldm-vae": SmallLdmVae,
    "llamagen": SmallLlamaGen,
    "maskgit-vqgan": SmallMaskgitVqgan,
    "elm-bae": SmallElmBae,
    "ibq": SmallIbq,
    "open-magvit2": SmallOpenMagvit2,
    "tokenbridge": SmallTokenBridge,
    "flextok": SmallFlexTok,
    "matryoshka": SmallMatryoshka,
    "tokenflex": SmallTokenFlex,
    "visual-transformer": SmallVisualTransformer,
    "token-shuffle": SmallTokenShuffle,
    "alit": SmallAlit,
    "small-alit-vae": SmallAlitVae,
    "karl": SmallKarl,
    "small-karl-vae": SmallKarlVae,
    "retok": SmallReTok,
    "seed": SmallSeed,
    "ta-titok": SmallTaTiTok,
    "small-ta-titok-kl": SmallTaTiTokKl,
    "textok": SmallTexTok,
    "small-textok-vq": SmallTexTokVq,
    "lm-spt": SmallLmSpt,
    "small-lm-spt-12": SmallLmSpt12,
    "small-lm-spt-6": SmallLmSpt6,
    "mimi": SmallMimi,
    "dac": SmallDac,
    "snac": SmallSnac,
    "small-windowed-snac": SmallWindowedSnac,
    "speechtokenizer": SmallSpeechTokenizer,
    "wavtokenizer": SmallWavTokenizer,
    "bigcodec": SmallBigCodec,
    "xcodec2": SmallXCodec2,
    "encodec": SmallEncodec,
    "harmonic": SmallHarmonic,
    "small-segmented-encodec": SmallSegmentedEncodec,
    "s3tokenizer": SmallS3,
    "small-s3tokenizer-v2": SmallS3V2,
    "units": SmallUnits,
    "small-wavlm-units": SmallWavLmUnits,
}


def build_toy(name: str) -> NeuralTokenizer:
    """A toy with weights, as `load` would give it."""
    family = TOYS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return family(family.config_type()).eval()


def list_toys(patch: pytest.MonkeyPatch) -> None:
    """The loader knows the toys, so that saved ones load."""
    real = catalogue.family
    patch.setattr(catalogue, "family", lambda kind: TOYS[kind] if kind in TOYS else real(kind))
    for name in TOYS:
        patch.setitem(catalogue.FAMILIES, name, f"tests.toys:{name}")
