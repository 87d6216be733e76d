"""ONNX files by hand: the bytes of a protocol buffer, so that the reader is not tested with itself."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

KINDS = {"float32": 1, "int64": 7, "float16": 10, "float64": 11}


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def single(field: int, value: float) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<f", value)


def tensor(name: str, values: Tensor, *, packed_dims: bool = False, raw: bool = True) -> bytes:
    """A TensorProto; `raw` false lists floats in float_data (or double_data), as old exporters do."""
    array = values.detach().cpu().contiguous().numpy()
    if packed_dims:
        dims = message(1, b"".join(varint(size) for size in array.shape))
    else:
        dims = b"".join(number(1, size) for size in array.shape)
    field = 9 if raw else {"float32": 4, "float64": 10}[str(array.dtype)]
    content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return dims + number(2, KINDS[str(array.dtype)]) + message(8, name) + message(field, content)


def node(
    operator: str,
    name: str,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    attributes: Sequence[bytes] = (),
) -> bytes:
    """A NodeProto."""
    return (
        b"".join(message(1, each) for each in inputs)
        + b"".join(message(2, each) for each in outputs)
        + message(3, name)
        + message(4, operator)
        + b"".join(message(5, each) for each in attributes)
    )


def constant(name: str, values: Tensor) -> bytes:
    """A Constant node whose output is called `name`."""
    return node("Constant", "", (), (name,), (message(1, "value") + message(5, tensor("", values)),))


def model(nodes: Sequence[bytes], initialisers: Mapping[str, Tensor]) -> bytes:
    """A ModelProto, with the fields around the graph that real ones have."""
    graph = (
        b"".join(message(1, each) for each in nodes)
        + message(2, "main_graph")
        + b"".join(message(5, tensor(name, values)) for name, values in initialisers.items())
    )
    return number(1, 8) + message(2, "pytorch") + message(7, graph) + message(8, number(2, 17))
