"""A corpus to train on: text by domain (a language, a subject), streamed from files, never all in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from .text_files import TextFiles

# Files are read in parts of about this size, cut after a line: what a pattern would have joined across such a
# cut is lost, once in a million bytes.
PART_BYTES = 1 << 20
_WHITE = b" \t\n\r\f\v"


class Source(Protocol):
    """Something that holds text: a file, or strings in memory."""

    @property
    def name(self) -> str:
        """How errors and resumed runs call it; it changes when the content does."""
        ...

    @property
    def size(self) -> int:
        """Bytes, about."""
        ...

    def read(self, offset: int) -> Iterator[tuple[str, int]]:
        """Texts from a place on, each with the place that comes after it; the first place is 0."""
        ...


@dataclass(frozen=True)
class TextFile:
    """A file of text in UTF-8; of a .jsonl the string "text" of every line. What is no UTF-8 is left out."""

    path: Path

    @property
    def name(self) -> str:
        found = self.path.stat()
        return f"{self.path} {found.st_size} {found.st_mtime_ns}"

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int) -> Iterator[tuple[str, int]]:
        as_lines = self.path.suffix == ".jsonl"
        with self.path.open("rb") as file:
            file.seek(offset)
            while part := file.readline() if as_lines else _part(file.read(PART_BYTES)):
                offset += len(part)
                file.seek(offset)
                yield self._line(part, offset) if as_lines else part.decode(errors="ignore"), offset

    def _line(self, line: bytes, end: int) -> str:
        try:
            text = json.loads(line)["text"] if line.strip() else ""
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f'{self.path}: the line that ends at byte {end} is no JSON object with a "text"'
            ) from error
        if not isinstance(text, str):
            raise ValueError(f'{self.path}: "text" of the line that ends at byte {end} is no string')
        return text


@dataclass(frozen=True)
class Texts:
    """Strings in memory."""

    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.encode(errors="surrogatepass") + b"\0")
        return f"{len(self.texts)} texts {digest.hexdigest()}"

    @property
    def size(self) -> int:
        return sum(map(len, self.texts))

    def read(self, offset: int) -> Iterator[tuple[str, int]]:
        for place in range(offset, len(self.texts)):
            yield self.texts[place].encode(errors="ignore").decode(), place + 1


@dataclass(frozen=True)
class Mapped:
    """A source whose texts are rewritten as they are read.

    note  how errors and resumed runs call what is done; it changes when that does
    """

    source: Source
    change: Callable[[str], str]
    note: str

    @classmethod
    def by(cls, change: Callable[[str], str], note: str) -> Callable[[Source], Source]:
        """What `Corpus.mapped` takes."""
        return lambda source: cls(source, change, note)

    @property
    def name(self) -> str:
        return f"{self.source.name}, {self.note}"

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int) -> Iterator[tuple[str, int]]:
        return ((self.change(text), after) for text, after in self.source.read(offset))


@dataclass(frozen=True)
class Place:
    """How far a reader has come: domain and source by number, the offset in it, bytes read of the domain."""

    domain: int = 0
    source: int = 0
    offset: int = 0
    read: int = 0


@dataclass(frozen=True)
class Corpus:
    """Domains side by side, by name; a corpus without domains of its own has one, named "".

    limit_bytes  how much is read of each domain, from its start; None reads all
    """

    domains: Mapping[str, tuple[Source, ...]]
    limit_bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.domains or not all(self.domains.values()):
            empty = [name for name, sources in self.domains.items() if not sources]
            raise ValueError(
                f"the corpus is empty{': nothing in ' + ', '.join(map(repr, empty)) if empty else ''}; "
                f"give files, or folders with {', '.join(TextFiles.suffixes)} in them"
            )

    @classmethod
    def of_files(cls, paths: Paths | Mapping[str, Paths]) -> Corpus:
        """Files, and of folders every text file below, sorted; a mapping names its domains.

        FileNotFoundError for a path that is not there, ValueError when a domain has no file.
        """
        named = paths if isinstance(paths, Mapping) else {"": paths}
        return cls({name: tuple(map(TextFile, _files(given))) for name, given in named.items()})

    @classmethod
    def of_folder(cls, folder: str | os.PathLike[str]) -> Corpus:
        """A domain for every folder and every text file in `folder`, named as it is, without its suffix."""
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no such folder to train on")
        inside = [
            path for path in sorted(root.iterdir()) if path.is_dir() or path.suffix in TextFiles.suffixes
        ]
        return cls.of_files({path.stem: path for path in inside})

    @classmethod
    def of_texts(cls, texts: Iterable[str] | Mapping[str, Iterable[str]]) -> Corpus:
        """Strings in memory; a mapping names its domains. ValueError when a domain has none."""
        named = texts if isinstance(texts, Mapping) else {"": texts}
        held = {name: tuple(given) for name, given in named.items()}
        return cls({name: (Texts(given),) if given else () for name, given in held.items()})

    @property
    def size(self) -> int:
        """Bytes to read, about."""
        sizes = [sum(source.size for source in sources) for sources in self.domains.values()]
        return sum(size if self.limit_bytes is None else min(size, self.limit_bytes) for size in sizes)

    @property
    def identity(self) -> str:
        """A fingerprint of what is read: of the sources' names, which change when their content does."""
        told = hashlib.sha256(f"{self.limit_bytes}".encode())
        for domain, sources in self.domains.items():
            for source in sources:
                told.update(f"\0{domain}\0{source.name}".encode(errors="surrogatepass"))
        return told.hexdigest()

    def limited(self, limit_bytes: int) -> Corpus:
        """The same with at most so many bytes of each domain."""
        return replace(self, limit_bytes=limit_bytes)

    def mapped(self, change: Callable[[Source], Source]) -> Corpus:
        """The same with every source replaced, such as by a `Mapped` one."""
        domains = {name: tuple(map(change, sources)) for name, sources in self.domains.items()}
        return replace(self, domains=domains)

    def left_out(self) -> dict[str, int]:
        """Of each domain that has some, how many bytes of its files are no UTF-8, which `walk` leaves out."""
        found: dict[str, int] = {}
        for domain, sources in self.domains.items():
            read = lost = 0
            for source in sources:
                if isinstance(source, TextFile) and source.path.suffix != ".jsonl":
                    before = 0
                    for text, after in source.read(0):
                        if self.limit_bytes is not None and read >= self.limit_bytes:
                            break
                        size = len(text.encode())
                        read, lost, before = read + size, lost + after - before - size, after
            if lost:
                found[domain] = lost
        return found

    def walk(self, start: Place | None = None) -> Iterator[tuple[str, str, Place]]:
        """Every text in order, from a place on: its domain, the text, and the place that comes after it."""
        begin = start or Place()
        names = list(self.domains)
        for domain in range(begin.domain, len(names)):
            resumed = begin if domain == begin.domain else Place(domain)
            yield from self._walk_domain(names[domain], resumed)

    def _walk_domain(self, name: str, start: Place) -> Iterator[tuple[str, str, Place]]:
        read = start.read
        for number in range(start.source, len(self.domains[name])):
            offset = start.offset if number == start.source else 0
            for text, after in self.domains[name][number].read(offset):
                encoded = text.encode()
                read += len(encoded)
                if self.limit_bytes is None or read <= self.limit_bytes:
                    yield name, text, Place(start.domain, number, after, read)
                    continue
                kept = max(0, self.limit_bytes - read + len(encoded))
                yield name, encoded[:kept].decode(errors="ignore"), Place(start.domain, number, after, read)
                return


Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def _files(paths: Paths) -> list[Path]:
    listed = [paths] if isinstance(paths, str | os.PathLike) else paths
    found: list[Path] = []
    for path in map(lambda path: Path(path).expanduser(), listed):
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix in TextFiles.suffixes)
            found.extend(sorted(file for file in inside if file.is_file()))
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder of text")
    return found


def _part(read: bytes) -> bytes:
    """What was read up to its last line end, or its last space, or its last whole character."""
    if len(read) < PART_BYTES:
        return read
    end = read.rfind(b"\n") + 1 or max(read.rfind(bytes([white])) for white in _WHITE)
    if end > 0:
        return read[:end]
    end = len(read)
    while end > len(read) - 4 and read[end - 1] & 0xC0 == 0x80:
        end -= 1
    return read[: end - 1] if read[end - 1] >= 0xC0 else read
