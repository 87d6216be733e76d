"""A bar on stderr for what takes its time; a line now and then where nobody watches it move."""

from __future__ import annotations

import sys

from tqdm import tqdm

_LOG_SECONDS = 30.0


def progress_bar(total: int, title: str, unit: str, enabled: bool, done: int = 0) -> tqdm:
    """A bar of `total` units of which some are done; it stands still and says nothing unless `enabled`."""
    live = sys.stderr is not None and sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        unit_scale=True,
        file=sys.stderr,
        dynamic_ncols=live,
        mininterval=0.2 if live else _LOG_SECONDS,
        disable=not enabled or sys.stderr is None,
    )
