"""Which languages a vocabulary was trained on, and how much of each."""

import numpy as np
import pytest

from tokenzoo.text import train_bpe
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.measure_mixture import infer_mixture
from tokenzoo.text.vocab import TextVocab

from .real_text import parallel


def made_up(letters: str, size: int, seed: int) -> str:
    """Words of a language that does not exist, the n-th a n-th as frequent as the first."""
    words_rng, rng = np.random.default_rng(sum(map(ord, letters))), np.random.default_rng(seed)
    words = ["".join(words_rng.choice(list(letters), words_rng.integers(2, 9))) for _ in range(500)]
    shares = 1 / np.arange(1, 501)
    return " ".join(rng.choice(words, size // 3, p=shares / shares.sum()))[:size]


def cut(text: str, size: float) -> str:
    return text.encode()[: int(size)].decode(errors="ignore")


def test_a_mixture_of_made_up_languages_is_recovered() -> None:
    languages = {
        "a": ("abcdefgh", 0.5),
        "b": ("efghijklm", 0.3),
        "c": ("klmnopqrs", 0.2),
        "d": ("stuvw", 0.0),
    }
    trained = [made_up(letters, int(200_000 * share), 1) for letters, share in languages.values()]
    vocab = train_bpe.train(Corpus.of_texts(trained), 256 + 200, progress=False)
    samples = Corpus.of_texts(
        {name: [made_up(letters, 100_000, 2)] for name, (letters, _) in languages.items()}
    )
    found = infer_mixture(vocab, samples, merges=150, progress=False)
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx({name: share for name, (_, share) in languages.items()}, abs=0.02)


def test_a_mixture_of_real_languages_is_recovered() -> None:
    """From 12 kB of each language, other paragraphs than those of the training."""
    mixture = {"de": 0.5, "ru": 0.3, "tr": 0.2}
    trained = [cut("\n".join(parallel()[name][::2]), 24_000 * share) for name, share in mixture.items()]
    samples = Corpus.of_texts({name: ["\n".join(parallel()[name][1::2])] for name in mixture})
    vocab = train_bpe.train(Corpus.of_texts(trained), 256 + 100, progress=False)
    found = infer_mixture(vocab, samples, merges=100, progress=False)
    assert found == pytest.approx(mixture, abs=0.03)
    again = infer_mixture(vocab, samples, merges=100, progress=False)
    assert again == found


def test_what_tells_of_no_mixture() -> None:
    two = Corpus.of_texts({"a": ["ab ab"], "b": ["bc"]})
    merged = TextVocab(pieces=(*(bytes([each]) for each in range(256)), b"ab"), merges=((97, 98, 256),))
    with pytest.raises(ValueError, match="no merges"):
        infer_mixture(TextVocab.of_bytes(), two, progress=False)
    with pytest.raises(ValueError, match="two or more"):
        infer_mixture(merged, Corpus.of_texts({"a": ["ab"]}), progress=False)
    with pytest.raises(ValueError, match="no text in 'b'"):
        infer_mixture(merged, Corpus.of_texts({"a": ["ab"], "b": [""]}), progress=False)
    characters = TextVocab(pieces=(b"a", b"b", b"ab"), merges=((0, 1, 2),))
    with pytest.raises(ValueError, match="no byte-level BPE"):
        infer_mixture(characters, two, progress=False)
