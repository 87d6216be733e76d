"""Sounds for the command line, and the page of spectrograms of `tokenzoo reconstruct`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..zoo.facts import Facts
from ..zoo.media import Comparison, Medium
from ..zoo.optional import require
from ..zoo.page import PAGE_ROWS, Cell, draw_page
from ..zoo.tokenizer import NoDecoder, Tokenizer
from ..zoo.tokens import Tokens
from ..zoo.tokfile import payload_bytes
from .metrics import si_sdr, spectral_distance
from .spectrogram import magnitudes, spectrogram_image

PAGE_NAME = "spectrograms.png"


class AudioFiles(Medium):
    """One file, one sound; what is written is 16-bit wav at the tokenizer's rate."""

    suffixes = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
    output_suffix = ".wav"

    def read(self, path: Path) -> Path:
        return path

    def write(self, item: Tensor, path: Path, facts: Facts) -> None:
        soundfile = require("soundfile", "audio")
        # By hand: libsndfile would wrap or clip by its own rules. The same samples on every machine.
        samples = (item.detach().cpu().clamp(-1, 1) * 32767).round().to(torch.int16)
        soundfile.write(str(path), np.ascontiguousarray(samples.T.numpy()), facts.sample_rate_hz, "PCM_16")

    def log(self, writer: Any, tag: str, item: Tensor, step: int, facts: Facts) -> None:
        writer.add_audio(tag, item.mean(0).clamp(-1, 1), step, sample_rate=facts.sample_rate_hz)

    def samples(self) -> list[Path]:
        """The utterances of audio/samples; see LICENCES.md there."""
        folder = Path(str(package_files(str(__package__)) / "samples"))
        return sorted(folder.glob("*.flac"))

    def compare(
        self,
        tokenizer: Tokenizer,
        names: Sequence[str],
        items: Sequence[Any],
        keeps: Sequence[int | None],
        out: Path,
    ) -> list[Comparison]:
        """Rows for the table. Writes NAME.tok, NAME.wav, NAME-keepQ.wav for Q codebooks, and the
        spectrograms of all in `spectrograms.png`."""
        if not tokenizer.facts.has_decoder:
            raise NoDecoder(
                f"{tokenizer.facts.name} only encodes: there is nothing to reconstruct; use encode"
            )
        rows: list[Comparison] = []
        page: list[list[Cell]] = []
        for name, item in zip(names, items, strict=True):
            loudest = float(magnitudes(item).max())
            cells = [Cell("original", name, spectrogram_image(item, loudest=loudest))]
            tokens = tokenizer.encode([item])
            tokens.save(out / f"{name}.tok")
            for keep in keeps:
                kept = tokens if keep is None else tokens.keep(keep)
                sound = kept.crop(tokenizer.decode(kept))[0].cpu()
                file = out / (f"{name}.wav" if keep is None else f"{name}-keep{keep}.wav")
                self.write(sound, file, tokenizer.facts)
                row = _score(name, keep, sound, item, kept)
                rows.append(row)
                cells.append(_cell(row, sound, len(kept.codebook_sizes), loudest))
            if len(page) < PAGE_ROWS:
                page.append(cells)
        draw_page(page, tokenizer.facts.name).save(out / PAGE_NAME)
        return rows


def _score(name: str, keep: int | None, sound: Tensor, item: Tensor, kept: Tokens) -> Comparison:
    facts, tokens, sizes = kept.facts, int(kept.lengths[0]), kept.codebook_sizes
    size = payload_bytes(tokens, sizes) if sizes else 4 * tokens * (facts.latent_dim or 0)
    seconds = item.shape[-1] / (facts.sample_rate_hz or 1)
    scores = {
        "codebooks": len(sizes),
        "kbps": 8 * size / seconds / 1000,
        "SI-SDR dB": float(si_sdr(sound[None], item[None])[0]),
        "spectrum dB": float(spectral_distance(sound[None], item[None])[0]),
    }
    return Comparison(name, keep, tokens, size, scores)


def _cell(row: Comparison, sound: Tensor, codebooks: int, loudest: float) -> Cell:
    plural = "" if codebooks == 1 else "s"
    return Cell(
        f"{codebooks} codebook{plural}, {row.scores['kbps']:.3g} kbps",
        f"SI-SDR {row.scores['SI-SDR dB']:.1f} dB, spectrum {row.scores['spectrum dB']:.1f} dB off",
        spectrogram_image(sound, loudest=loudest),
    )
