"""Libraries that only an extra installs: one message with the pip command when one is missing or broken."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """The imported module; ImportError naming `pip install "tokenzoo[extra]"` when it does not import.

    A wheel built for another torch fails with OSError or RuntimeError, not ImportError.
    """
    try:
        return import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f'{module} is missing or broken ({error}); pip install "tokenzoo[{extra}]", or ".[{extra}]" in a '
            "checkout"
        ) from error
