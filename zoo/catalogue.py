"""The catalogue: every tokenizer that loads by name, as data. Importing it imports no torch.

To add one: its file, its class in FAMILIES, a row in the rows_*.py of its modality, one yaml in configs/.
CONTRIBUTING.md has the steps, and tests/test_catalogue.py finds it by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import rows_audio, rows_image, rows_text
from .row import Row

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

# tokenizer_type of a config.json -> where its class lives. A class path in a config is never followed.
FAMILIES = {
    "alit": "image.alit:Alit",
    "bigcodec": "audio.bigcodec:BigCodec",
    "bytes": "text.bytes:ByteTokenizer",
    "dac": "audio.dac:Dac",
    "flextok": "image.flextok:FlexTok",
    "elm-bae": "image.elm_bae:ElmBae",
    "encodec": "audio.encodec:Encodec",
    "harmonic": "audio.harmonic:HarmonicCodec",
    "ibq": "image.ibq:Ibq",
    "karl": "image.karl:Karl",
    "ldm-vae": "image.ldm_vae:LdmVae",
    "llamagen": "image.llamagen:LlamaGenVq",
    "lm-spt": "audio.lm_spt:LmSpt",
    "maskgit-vqgan": "image.maskgit_vqgan:MaskgitVqgan",
    "matryoshka": "image.matryoshka:Matryoshka",
    "mimi": "audio.mimi:Mimi",
    "myte": "text.myte_tokenizer:MyteTokenizer",
    "open-magvit2": "image.open_magvit2:OpenMagvit2",
    "pyramid": "image.pyramid:PyramidTokenizer",
    "retok": "image.retok:ReTok",
    "segmented": "text.segmented:SegmentedTokenizer",
    "s3tokenizer": "audio.s3:S3Tokenizer",
    "seed": "image.seed:Seed",
    "snac": "audio.snac:Snac",
    "speechtokenizer": "audio.speechtokenizer:SpeechTokenizer",
    "ta-titok": "image.ta_titok:TaTiTok",
    "text": "text.plain:PlainTokenizer",
    "textok": "image.textok:TexTok",
    "titok": "image.titok:TiTok",
    "token-shuffle": "image.token_shuffle:TokenShuffle",
    "tokenbridge": "image.tokenbridge:TokenBridge",
    "tokenflex": "image.tokenflex:TokenFlex",
    "units": "audio.units:Units",
    "visual-transformer": "image.visual_transformer:VisualTransformer",
    "wavtokenizer": "audio.wavtokenizer:WavTokenizer",
    "xcodec2": "audio.xcodec2:XCodec2",
}

# Converters of official layouts: modules of `checkpoints` with recognise() and convert().
CONVERTERS = {
    "alit": "convert_alit",
    "bigcodec": "convert_bigcodec",
    "dac": "convert_dac",
    "flextok": "convert_flextok",
    "elm-bae": "convert_elm_bae",
    "encodec": "convert_encodec",
    "ibq": "convert_ibq",
    "karl": "convert_karl",
    "ldm-vae": "convert_ldm_vae",
    "llamagen": "convert_llamagen",
    "lm-spt": "convert_lm_spt",
    "maskgit-vqgan": "convert_maskgit_vqgan",
    "mimi": "convert_mimi",
    "open-magvit2": "convert_open_magvit2",
    "retok": "convert_retok",
    "s3tokenizer": "convert_s3",
    "seed": "convert_seed",
    "snac": "convert_snac",
    "speechtokenizer": "convert_speechtokenizer",
    "ta-titok": "convert_ta_titok",
    "titok": "convert_titok",
    "wavtokenizer": "convert_wavtokenizer",
    "xcodec2": "convert_xcodec2",
}

DEFAULT = {"image": "pyramid-128", "audio": "harmonic-16khz", "text": "bpe-40k"}

_ROWS: tuple[Row, ...] = (*rows_image.ROWS, *rows_audio.ROWS, *rows_text.ROWS)
_BY_NAME = {row.name: row for row in _ROWS}
# Of several files in one repository the first row counts.
_BY_REPO = {row.repo.lower(): row for row in reversed(_ROWS) if row.repo}


def names(modality: str | None = None) -> list[str]:
    """Names that `tokenzoo.load` takes, in the order of the catalogue."""
    return [row.name for row in _ROWS if modality in (None, row.facts.modality)]


def rows() -> tuple[Row, ...]:
    """The catalogue."""
    return _ROWS


def find(name: str) -> Row | None:
    """The row of a short name or of an official Hub id; None when there is none."""
    return _BY_NAME.get(name) or _BY_REPO.get(name.lower())


def family(tokenizer_type: str) -> type[Tokenizer]:
    """The class of a family; imports its module. ValueError for an unknown type."""
    if tokenizer_type not in FAMILIES:
        raise ValueError(f"unknown tokenizer_type {tokenizer_type!r}; known: {', '.join(FAMILIES)}")
    module, name = FAMILIES[tokenizer_type].split(":")
    return getattr(importlib.import_module(f"..{module}", __package__), name)


def converter(key: str):
    """The converter module of an official layout."""
    return importlib.import_module(f"..checkpoints.{CONVERTERS[key]}", __package__)
