"""Real text for the tests of text: English that comes with Python, and a few pages in 13 languages."""

from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

SAMPLES = Path(__file__).parent / "samples" / "help"


@cache
def english() -> tuple[str, ...]:
    """Sections of Python's own documentation: about 700 kB of prose and code."""
    return tuple(topics[name] for name in sorted(topics))


@cache
def trained_and_held_out() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Nine sections in ten, and the others."""
    texts = english()
    held_out = texts[::10]
    return tuple(text for number, text in enumerate(texts) if number % 10), held_out


@cache
def parallel() -> dict[str, tuple[str, ...]]:
    """The same paragraphs, by language."""
    files = sorted(SAMPLES.glob("*.txt"))
    return {file.stem: tuple(file.read_text(encoding="utf-8").splitlines()) for file in files}
