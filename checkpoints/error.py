"""The one error of this package; no torch, no Hub client."""

from __future__ import annotations

from collections.abc import Sequence

LISTED_NAMES = 8


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read, trusted, fitted or written.

    The message names the source (a repository or a folder), the revision, the file, the reason and the
    remedy; the first three are attributes too, None where they do not apply.
    """

    def __init__(
        self,
        reason: str,
        *,
        source: object = None,
        revision: str | None = None,
        file: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.source = None if source is None else str(source)
        self.revision = revision
        self.file = file
        place = self.source or ""
        if revision is not None:
            place += f"@{revision}"
        if file is not None:
            place += f", file {file}" if place else f"file {file}"
        message = f"{place}: {reason}" if place else reason
        super().__init__(f"{message}; {remedy}" if remedy else message)


def listed(names: Sequence[str]) -> str:
    """The first few names in one line, and how many more there are: messages stay readable."""
    shown = ", ".join(names[:LISTED_NAMES])
    rest = len(names) - LISTED_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown
