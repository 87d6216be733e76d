"""The speech tokenizer that ships: small enough, better with every codebook, as good as its card says."""

from pathlib import Path

import pytest
import torch

import tokenzoo
from tokenzoo.audio.audio_files import AudioFiles
from tokenzoo.audio.speech_metrics import mel_distance
from tokenzoo.audio.stoi import stoi

# By number of codebooks.
STOI = [0.753, 0.821, 0.849, 0.863]
FOLDER = Path(tokenzoo.__file__).parent / "checkpoints" / "bundled" / "harmonic-16khz"


@pytest.fixture(scope="module")
def tokenizer() -> tokenzoo.Tokenizer:
    return tokenzoo.load("harmonic-16khz")


@pytest.fixture(scope="module")
def utterances(tokenizer: tokenzoo.Tokenizer) -> list[torch.Tensor]:
    """Two of LibriSpeech, which it was not trained on."""
    return [tokenizer.preprocess(path) for path in AudioFiles().samples()]


def test_it_weighs_little_and_says_what_it_is(tokenizer: tokenzoo.Tokenizer) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12e6
    assert tokenizer.facts.bitrate_bps() == 2000
    assert tokenizer.facts.nested == "codebooks"
    card = (FOLDER / "README.md").read_text()
    assert str(tokenizer.facts.fingerprint) in card
    assert all(word in card for word in ("harmonic_16khz.yaml", "## Data", "## Licence", "CC-BY-SA-3.0"))


def test_a_round_trip_is_as_long_and_understood_better_with_every_codebook(
    tokenizer: tokenzoo.Tokenizer, utterances: list[torch.Tensor]
) -> None:
    tokens = tokenizer.encode(utterances)
    scores = []
    for keep in (1, 2, 3, 4):
        kept = tokens.keep(keep)
        sounds = kept.crop(tokenizer.decode(kept))
        assert [sound.shape for sound in sounds] == [utterance.shape for utterance in utterances]
        pairs = [(sound[None], heard[None]) for sound, heard in zip(sounds, utterances, strict=True)]
        understood = sum(float(stoi(*pair)) for pair in pairs) / 2
        scores.append((understood, -sum(float(mel_distance(*pair)) for pair in pairs) / 2))
    assert scores == sorted(scores)
    assert [understood for understood, _ in scores] == pytest.approx(STOI, abs=0.005)
