"""Tokenizers for images, sound and text behind one interface. Nothing is imported before it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints.error import CheckpointError
    from .zoo.catalogue import names
    from .zoo.facts import Facts
    from .zoo.interleave import JointTokenizer
    from .zoo.loading import load
    from .zoo.neural import NeuralTokenizer
    from .zoo.sequence_parts import MediaItem
    from .zoo.tokenizer import NoDecoder, Tokenizer
    from .zoo.tokens import Tokens
    from .zoo.vocabulary import JointMedium, JointVocabulary

    __version__: str

__all__ = [
    "CheckpointError",
    "Facts",
    "JointMedium",
    "JointTokenizer",
    "JointVocabulary",
    "MediaItem",
    "NeuralTokenizer",
    "NoDecoder",
    "Tokenizer",
    "Tokens",
    "__version__",
    "load",
    "names",
]

_HOMES = {
    "CheckpointError": ".checkpoints.error",
    "Facts": ".zoo.facts",
    "JointMedium": ".zoo.vocabulary",
    "JointTokenizer": ".zoo.interleave",
    "JointVocabulary": ".zoo.vocabulary",
    "MediaItem": ".zoo.sequence_parts",
    "NeuralTokenizer": ".zoo.neural",
    "NoDecoder": ".zoo.tokenizer",
    "Tokenizer": ".zoo.tokenizer",
    "Tokens": ".zoo.tokens",
    "load": ".zoo.loading",
    "names": ".zoo.catalogue",
}


def __getattr__(name: str) -> Any:
    # pytest imports this file under the name of the checkout's folder too; only the real package answers.
    if __package__ == "tokenzoo" and name in _HOMES:
        value = getattr(import_module(_HOMES[name], __package__), name)
    elif __package__ == "tokenzoo" and name == "__version__":
        value = import_module("importlib.metadata").version("tokenzoo")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
