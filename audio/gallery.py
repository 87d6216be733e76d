"""The gallery of a speech tokenizer: utterances to listen to, and their spectrograms."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..zoo.gallery import MAX_BYTES, Gallery, kept, told_length
from ..zoo.optional import require
from ..zoo.page import Cell, draw_page
from ..zoo.tokenizer import Tokenizer
from .audio_files import AudioFiles
from .spectrogram import magnitudes, spectrogram_image

GALLERY_FILE = "gallery.png"
# (utterances, seconds of each), by falling bytes; the first that fits is taken.
SIZES = ((2, 6.0), (1, 6.0), (1, 3.0), (1, 1.0), (1, 0.25))
CREDITS = (
    "Read by a LibriVox volunteer (public domain); the utterances ship with tokenzoo, and no model of its "
    "own was trained on them."
)


def draw_gallery(tokenizer: Tokenizer, keeps: Sequence[int | None]) -> Gallery:
    """A row an utterance: the original and each length, as flac and as a spectrogram."""
    gallery = Gallery({}, "")
    for utterances, seconds in SIZES:
        gallery = _draw(tokenizer, keeps, utterances, seconds)
        if sum(map(len, gallery.files.values())) <= MAX_BYTES:
            break
    return gallery


def _draw(tokenizer: Tokenizer, keeps: Sequence[int | None], utterances: int, seconds: float) -> Gallery:
    facts, rate_hz = tokenizer.facts, int(tokenizer.facts.sample_rate_hz or 0)
    headings = ["original", *(told_length(facts, keep) for keep in keeps)]
    files: dict[str, bytes] = {}
    page: list[list[Cell]] = []
    lines = [f"| {' | '.join(['utterance', *headings])} |", "|---" * (len(headings) + 1) + "|"]
    for number, path in enumerate(AudioFiles().samples()[:utterances], start=1):
        signal = tokenizer.preprocess(path)[:, : int(seconds * rate_hz)]
        sounds = [signal, *_decoded(tokenizer, signal, keeps)]
        loudest = float(magnitudes(signal).max())
        captions = [path.stem, *headings[1:]]
        images = [spectrogram_image(sound, loudest=loudest) for sound in sounds]
        page.append([Cell(*each) for each in zip(headings, captions, images, strict=True)])
        names = [f"gallery-{number}-{heading.replace(' ', '-')}.flac" for heading in headings]
        files |= {name: _flac(sound, rate_hz) for name, sound in zip(names, sounds, strict=True)}
        links = [f"[listen]({name})" for name in names]
        lines.append(f"| {' | '.join([str(number), *links])} |")
    picture = io.BytesIO()
    draw_page(page, facts.name).save(picture, "PNG", optimize=True)
    files[GALLERY_FILE] = picture.getvalue()
    table = "\n".join(lines)
    return Gallery(files, f"{table}\n\n![spectrograms]({GALLERY_FILE})\n\n{CREDITS}")


def _decoded(tokenizer: Tokenizer, signal: Tensor, keeps: Sequence[int | None]) -> list[Tensor]:
    tokens = tokenizer.encode([signal])
    some = [kept(tokenizer, tokens, [signal], keep) for keep in keeps]
    return [each.crop(tokenizer.decode(each))[0].cpu() for each in some]


def _flac(sound: Tensor, rate_hz: int) -> bytes:
    file = io.BytesIO()
    samples = (sound.detach().clamp(-1, 1) * 32767).round().to(torch.int16)
    require("soundfile", "audio").write(
        file, np.ascontiguousarray(samples.T.numpy()), rate_hz, "PCM_16", format="FLAC"
    )
    return file.getvalue()
