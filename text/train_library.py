"""BPE, Unigram and WordPiece by the trainers of `tokenizers`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ..zoo.optional import require
from .byte_letters import LETTERS
from .corpus import Corpus
from .load_json import vocab_of
from .pretokenizers import PreTokenizer
from .progress import progress_bar
from .ranks import MAX_PIECE_BYTES
from .vocab import TextVocab
from .vocab_file import parse_vocab, vocab_bytes

_MODELS = ("bpe", "unigram", "wordpiece")
# Decimals of a score.
_DIGITS = 9
_PARALLELISM = "TOKENIZERS_PARALLELISM"


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    model: Literal["bpe", "unigram", "wordpiece"] = "bpe",
    pretokenizer: PreTokenizer | None = None,
    min_frequency: int = 2,
    max_piece_bytes: int | None = None,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary of `vocab_size` pieces, the 256 bytes and the specials among them, for all domains alike.

    model            "bpe": with merges. "unigram": with scores. "wordpiece": neither; pieces to be matched
                     greedily, which the library finds as it does those of BPE
    pretokenizer     no piece crosses its cuts; by default that of Llama 3
    min_frequency    rarer pairs are not joined; Unigram has no use for it
    max_piece_bytes  longest piece; by default 1024 bytes, for Unigram 16
    specials         names of special tokens, the last ids
    folder           for what the library made, once it is done: the same training then takes it from there

    The corpus is streamed to the library, which runs on one thread and cannot be stopped and gone on with,
    as `train_bpe` can. Unigram is not the same in every run: the library adds up words in an order that it
    draws anew, and where two pieces are worth the same but for rounding, either may stay. Pieces are listed
    by score and then by bytes, so that nothing else differs. ImportError without the library.
    """
    if model not in _MODELS:
        raise ValueError(f"model {model!r}: expected one of {', '.join(_MODELS)}")
    least = 256 + len(specials)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size={vocab_size}: expected at least {least}, the 256 bytes and the specials"
        )
    pretokenizer = pretokenizer or PreTokenizer()
    told = f"{model} {vocab_size} {pretokenizer} {min_frequency} {max_piece_bytes} {list(specials)}"
    identity = hashlib.sha256(f"{told} {corpus.identity}".encode(errors="surrogatepass")).hexdigest()
    kept = None if folder is None else Path(folder) / f"library-{identity[:16]}.state"
    if kept is not None and kept.exists():
        return parse_vocab(kept.read_bytes())
    made = _trained(
        corpus, vocab_size, model, pretokenizer, min_frequency, max_piece_bytes, specials, progress
    )
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f".{kept.name}.saving")
        beside.write_bytes(vocab_bytes(made))
        os.replace(beside, kept)
    return made


def _trained(
    corpus: Corpus,
    vocab_size: int,
    model: str,
    pretokenizer: PreTokenizer,
    min_frequency: int,
    max_piece_bytes: int | None,
    specials: Sequence[str],
    progress: bool,
) -> TextVocab:
    library = require("tokenizers", "text")
    tokenizer = library.Tokenizer.from_str(json.dumps(_untrained(model, pretokenizer)))
    settings: dict[str, Any] = {"vocab_size": vocab_size - len(specials), "show_progress": False}
    settings["initial_alphabet"] = list(LETTERS)
    if model == "unigram":
        trainer = library.trainers.UnigramTrainer(max_piece_length=max_piece_bytes or 16, **settings)
    elif model == "bpe":
        # The library asks for less than its limit.
        longest = (max_piece_bytes or MAX_PIECE_BYTES) + 1
        trainer = library.trainers.BpeTrainer(
            min_frequency=min_frequency, max_token_length=longest, **settings
        )
    else:
        trainer = library.trainers.WordPieceTrainer(
            min_frequency=min_frequency, continuing_subword_prefix="", **settings
        )
    with _one_thread(), progress_bar(corpus.size, "training", "B", progress) as bar:
        tokenizer.train_from_iterator(_texts(corpus, bar), trainer)
    return _finished(json.loads(tokenizer.to_str()), model, specials)


def _untrained(model: str, pretokenizer: PreTokenizer) -> dict[str, Any]:
    kinds = {
        "bpe": {"type": "BPE", "vocab": {}, "merges": []},
        "unigram": {"type": "Unigram", "vocab": [["", 0.0]], "unk_id": None},
        "wordpiece": {
            "type": "WordPiece",
            "vocab": {},
            "unk_token": "",
            "continuing_subword_prefix": "",
            "max_input_chars_per_word": 100,
        },
    }
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": pretokenizer.to_json(),
        "model": kinds[model],
    }


def _texts(corpus: Corpus, bar: Any) -> Iterator[str]:
    seen = False
    for _, text, _ in corpus.walk():
        bar.update(len(text.encode()))
        seen = seen or bool(text)
        yield text
    if not seen:
        raise ValueError("the corpus is empty: its files hold no text")


def _finished(definition: dict[str, Any], model: str, specials: Sequence[str]) -> TextVocab:
    if model == "wordpiece":  # what its letters mean is the same in all three
        definition["model"] = {"type": "BPE", "vocab": definition["model"]["vocab"], "merges": []}
    vocab = vocab_of(definition)
    pieces, scores = vocab.pieces, vocab.scores
    if scores:
        # The library adds up words in an order that differs from run to run: the last digits are noise.
        ranked = sorted((-round(score, _DIGITS), piece) for score, piece in zip(scores, pieces, strict=True))
        pieces, scores = _settled([piece for _, piece in ranked]), tuple(-cost for cost, _ in ranked)
        scores = (*scores, *[scores[-1]] * len(specials))
    return TextVocab(
        pieces=(*pieces, *(name.encode() for name in specials)),
        merges=vocab.merges,
        scores=scores,
        specials={name: len(pieces) + number for number, name in enumerate(specials)},
    )


def _settled(pieces: list[bytes]) -> tuple[bytes, ...]:
    """The end, where the library lists bytes that the corpus lacks in any order, in the order of bytes."""
    rest = len(pieces)
    while rest and len(pieces[rest - 1]) == 1:
        rest -= 1
    return (*pieces[:rest], *sorted(pieces[rest:]))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PARALLELISM]
        else:
            os.environ[_PARALLELISM] = before
