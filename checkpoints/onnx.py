"""ONNX files, read without the onnx package: the float tensors, and which node takes which.

An ONNX file is a protocol buffer. Only what a name mapping needs is read, at a fixed depth (model, graph,
node or tensor, attribute, tensor), so a file cannot make the reader recurse; every length is checked against
what holds it, and the fields are counted, so it cannot make it allocate much more than its own size. Nothing
in it is run.

Source of the field numbers: onnx/onnx, onnx/onnx.proto; of the wire format: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .error import CheckpointError
from .pickles import cache_folder, file_digest, keep_copy
from .weights import read_weights

ONNX_SUFFIX = ".onnx"
# No real file has as many; those of a hostile one would keep Python busy for minutes.
MAX_FIELDS = 1 << 20
MAX_DIMS = 16
# TensorProto.DataType of the floats; integers and strings are shapes and names, no weights.
_FLOATS = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class OnnxNode:
    """One operation: what it is, what it is called, what it takes and gives, and its float attributes."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    floats: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """Nodes in the order they run, and the float tensors (initialisers, constants, aliases) by name."""

    nodes: tuple[OnnxNode, ...]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Onnx:
    """An ONNX file that a catalogue row vouches for.

    file        its name in the repository or folder
    tensors_of  its weights by name, out of its graph
    version     of that function: what an earlier one made is made again
    """

    file: str
    tensors_of: Callable[[OnnxGraph], dict[str, Tensor]]
    version: int = 1


class _Malformed(Exception):
    """What is wrong with the bytes."""


def read_onnx(
    path: Path, spec: Onnx, *, source: object = None, revision: str | None = None
) -> dict[str, Tensor]:
    """The weights in an ONNX file, by the names that `spec.tensors_of` gives them.

    They are cached as safetensors under the sha256 of the file, so that the next call does not read it. A
    file that is damaged or no ONNX raises CheckpointError.
    """
    path = Path(path)
    if not path.is_file():
        place = {"source": path.parent if source is None else source, "revision": revision}
        raise CheckpointError(
            "no such file", **place, file=path.name, remedy="check the name, or download it again"
        )
    cached = cache_folder() / "onnx" / f"{file_digest(path)}-{spec.version}.safetensors"
    if cached.is_file():
        try:
            return read_weights(cached)
        except CheckpointError:
            cached.unlink(missing_ok=True)  # a damaged copy: make it again
    tensors = spec.tensors_of(read_graph(path, source=source, revision=revision))
    keep_copy(cached, tensors)
    return tensors


def read_graph(path: Path, *, source: object = None, revision: str | None = None) -> OnnxGraph:
    """The graph of an ONNX file; CheckpointError when it is damaged, or keeps its weights elsewhere."""
    place: dict[str, Any] = {"source": path.parent if source is None else source, "revision": revision}
    try:
        with path.open("rb") as file:
            # Not closed by hand: the views in a traceback would keep it from closing. Nothing else holds it,
            # since each tensor is copied out of it.
            return _Reader().graph(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (_Malformed, OSError, ValueError, struct.error) as error:
        reason = f"not a readable ONNX file ({error})"
        raise CheckpointError(reason, **place, file=path.name, remedy="download it again") from error


class _Reader:
    """Messages of one file, which may have MAX_FIELDS fields between them."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def graph(self, data: memoryview) -> OnnxGraph:
        """Of a ModelProto."""
        graphs = [value for number, value in self._fields(data) if number == 7]
        if len(graphs) != 1:
            raise _Malformed(f"{len(graphs)} graphs, expected one")
        nodes: list[OnnxNode] = []
        tensors: dict[str, Tensor] = {}
        for number, value in self._fields(_message(graphs[0])):
            if number == 5:
                name, tensor = self._tensor(_message(value))
                if tensor is not None:
                    tensors[name] = tensor
            elif number == 1:
                node, constant = self._node(_message(value))
                nodes.append(node)
                if constant is not None and node.outputs:
                    tensors[node.outputs[0]] = constant
        for node in nodes:  # exporters store equal tensors once, and hand them on
            if node.operator == "Identity" and node.outputs and node.inputs[:1] and node.inputs[0] in tensors:
                tensors[node.outputs[0]] = tensors[node.inputs[0]]
        return OnnxGraph(tuple(nodes), tensors)

    def _node(self, data: memoryview) -> tuple[OnnxNode, Tensor | None]:
        """Of a NodeProto; the tensor is what a Constant holds, if floats."""
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [""], 4: [""]}
        floats: dict[str, float] = {}
        held: memoryview | None = None
        for number, value in self._fields(data):
            if number in texts:
                texts[number].append(_text(value))
            elif number == 5:
                name, scalar, tensor = self._attribute(_message(value))
                if scalar is not None:
                    floats[name] = scalar
                if tensor is not None and name == "value":
                    held = tensor
        operator = texts[4][-1]
        node = OnnxNode(texts[3][-1], operator, tuple(texts[1]), tuple(texts[2]), floats)
        return node, self._tensor(held)[1] if held is not None and operator == "Constant" else None

    def _attribute(self, data: memoryview) -> tuple[str, float | None, memoryview | None]:
        """Of an AttributeProto: its name, and its value if it is a float or a tensor."""
        name, scalar, tensor = "", None, None
        for number, value in self._fields(data):
            if number == 1:
                name = _text(value)
            elif number == 2:
                scalar = struct.unpack("<f", _message(value))[0]
            elif number == 5:
                tensor = _message(value)
        return name, scalar, tensor

    def _tensor(self, data: memoryview) -> tuple[str, Tensor | None]:
        """Of a TensorProto: its name and its values, None when they are no floats."""
        dims: list[int] = []
        kind, name, content, listed = 0, "", None, bytearray()
        for number, value in self._fields(data):
            if number == 1:
                dims += [value] if isinstance(value, int) else _packed_dims(value)
            elif number == 2:
                kind = value if isinstance(value, int) else 0
            elif number == 8:
                name = _text(value)
            elif number in (4, 10):  # float_data and double_data, packed
                listed += _message(value)
            elif number == 9:
                content = _message(value)
            elif number in (3, 13) or (number == 14 and value):
                raise _Malformed(f"tensor {name[:80]!r} is in pieces, or in another file")
        if kind not in _FLOATS:
            return name, None
        dtype, stored = _FLOATS[kind], listed if content is None else bytearray(content)
        expected = math.prod(dims) * dtype.itemsize
        if len(dims) > MAX_DIMS or len(stored) != expected:
            shape = dims[:MAX_DIMS]
            raise _Malformed(f"tensor {name[:80]!r} of shape {shape} has {len(stored)} bytes, not {expected}")
        if not stored:
            return name, torch.empty(dims, dtype=dtype)
        return name, torch.frombuffer(stored, dtype=dtype).reshape(dims)

    def _fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """(number, value) of every field of a message: an int of a varint, else the bytes."""
        place = 0
        while place < len(data):
            self._left -= 1
            if self._left < 0:
                raise _Malformed(f"more than {MAX_FIELDS} fields")
            key, place = _varint(data, place)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, place = _varint(data, place)
                yield number, value
                continue
            if wire == _BYTES:
                size, place = _varint(data, place)
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
            else:
                raise _Malformed(f"wire type {wire} at byte {place}")
            if size > len(data) - place:
                raise _Malformed(f"a field of {size} bytes where {len(data) - place} are left")
            yield number, data[place : place + size]
            place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise _Malformed("it ends inside an integer")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _Malformed("an integer of more than 10 bytes")


def _packed_dims(data: memoryview) -> list[int]:
    """The integers of a packed field, which are few."""
    dims: list[int] = []
    place = 0
    while place < len(data):
        if len(dims) > MAX_DIMS:
            raise _Malformed(f"a tensor of more than {MAX_DIMS} axes")
        value, place = _varint(data, place)
        dims.append(value)
    return dims


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Malformed(f"the integer {value} where bytes belong")
    return value


def _text(value: int | memoryview) -> str:
    return str(_message(value), "utf-8")
