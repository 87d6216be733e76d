"""Words of megabytes through everything that cuts or encodes text: what time and memory they take.

    python -m tokenzoo.text.long_words --megabytes 10 [--only NAME] [--word NAME]

Markdown on stdout; every case in a process of its own. CPU seconds, and megabytes of memory beyond those that
the text and the vocabulary took.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from . import sample, segment
from .myte import MorphemeBytes, codes
from .normalizers import CaseMarkers, SpaceMarkers, Uroman
from .plain import PlainTokenizer
from .pretokenizers import PATTERNS, PreTokenizer
from .segmented import SEGMENTERS, SegmentedTokenizer
from .triads import TriadicSuffixes
from .turkish_affixes import affixes
from .vocab import TextVocab

_SEED, _CHOICE = 0, 4096
# The first character, how many, and bytes of each.
_RANGES = {
    "letters": (0x61, 26, 1),
    "digits": (0x30, 10, 1),
    "cjk": (0x4E00, 5000, 3),
    "emoji": (0x1F600, 80, 4),
}


def word(kind: str, size: int) -> str:
    """Text of about so many bytes without a place to cut it: "letters", one letter ("one"), "digits",
    "spaces", "cjk", "emoji"."""
    if kind in ("one", "spaces"):
        return {"one": "a", "spaces": " "}[kind] * size
    ranges = {
        "letters": (0x61, 26, 1),
        "digits": (0x30, 10, 1),
        "cjk": (0x4E00, 5000, 3),
        "emoji": (0x1F600, 80, 4),
    }
    first, count, width = ranges[kind]
    chance = random.Random(_SEED)
    part = "".join(chr(first + chance.randrange(count)) for _ in range(_CHOICE))
    return (part * (size // width // _CHOICE + 1))[: size // width]


WORDS = ("letters", "one", "digits", "spaces", "cjk", "emoji")


def cases() -> Mapping[str, Callable[[], Callable[[str], object]]]:
    """Name -> what makes the function that is measured, given a text."""
    found: dict[str, Callable[[], Callable[[str], object]]] = {}
    for kind in (*PATTERNS, "none"):
        found[f"pre-tokenizer {kind}"] = lambda kind=kind: PreTokenizer(kind).split
    found["pre-tokenizer llama3, digits from the right"] = lambda: (
        PreTokenizer("llama3", digits="right_to_left").split
    )
    found["pre-tokenizer of a pattern"] = lambda: PreTokenizer("pattern", pattern=r"\p{L}+|\s+").split
    found["engine tiktoken"] = lambda: _plain("gpt2").encode_ids
    found["engine tiktoken, superwords"] = lambda: _plain("superbpe").encode_ids
    found["engine tiktoken, digits from the right"] = lambda: (
        PlainTokenizer.of(_vocab(), PreTokenizer("llama3", digits="right_to_left")).encode_ids
    )
    found["engine tokenizers, BPE"] = lambda: _plain("gpt2")._library(frozenset()).encode  # pyright: ignore
    found["engine tokenizers, unigram, digits from the right"] = lambda: (
        PlainTokenizer.of(_scored(), PreTokenizer("llama3", digits="right_to_left")).encode_ids
    )
    for name in SEGMENTERS:
        found[f"segmenter {name}"] = lambda name=name: _segmenter(name)
    for name in ("dropout", "unigram", "fewest", "stochastok"):
        found[f"sampler {name}"] = lambda name=name: _sampler(name)
    found["normalizer case"] = lambda: CaseMarkers().apply
    found["normalizer space"] = lambda: SpaceMarkers().apply
    found["normalizer triads"] = lambda: TriadicSuffixes().apply
    found["normalizer uroman"] = lambda: Uroman().apply
    found["myte"] = lambda: MorphemeBytes(codes([b"the", b"ing", b"aaaa"])).encode
    found["offsets"] = lambda: _plain("gpt2").offsets
    found["truncate"] = lambda: lambda text: _plain("gpt2").truncate(text, 8)
    return found


@cache
def _vocab() -> TextVocab:
    from ..zoo.loading import load

    return load("bpe-40k").vocab  # pyright: ignore[reportAttributeAccessIssue]


def _scored() -> TextVocab:
    return replace(segment.with_scores(_vocab(), {}, segment.greedy(_vocab())), merges=())


@cache
def _plain(kind: str) -> PlainTokenizer:
    return PlainTokenizer.of(_vocab(), PreTokenizer(kind))


def _segmenter(name: str) -> Callable[[str], object]:
    vocab = _vocab()
    if name == "likeliest":
        vocab = _scored()
    if name == "root-affix":
        pieces = tuple(dict.fromkeys((*vocab.pieces, *(affix.encode() for affix in sorted(affixes())))))
        index = {piece: place for place, piece in enumerate(pieces)}
        endings = tuple(index[affix.encode()] for affix in sorted(affixes()))
        groups = {"head": (32,), "root": (index[b"a"], index[b"st"]), "affix": endings}
        vocab = TextVocab(pieces, merges=vocab.merges, groups=groups)
    tokenizer = SegmentedTokenizer(vocab, name, PreTokenizer("none"))
    return tokenizer.encode_ids


def _sampler(name: str) -> Callable[[str], object]:
    chance = np.random.default_rng(_SEED)
    if name == "stochastok":
        ids, strike = segment.greedy(_vocab()), sample.StochasTok(_vocab(), chance)
        return lambda text: strike(ids(text.encode()))
    made = {
        "dropout": lambda: sample.BpeDropout(_vocab(), chance),
        "unigram": lambda: sample.UnigramSampler(_scored(), chance),
        "fewest": lambda: sample.FewestSampler(_vocab(), chance),
    }[name]()
    return lambda text: made(text.encode())


def measured(name: str, kind: str, size: int) -> tuple[float, float]:
    """CPU seconds, and megabytes more at the peak, of one case in this process, which does nothing else."""
    text, function = word(kind, size), cases()[name]()
    function(text[:100])  # what is built at first use
    before, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    function(text)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return time.process_time() - clock, (after - before) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--only", action="append", help="cases whose name holds this")
    parser.add_argument("--word", action="append", choices=WORDS)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = round(options.megabytes * 1e6)
    if options.case:
        name, kind = options.case
        print(json.dumps(measured(name, kind, size)))
        return 0
    words = options.word or WORDS
    print(f"| seconds / MB of memory | {' | '.join(words)} |\n| --- |{' ---: |' * len(words)}")
    for name in cases():
        if options.only and not any(part in name for part in options.only):
            continue
        print(f"| {name} |", end="")
        for kind in words:
            command = [sys.executable, "-m", __spec__.name, "--megabytes", str(options.megabytes)]
            done = subprocess.run([*command, "--case", name, kind], capture_output=True, text=True)
            cell = "failed" if done.returncode else "{:.1f} / {:.0f}".format(*json.loads(done.stdout))
            if done.returncode:
                print(done.stderr[-300:], file=sys.stderr)
            print(f" {cell} |", end="", flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
