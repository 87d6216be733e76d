"""The tensors of a CTranslate2 model, the format of faster-whisper, without the ctranslate2 package.

A `model.bin` is a list of names, shapes, types and little-endian bytes, and a list of second names.
Source: OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py (`_serialize`), format 6.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .error import CheckpointError

WEIGHTS_FILE = "model.bin"
FORMAT = 6
MAX_TENSORS = 1 << 16
MAX_RANK = 8
# Number of a type | ours.
_DTYPES = {
    0: torch.float32,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.float16,
    5: torch.bfloat16,
}


def read_ctranslate2(path: Path, *, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, as stored; nothing else is read into memory.

    CheckpointError for another file or format, and for one that is cut off or lies about its sizes.
    """
    if not path.is_file():
        raise CheckpointError("no such file", source=path.parent, file=path.name, remedy="check the name")
    with path.open("rb") as file:
        reader = _Reader(file, path)
        version = reader.number("<I")
        if version != FORMAT:
            raise reader.refused(f"not a CTranslate2 model of format {FORMAT} (it begins with {version})")
        reader.text()  # which model, and its revision: the names say as much
        reader.number("<I")
        return {name: tensor for name, tensor in reader.tensors(prefix) if name.startswith(prefix)}


class _Reader:
    """A file that is read from front to back and never beyond its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.left = path.stat().st_size

    def refused(self, reason: str) -> CheckpointError:
        remedy = "give the model.bin of a model that ct2-transformers-converter made"
        return CheckpointError(reason, source=self.path.parent, file=self.path.name, remedy=remedy)

    def tensors(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of which the prefix is wanted, by name."""
        count = self.number("<I")
        if count > MAX_TENSORS:
            raise self.refused(f"claims {count} tensors")
        for _ in range(count):
            name, rank = self.text(), self.number("<B")
            if rank > MAX_RANK:
                raise self.refused(f"tensor {name} claims {rank} axes")
            shape = tuple(self.number("<I") for _ in range(rank))
            kind, size = self.number("<B"), self.number("<I")
            dtype = _DTYPES.get(kind)
            if dtype is None or not 0 < size == math.prod(shape) * dtype.itemsize <= self.left:
                raise self.refused(f"tensor {name} of type {kind}, shape {shape} claims {size} bytes")
            if not name.startswith(prefix):
                self.left -= size
                self.file.seek(size, 1)
            else:
                yield name, torch.frombuffer(bytearray(self.take(size)), dtype=dtype).reshape(shape)

    def text(self) -> str:
        """A name, which ends with a zero byte that its length counts."""
        raw = self.take(self.number("<H"))
        try:
            return raw.removesuffix(b"\0").decode()
        except UnicodeDecodeError as error:
            raise self.refused(f"a name that is no text: {raw[:40]!r}") from error

    def number(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return value

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise self.refused(f"cut off: {size} bytes are missing")
        self.left -= size
        return self.file.read(size)
