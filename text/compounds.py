"""Splitting compounds before a vocabulary is trained (CompoundPiece, Minixhofer et al. 2023).

The splitter of the paper is a trained ByT5. Any function from a word to its parts serves; the one that comes
along goes by frequencies (Koehn & Knight 2003) and needs nothing but the corpus.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..zoo.optional import require
from . import train_library
from .corpus import Corpus, Source
from .pretoken_counts import count_pretokens, pooled
from .pretokenizers import PreTokenizer
from .train_bpe import state_in
from .vocab import TextVocab

# A word in letters -> its parts, which joined are the word.
Splitter = Callable[[str], Sequence[str]]

_CUT = "\ue0d0"


class FrequentParts:
    """Splits a word in two or more where the parts are more frequent words than the whole.

    words     how often each word occurs, without spaces
    shortest  letters of a part at least
    links     letters that may stand between two parts, as the "s" of "Arbeitszeit"; they stay with the first

    The best split has the largest geometric mean of the frequencies of its parts; the word itself competes.
    """

    def __init__(
        self, words: Mapping[str, int], *, shortest: int = 4, links: Sequence[str] = ("", "s", "es", "n")
    ) -> None:
        small: Counter[str] = Counter()
        for word, count in words.items():
            small[word.lower()] += count
        self._logs = {word: math.log(count) for word, count in small.items() if len(word) >= shortest}
        self._shortest, self._links = shortest, links

    def __call__(self, word: str) -> list[str]:
        small = word.lower()
        if len(small) != len(word) or len(word) < 2 * self._shortest:
            return [word]
        # Of each place: by number of parts the best sum of logarithms, and where its last part begins.
        best: list[dict[int, tuple[float, int]]] = [{} for _ in range(len(word) + 1)]
        best[0][0] = (0.0, 0)
        for end in range(self._shortest, len(word) + 1):
            for start in range(end - self._shortest + 1):
                if (
                    best[start]
                    and (value := self._value(small[start:end], last=end == len(word))) is not None
                ):
                    for parts, (total, _) in best[start].items():
                        if total + value > best[end].get(parts + 1, (-math.inf, 0))[0]:
                            best[end][parts + 1] = (total + value, start)
        ways = best[-1]
        if not ways:
            return [word]
        count = max(ways, key=lambda parts: (ways[parts][0] / parts, -parts))
        cuts = [len(word)]
        for parts in range(count, 0, -1):
            cuts.append(best[cuts[-1]][parts][1])
        cuts.reverse()
        return [word[left:right] for left, right in pairwise(cuts)]

    def _value(self, part: str, *, last: bool) -> float | None:
        """The logarithm of how often a part occurs as a word; one that is not the last may carry a link."""
        for link in ("",) if last else self._links:
            if part.endswith(link) and (found := self._logs.get(part[: len(part) - len(link)])) is not None:
                return found
        return None


def frequent_parts(
    corpus: Corpus, *, folder: str | os.PathLike[str] | None = None, progress: bool = True
) -> FrequentParts:
    """The splitter of the words of a corpus. `folder` keeps their counts, for a training that is stopped."""
    counts = pooled(count_pretokens(corpus, PreTokenizer(), state=state_in(folder), progress=progress))
    words: Counter[str] = Counter()
    for word, count in counts.items():
        letters = word.decode().strip()
        if letters.isalpha():
            words[letters] += count
    return FrequentParts(words)


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    splitter: Splitter | None = None,
    pretokenizer: PreTokenizer | None = None,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A unigram model none of whose pieces crosses a cut of the splitter. In use there is no splitter:
    the scores decide. Without cuts it is `train_library.train` of "unigram".

    splitter  by default `frequent_parts` of the corpus
    pretokenizer, specials, progress
              as of `train_library.train`; a pre-tokenizer of kind "none" is refused
    folder    for the counts of `frequent_parts` and the model, once it is done. With a splitter of your own
              the model is not kept: nobody can tell whether it splits as it did before

    ValueError when a splitter does not give back the letters of a word.
    """
    pretokenizer = pretokenizer or PreTokenizer()
    if not pretokenizer.regex:
        raise ValueError("the pre-tokenizer 'none' leaves no words to split")
    split = splitter or frequent_parts(corpus, folder=folder, progress=progress)
    cut = Corpus(
        {
            name: tuple(_Split(source, split) for source in sources)
            for name, sources in corpus.domains.items()
        },
        corpus.limit_bytes,
    )
    at_cuts = PreTokenizer("pattern", pattern=f"{_CUT}|{pretokenizer.regex}")
    # The mark itself becomes a piece, unless its bytes are too rare; text never holds it, so it does no harm.
    return train_library.train(
        cut,
        vocab_size,
        model="unigram",
        pretokenizer=at_cuts,
        specials=specials,
        folder=folder if splitter is None else None,
        progress=progress,
    )


@dataclass(frozen=True)
class _Split:
    """A source with a mark at every cut."""

    source: Source
    splitter: Splitter

    @property
    def name(self) -> str:
        return f"{self.source.name}, split"

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int) -> Iterator[tuple[str, int]]:
        words = require("regex", "text").compile(r"\p{L}+")
        remembered: dict[str, str] = {}

        def marked(match: re.Match[str]) -> str:
            word = match[0]
            if word not in remembered:
                parts = self.splitter(word)
                if "".join(parts) != word:
                    raise ValueError(f"the splitter makes {list(parts)} of {word!r}: expected its letters")
                remembered[word] = _CUT.join(parts)
            return remembered[word]

        for text, after in self.source.read(offset):
            yield words.sub(marked, text.replace(_CUT, "")), after
