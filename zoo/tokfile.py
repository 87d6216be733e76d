"""The `.tok` container: tokens in a file that explains itself. No torch; docs/tok.md has the layout.

    b"\\x89TOK"  u16 version  u32 header length  header  payload  u32 CRC-32 of all before it

The header is deflated JSON: the facts of the tokenizer, the shapes, and the list of chunks in the payload.
Ids are packed at each codebook's true width, `ceil(log2 size)` bits, item by item without padding.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from .facts import Facts

MAGIC = b"\x89TOK"
VERSION = 1
MAX_HEADER_BYTES = 1 << 20
MAX_VALUES = 1 << 28
# A long item among many short ones unpacks to a rectangle of padding: a small file must not claim gigabytes.
MAX_SPARSE_VALUES = 1 << 24
MAX_SPARSITY = 64
# Tokens that are packed at a time; a multiple of 8, so that every block but the last ends at a whole byte.
_BLOCK = 1 << 16
_PREFIX = struct.Struct("<4sHI")
_CHUNK_TYPES = {
    "lengths": "<u8",
    "extents": "<i8",
    "ids": "bits",
    "floats": "<f4",
    "positions": "<u4",
    "scales": "<f4",
    "durations": "<u4",
    "captions": "utf8",
}


class TokFileError(ValueError):
    """A `.tok` file that cannot be read: truncated, corrupted, foreign, or of a later version."""


@dataclass(frozen=True, eq=False)
class TokRecord:
    """What a `.tok` file holds, as numpy arrays.

    values     (B, N) or (B, N, Q) int64, or (B, N, D) float32; 0 beyond `lengths`
    lengths    (B,) int64
    extents    (B, 1) or (B, 2) int64
    positions, durations  (B, N) int64 or None
    scales     (B, M) float32 or None
    captions   B strings or None
    """

    facts: Facts
    values: np.ndarray
    lengths: np.ndarray
    extents: np.ndarray
    positions: np.ndarray | None = None
    scales: np.ndarray | None = None
    durations: np.ndarray | None = None
    captions: tuple[str, ...] | None = None


def write_record(record: TokRecord, path: str | os.PathLike[str]) -> None:
    """Write to a temporary file beside `path`, then rename, so a failure leaves what was there."""
    path = Path(path)
    blob = to_bytes(record)
    temporary = path.with_name(f".{path.name[:100]}.{uuid4().hex}")
    try:
        temporary.write_bytes(blob)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_record(path: str | os.PathLike[str]) -> TokRecord:
    """The whole file; raises TokFileError naming the path and what is wrong."""
    return from_bytes(Path(path).read_bytes(), str(path))


def read_facts(path: str | os.PathLike[str]) -> Facts:
    """The tokenizer's facts alone, from the header; the payload is checked but not unpacked."""
    return _parse_header(Path(path).read_bytes(), str(path))[0]


def payload_bytes(ids: int, codebook_sizes: tuple[int, ...]) -> int:
    """Bytes that `ids` tokens of these codebooks take when packed."""
    return (ids * sum(id_bits(size) for size in codebook_sizes) + 7) // 8


def id_bits(codebook_size: int) -> int:
    """Bits of one packed id: ceil(log2 codebook_size), and 1 for a codebook of one."""
    return max(codebook_size - 1, 1).bit_length()


def to_bytes(record: TokRecord) -> bytes:
    """The container as bytes; the inverse of `from_bytes`. ValueError for what it could not give back."""
    lengths = record.lengths
    values = record.values[:, : int(lengths.max(initial=0))]
    is_float = np.issubdtype(values.dtype, np.floating)
    _check_size(values.shape, int(lengths.sum()))
    chunks: list[tuple[str, bytes]] = [
        ("lengths", lengths.astype("<u8").tobytes()),
        ("extents", record.extents.astype("<i8").tobytes()),
    ]
    if is_float:
        rows = [values[item, :length] for item, length in enumerate(lengths)]
        chunks.append(("floats", b"".join(row.astype("<f4").tobytes() for row in rows)))
    else:
        sizes = _sizes_of(record.facts, values.shape)
        ids = _ragged(values, lengths)
        _check_ids(ids, sizes)
        chunks.append(("ids", _pack(ids.reshape(len(ids), len(sizes)), sizes)))
    for name in ("positions", "durations"):
        array = getattr(record, name)
        if array is not None:
            rows = _ragged(array[:, : values.shape[1]], lengths)
            if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < 2**32:
                raise ValueError(f"{name} outside 0 ... 2**32 - 1 cannot be written to a .tok file")
            chunks.append((name, rows.astype("<u4").tobytes()))
    if record.scales is not None:
        chunks.append(("scales", record.scales.astype("<f4").tobytes()))
    if record.captions is not None:
        chunks.append(("captions", json.dumps(list(record.captions), ensure_ascii=False).encode()))
    header: dict[str, Any] = {
        "facts": record.facts.to_dict(),
        "shape": list(values.shape),
        "extents": record.extents.shape[1],
        "chunks": [[name, len(blob)] for name, blob in chunks],
    }
    if record.scales is not None:
        header["scales"] = record.scales.shape[1]
    text = json.dumps(header, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"the facts take {len(text)} bytes: expected at most {MAX_HEADER_BYTES}")
    packed = zlib.compress(text, 9)
    body = _PREFIX.pack(MAGIC, VERSION, len(packed)) + packed + b"".join(blob for _, blob in chunks)
    return body + struct.pack("<I", zlib.crc32(body))


