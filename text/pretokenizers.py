"""Pre-tokenizers: where text is cut before a model sees it. No token crosses a cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..zoo.optional import require

_MAX_PATTERN = 4096
# Splitting is linear in practice; a pattern that backtracks for longer than this is given up.
_SECONDS, _SECONDS_PER_CHARACTER = 5.0, 5e-6

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = (r"\s+(?!\S)", r"\s+")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_THREE_DIGITS = r"\p{N}{1,3}"
# The first group takes what is left over, so that the last one ends the number (Singh & Strouse 2024).
_THREE_FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"


@dataclass(frozen=True)
class _Pattern:
    """A regular expression by its alternatives.

    easy     those a finite automaton can match, in their order; they come first
    hard     those that look ahead, or come after one that does
    between  what lies between two matches and is a pretoken too, said as an alternative that comes last;
             "" where every character belongs to a match
    aliases  other spellings of the same, as files in the wild have them
    """

    easy: tuple[str, ...]
    hard: tuple[str, ...] = _SPACES
    between: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def covers(self) -> bool:
        """Whether every character belongs to a match."""
        return not self.between

    @property
    def regex(self) -> str:
        return "|".join((*self.easy, *self.hard))


_LLAMA3 = (
    _CONTRACTIONS,
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    _THREE_DIGITS,
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
)
_ENDINGS = tuple(f"{alternative}{_CONTRACTIONS}?" for alternative in _CASED)
_CASED_REST = (_THREE_DIGITS, r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+")

PATTERNS = {
    "gpt2": _Pattern(
        (r"'s|'t|'re|'ve|'m|'ll|'d", r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+"),
        aliases=(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",),
    ),
    # As tiktoken 0.14 has it: unlike llama3, white space that ends the text is one pretoken, newlines
    # and all. tiktoken's own spelling is no alias: to `tokenizers` its {1,3}+ means any number of digits.
    "cl100k": _Pattern((*_LLAMA3[:4], r"\s+\z", r"\s*[\r\n]+")),
    "llama3": _Pattern(
        _LLAMA3,
        aliases=(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
            r"\s*[\r\n]|\s+(?!\S)|\s+",
        ),
    ),
    "qwen2": _Pattern(tuple(r"\p{N}" if part == _THREE_DIGITS else part for part in _LLAMA3)),
    "qwen35": _Pattern(
        (
            _CONTRACTIONS,
            r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
            r"\p{N}",
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
        )
    ),
    "o200k": _Pattern((*_ENDINGS, *_CASED_REST)),
    "tekken": _Pattern((*_CASED, r"\p{N}", *_CASED_REST[1:])),
    # SuperBPE's two stages: words, as o200k without its contractions; then numbers, runs of signs and runs of
    # spaces, with everything between them one pretoken (Liu et al. 2025).
    "superbpe_words": _Pattern((*_CASED, *_CASED_REST)),
    "superbpe": _Pattern(
        (_THREE_DIGITS, r" ?[^\s\p{L}\p{N}]{2,}[\r\n/]*"),
        hard=(r" +(?!\S)",),
        between=r"(?:\p{L}+|[^\s\p{L}\p{N}](?![^\s\p{L}\p{N}])|[^\S ]| (?=\S)(?![^\s\p{L}\p{N}]{2}))+",
    ),
}


@dataclass(frozen=True)
class PreTokenizer:
    """Cuts text into pretokens; nothing is added or lost, so the pieces joined are the text.

    kind     a name of PATTERNS, "none" (the whole text is one pretoken), or "pattern"
    pattern  of kind "pattern": a regular expression in the syntax of `regex`; matches are pretokens, and so
             is what lies between them. "" elsewhere.
    digits   "right_to_left" groups the digits of a number in threes from its end, 1|234|567; for kinds that
             group them in threes at all

    Raises ValueError for an unknown kind, and for a pattern that does not compile or matches nothing at all.
    """

    kind: str = "llama3"
    pattern: str = ""
    digits: Literal["left_to_right", "right_to_left"] = "left_to_right"

    def __post_init__(self) -> None:
        if self.kind not in (*PATTERNS, "none", "pattern"):
            known = ", ".join((*PATTERNS, "none", "pattern"))
            raise ValueError(f"unknown pre-tokenizer {self.kind!r}; known: {known}")
        if (self.kind == "pattern") != bool(self.pattern):
            raise ValueError(
                f"pre-tokenizer {self.kind!r} with pattern {self.pattern!r}: only 'pattern' has one"
            )
        if self.digits == "right_to_left" and _THREE_DIGITS not in self.regex:
            raise ValueError(f"pre-tokenizer {self.kind!r} has no groups of three digits to turn around")
        if self.pattern:
            _check(self.pattern)

    @property
    def regex(self) -> str:
        """As tokenizer.json writes it; "" of kind "none"."""
        whole = self.pattern if self.kind == "pattern" else ""
        if self.kind in PATTERNS:
            whole = PATTERNS[self.kind].regex
        if self.digits == "right_to_left":
            whole = whole.replace(_THREE_DIGITS, _THREE_FROM_THE_RIGHT)
        return whole

    @property
    def tiktoken_regex(self) -> str | None:
        """The same cuts for tiktoken, or None where it cannot make them; `turn_digits` comes first.

        tiktoken drops what no alternative matches. What a finite automaton can match stands in one group,
        so that its regex library looks once at a place, not once an alternative: a third of the time saved.
        """
        found = PATTERNS.get(self.kind)
        if found is None:
            return None
        between = (found.between,) if found.between else ()
        return "|".join((f"(?:{'|'.join(found.easy)})", *found.hard, *between))

    @property
    def cuts_before_spaces(self) -> bool:
        """Whether text before " " that does not end in white space is cut there, whatever comes after: no
        alternative has a space after anything else. Then both sides can be encoded by themselves."""
        return self.kind in PATTERNS and PATTERNS[self.kind].covers

    def split(self, text: str) -> list[tuple[int, int]]:
        """Start and end character of every pretoken, in order and without gaps; [] for the empty text.

        Classes such as \\p{L} are those of the Unicode version of the package `regex`. ValueError when a
        pattern takes too long on this text.
        """
        spans: list[tuple[int, int]] = []
        start = 0
        for part in self.turn_digits(text):
            cut = self._cut(part)
            spans += [(start + left, start + right) for left, right in cut] if start else cut
            start += len(part)
        return spans

    def pieces(self, text: str) -> list[str]:
        """The pretokens themselves."""
        found = PATTERNS.get(self.kind)
        if found is None:
            return [text[start:end] for start, end in self.split(text)]
        # Trainers read whole corpora through this: the matches, and what lies between, without their places.
        parts = self.turn_digits(text)
        if found.covers:
            return [piece for part in parts for piece in _compile(found.regex).findall(part)]
        return [piece for part in parts for piece in _compile(f"({found.regex})").split(part) if piece]

    def turn_digits(self, text: str) -> list[str]:
        """`text` cut where groups of three from the right and the left differ: after the first n mod 3 of
        n digits. Each part, cut from the left, is cut as from the right. One part where nothing turns."""
        if not self._turns:
            return [text]
        parts, end = [], 0
        for match in _compile(r"\p{N}{4,}").finditer(text):
            if over := len(match[0]) % 3:
                parts.append(text[end : match.start() + over])
                end = match.start() + over
        parts.append(text[end:])
        return parts

    def to_json(self) -> dict[str, Any]:
        """The `pre_tokenizer` of a byte-level tokenizer.json."""
        bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        if self.kind == "none":
            return bytes_
        split = {"type": "Split", "pattern": {"Regex": self.regex}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [split, bytes_]}

    @property
    def _turns(self) -> bool:
        return self.digits == "right_to_left"

    def _cut(self, text: str) -> list[tuple[int, int]]:
        """`split`, with digits from the left."""
        if self.kind == "none":
            return [(0, len(text))] if text else []
        if self.kind != "pattern":
            matches = _compile(PATTERNS[self.kind].regex).finditer(text)
        else:
            matches = _limited(self.pattern, text)
        spans: list[tuple[int, int]] = []
        end = 0
        for match in matches:
            start, stop = match.span()
            if start > end:
                spans.append((end, start))
            if stop > start:
                spans.append((start, stop))
            end = stop
        if end < len(text):
            spans.append((end, len(text)))
        return spans


def recognise(pre_tokenizer: Any) -> PreTokenizer | None:
    """The pre-tokenizer that a byte-level tokenizer.json describes, or None when it is none of ours."""
    steps = pre_tokenizer.get("pretokenizers") if isinstance(pre_tokenizer, dict) else None
    steps = steps if isinstance(steps, list) else [pre_tokenizer]
    if not 1 <= len(steps) <= 2 or not all(isinstance(step, dict) for step in steps):
        return None
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return None
    if len(steps) == 1:
        return PreTokenizer("gpt2" if last.get("use_regex", True) else "none")
    split = steps[0]
    # Removing what is not matched is the same where everything is.
    kept = (split.get("behavior"), split.get("invert")) in (("Isolated", False), ("Removed", True))
    pattern = split.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    found = _spellings().get(regex) if isinstance(regex, str) else None
    if split.get("type") != "Split" or not kept or last.get("use_regex", True) or found is None:
        return None
    return found if PATTERNS[found.kind].covers or split["behavior"] == "Isolated" else None


@lru_cache
def _spellings() -> dict[str, PreTokenizer]:
    """Every way to write the patterns that we know."""
    found: dict[str, PreTokenizer] = {}
    for kind, pattern in PATTERNS.items():
        found[pattern.regex] = PreTokenizer(kind)
        found.update(dict.fromkeys(pattern.aliases, PreTokenizer(kind)))
        if _THREE_DIGITS in pattern.regex:
            turned = PreTokenizer(kind, digits="right_to_left")
            found[turned.regex] = turned
    return found


def _check(pattern: str) -> None:
    """ValueError unless a user's pattern compiles and every match takes something."""
    if len(pattern) > _MAX_PATTERN:
        raise ValueError(f"pattern of {len(pattern)} characters: expected at most {_MAX_PATTERN}")
    error = require("regex", "text").error
    try:
        compiled = _compile(pattern)
    except error as wrong:
        raise ValueError(f"pattern {pattern!r} does not compile: {wrong}") from wrong
    if compiled.fullmatch("", timeout=_SECONDS):
        raise ValueError(f"pattern {pattern!r} matches the empty text: expected one that takes something")


def _limited(pattern: str, text: str) -> Iterator[Any]:
    """Matches of a user's pattern, in bounded time."""
    limit = _SECONDS + _SECONDS_PER_CHARACTER * len(text)
    try:
        yield from _compile(pattern).finditer(text, timeout=limit)
    except TimeoutError as error:
        raise ValueError(
            f"pattern {pattern!r} took more than {limit:.0f} s on a text of {len(text)} characters: "
            "it backtracks without end; write it so that no part can match in two ways"
        ) from error


@lru_cache(maxsize=64)
def _compile(pattern: str) -> Any:
    # The end of the text is "\Z" to Python; to `tokenizers` "$" would be the end of a line.
    return require("regex", "text").compile(pattern.replace(r"\z", r"\Z"))
