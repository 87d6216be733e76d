"""How often each pretoken occurs in a corpus: all that most trainers ever see of it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .corpus import Corpus, Place
from .pretokenizers import PreTokenizer
from .progress import progress_bar

_log = logging.getLogger("tokenzoo")

# Distinct pretokens kept of one domain: about 1 GB.
MAX_DISTINCT = 8_000_000
# Bytes of text between two saves.
_SAVE_BYTES = 1 << 26

Counts = dict[bytes, int]


def count_pretokens(
    corpus: Corpus,
    pretokenizer: PreTokenizer,
    *,
    max_distinct: int = MAX_DISTINCT,
    state: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, Counts]:
    """Of every domain its pretokens, as bytes, and how often each occurs.

    max_distinct  when a domain has more, its rarest are forgotten, and a warning says so
    state         file to save to now and then and to go on from; it stays, for the next training on the same
                  corpus
    progress      a bar on stderr

    ValueError when there is no text, or when `state` is of another corpus or pre-tokenizer.
    """
    path = None if state is None else Path(state)
    identity = _identity(corpus, pretokenizer, max_distinct)
    tally = _Tally.load(path, identity) if path is not None and path.exists() else _Tally(identity)
    cut, saved = pretokenizer.pieces, 0
    with progress_bar(corpus.size, "reading", "B", progress) as bar:
        for domain, text, place in corpus.walk(tally.place):
            tally.place = place
            counts = tally.counts.setdefault(domain, Counter())
            counts.update(cut(text))
            if len(counts) > max_distinct:
                _forget_rarest(counts, domain, max_distinct)
            size = len(text.encode())
            bar.update(size)
            saved += size
            if path is not None and saved >= _SAVE_BYTES:
                tally.save(path)
                saved = 0
    if path is not None:
        tally.save(path)
    found = {domain: _encoded(tally.counts.pop(domain, Counter())) for domain in corpus.domains}
    if not any(found.values()):
        raise ValueError("the corpus is empty: its files hold no text")
    return found


def pooled(counts: Mapping[str, Counts]) -> Counts:
    """All domains together."""
    total: Counter[bytes] = Counter()
    for domain in counts.values():
        total.update(domain)
    return total


def digest(counts: Iterable[Counts]) -> str:
    """A fingerprint of counts that does not depend on their order."""
    total = hashlib.sha256()
    for words in counts:
        total.update(b"%d " % len(words))
        for word in sorted(words):
            total.update(b"%d %d " % (len(word), words[word]) + word)
    return total.hexdigest()


@dataclass
class _Tally:
    """What has been counted so far, and how far the corpus was read."""

    identity: str
    place: Place = field(default_factory=Place)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Written beside its place first: whatever stops this, there is a whole file."""
        arrays: dict[str, Any] = {}
        for number, words in enumerate(self.counts.values()):
            encoded = [word.encode() for word in words]
            arrays[f"bytes{number}"] = np.frombuffer(b"".join(encoded), np.uint8)
            arrays[f"lengths{number}"] = np.fromiter(map(len, encoded), np.int64, len(encoded))
            arrays[f"counts{number}"] = np.fromiter(words.values(), np.int64, len(encoded))
        header = {"identity": self.identity, "place": asdict(self.place), "domains": list(self.counts)}
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.saving")
        with beside.open("wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)
        os.replace(beside, path)

    @classmethod
    def load(cls, path: Path, identity: str) -> _Tally:
        try:
            with np.load(path, allow_pickle=False) as stored:
                header = json.loads(str(stored["header"]))
                counts = {
                    domain: Counter(
                        dict(_words(*(stored[f"{part}{n}"] for part in ("bytes", "lengths", "counts"))))
                    )
                    for n, domain in enumerate(header["domains"])
                }
                place = Place(**header["place"])
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} holds no counts that can be gone on from ({error}): delete it"
            ) from error
        if header["identity"] != identity:
            raise ValueError(
                f"{path} holds the counts of another corpus or pre-tokenizer: delete it, or name another file"
            )
        return cls(identity, place, counts)


def _words(joined: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> Iterable[tuple[str, int]]:
    data, end = joined.tobytes(), 0
    for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
        yield data[end : end + length].decode(), count
        end += length


def _identity(corpus: Corpus, pretokenizer: PreTokenizer, max_distinct: int) -> str:
    return hashlib.sha256(f"{pretokenizer} {max_distinct} {corpus.identity}".encode()).hexdigest()


def _encoded(counts: Counter[str]) -> Counts:
    return {word.encode(): count for word, count in counts.items()}


def _forget_rarest(counts: Counter[str], domain: str, max_distinct: int) -> None:
    """Leave out the rarest until half of the room is free; rarer ones go first, ties together."""
    before, least = len(counts), 1
    while len(counts) > max_distinct // 2:
        for word in [word for word, count in counts.items() if count <= least]:
            del counts[word]
        least *= 2
    _log.warning(
        "corpus %s: %d distinct pretokens, more than max_distinct=%d; the rarest %d were forgotten",
        domain, before, max_distinct, before - len(counts),
    )  # fmt: skip