def from_bytes(blob: bytes, name: str = "bytes") -> TokRecord:
    """Read a container; every size is checked against what is there before anything is allocated."""
    facts, header, payload = _parse_header(blob, name)
    try:
        return _parse_payload(facts, header, payload)
    except (KeyError, TypeError, IndexError, ValueError, OverflowError, RecursionError) as error:
        raise TokFileError(
            f"{name}: the header and the payload disagree ({error}); make the file again"
        ) from error


def _parse_header(blob: bytes, name: str) -> tuple[Facts, dict[str, Any], dict[str, bytes]]:
    if blob[:4] != MAGIC:
        raise TokFileError(f"{name}: not a .tok file (it starts with {blob[:4]!r}, expected {MAGIC!r})")
    if len(blob) < _PREFIX.size + 4:
        raise TokFileError(f"{name}: truncated after {len(blob)} bytes; copy the file again")
    _, version, header_bytes = _PREFIX.unpack_from(blob)
    if version > VERSION:
        raise TokFileError(
            f"{name}: version {version}, this tokenzoo reads up to {VERSION}; upgrade tokenzoo"
        )
    if version < 1:
        raise TokFileError(f"{name}: version {version} does not exist; the file is damaged")
    if zlib.crc32(blob[:-4]) != struct.unpack("<I", blob[-4:])[0]:
        raise TokFileError(
            f"{name}: checksum does not match; the file is truncated or damaged, copy it again"
        )
    start = _PREFIX.size
    if start + header_bytes + 4 > len(blob):
        raise TokFileError(f"{name}: the header claims {header_bytes} bytes, the file has {len(blob)}")
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(blob[start : start + header_bytes], MAX_HEADER_BYTES)
        if inflater.unconsumed_tail:
            raise ValueError(f"header larger than {MAX_HEADER_BYTES} bytes")
        header = json.loads(text)
        facts = Facts.from_dict(header["facts"])
        payload = _split(header["chunks"], blob[start + header_bytes : -4])
    except (zlib.error, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TokFileError(f"{name}: the header cannot be read ({error})") from error
    return facts, header, payload


def _split(listing: list[list[Any]], payload: bytes) -> dict[str, bytes]:
    """The payload cut into its chunks, which must cover it exactly."""
    chunks: dict[str, bytes] = {}
    offset = 0
    for name, size in listing:
        if name not in _CHUNK_TYPES or name in chunks:
            raise ValueError(f"unexpected chunk {name!r}")
        if type(size) is not int or size < 0 or offset + size > len(payload):
            raise ValueError(f"chunk {name} claims {size!r} bytes of {len(payload)}")
        chunks[name] = payload[offset : offset + size]
        offset += size
    if offset != len(payload):
        raise ValueError(f"{len(payload) - offset} bytes belong to no chunk")
    return chunks


def _parse_payload(facts: Facts, header: dict[str, Any], chunks: dict[str, bytes]) -> TokRecord:
    shape = tuple(header["shape"])
    if len(shape) not in (2, 3) or any(type(size) is not int or size < 0 for size in shape) or 0 in shape[2:]:
        raise ValueError(f"shape {reprlib.repr(shape)}")
    if header["extents"] not in (1, 2):
        raise ValueError(f"{reprlib.repr(header['extents'])} numbers per extent")
    batch, width = shape[:2]
    lengths = _array(chunks, "lengths", (batch,)).astype(np.int64)
    # A hostile header may claim a width that the payload does not bear out.
    if lengths.min(initial=0) < 0 or width != int(lengths.max(initial=0)):
        raise ValueError(f"width {width}, but the longest item has {lengths.max(initial=0)} tokens")
    if math.prod(max(size, 1) for size in shape) > MAX_VALUES:
        raise ValueError(f"shape {shape} holds more than {MAX_VALUES} values")
    total = int(lengths.sum())
    _check_size(shape, total)
    extents = _array(chunks, "extents", (batch, header["extents"])).astype(np.int64)
    if extents.min(initial=0) < 0:
        raise ValueError(f"extent {extents.min()}")
    if ("ids" in chunks) == ("floats" in chunks):
        raise ValueError("expected either ids or floats")
    if "ids" in chunks:
        sizes = _sizes_of(facts, shape)
        flat = _unpack(chunks["ids"], total, sizes).reshape(total, *shape[2:])
        _check_ids(flat, sizes)
    elif len(shape) == 3:
        flat = _array(chunks, "floats", (total, shape[2])).astype(np.float32)
    else:
        raise ValueError(f"floats of shape {shape}")
    per_token = {
        name: _padded(_array(chunks, name, (total,)).astype(np.int64), lengths, width)
        for name in ("positions", "durations")
        if name in chunks
    }
    captions = None
    if "captions" in chunks:
        captions = json.loads(chunks["captions"])
        if not isinstance(captions, list) or len(captions) != batch or {*map(type, captions)} - {str}:
            raise ValueError(f"captions are no list of {batch} strings")
        captions = tuple(captions)
    return TokRecord(
        facts=facts,
        values=_padded(flat, lengths, width),
        lengths=lengths,
        extents=extents,
        scales=_scales(chunks, batch, header["scales"]) if "scales" in chunks else None,
        captions=captions,
        **per_token,
    )


def _array(chunks: dict[str, bytes], name: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(_CHUNK_TYPES[name])
    count = math.prod(shape)
    if count * kind.itemsize != len(chunks[name]):
        raise ValueError(f"chunk {name} has {len(chunks[name])} bytes, expected {count * kind.itemsize}")
    return np.frombuffer(chunks[name], kind).reshape(shape)


def _scales(chunks: dict[str, bytes], batch: int, width: object) -> np.ndarray:
    if type(width) is not int or not 0 <= width <= MAX_VALUES:
        raise ValueError(f"{reprlib.repr(width)} scales an item")
    return _array(chunks, "scales", (batch, width)).astype(np.float32)


def _check_size(shape: tuple[int, ...], tokens: int) -> None:
    """ValueError for more values than a reader accepts; `tokens` of them are not padding."""
    count = math.prod(shape)
    if count > MAX_VALUES:
        raise ValueError(f"shape {shape} holds more than {MAX_VALUES} values; split the batch")
    if count > max(MAX_SPARSE_VALUES, MAX_SPARSITY * tokens * math.prod(shape[2:])):
        raise ValueError(f"shape {shape} is nearly all padding; split the batch into items of like length")


def _sizes_of(facts: Facts, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the codebooks present in ids of this shape."""
    depth = shape[2] if len(shape) == 3 else 1
    if not 1 <= depth <= len(facts.codebook_sizes):
        raise ValueError(f"ids of {depth} codebooks, the facts name {len(facts.codebook_sizes)}")
    return facts.codebook_sizes[:depth]


def _check_ids(ids: np.ndarray, sizes: tuple[int, ...]) -> None:
    if ((ids < 0) | (ids >= np.asarray(sizes if ids.ndim == 2 else sizes[0], np.int64))).any():
        raise ValueError("an id lies outside its codebook")


def _ragged(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(B, N, ...) to (sum of lengths, ...): the real positions, item after item."""
    return values[np.arange(values.shape[1]) < lengths[:, None]]


def _padded(flat: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """The inverse of `_ragged`, with 0 beyond each length."""
    values = np.zeros((len(lengths), width, *flat.shape[1:]), flat.dtype)
    values[np.arange(width) < lengths[:, None]] = flat
    return values


def _pack(ids: np.ndarray, sizes: tuple[int, ...]) -> bytes:
    """Ids (T, Q) to bytes, most significant bit first, `id_bits` of each codebook's size."""
    blocks = []
    for start in range(0, len(ids), _BLOCK):
        columns = [
            (column[:, None] >> _shifts(size) & 1).astype(np.uint8)
            for column, size in zip(ids[start : start + _BLOCK].T, sizes, strict=True)
        ]
        blocks.append(np.packbits(np.concatenate(columns, axis=1)).tobytes())
    return b"".join(blocks)


def _unpack(blob: bytes, tokens: int, sizes: tuple[int, ...]) -> np.ndarray:
    """Bytes to ids (T, Q)."""
    if len(blob) != payload_bytes(tokens, sizes):
        raise ValueError(f"{len(blob)} bytes of ids, expected {payload_bytes(tokens, sizes)}")
    bits_per_token = sum(map(id_bits, sizes))
    packed = np.frombuffer(blob, np.uint8)
    ids = np.zeros((tokens, len(sizes)), np.int64)
    for start in range(0, tokens, _BLOCK):
        count = min(_BLOCK, tokens - start)
        bits = np.unpackbits(packed[start * bits_per_token // 8 :], count=count * bits_per_token)
        bits = bits.reshape(count, bits_per_token)
        place = 0
        for q, size in enumerate(sizes):
            shifts = _shifts(size)
            ids[start : start + count, q] = bits[:, place : place + len(shifts)] @ (1 << shifts)
            place += len(shifts)
    return ids


def _shifts(size: int) -> np.ndarray:
    return np.arange(id_bits(size) - 1, -1, -1, dtype=np.int64)
