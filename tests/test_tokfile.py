"""The .tok container: everything comes back, nothing damaged or hostile comes through."""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo import Facts, Tokens
from tokenzoo.zoo import tokfile
from tokenzoo.zoo.tokfile import TokFileError, TokRecord, from_bytes, to_bytes

FACTS = Facts(name="levels", modality="audio", codebook_sizes=(4, 16, 3), nested="codebooks", licence="MIT")


def random_ids(generator: np.random.Generator, shape: tuple[int, int], sizes: tuple[int, ...]) -> np.ndarray:
    """Ids (B, N, Q) that hit both ends of every codebook."""
    columns = []
    for size in sizes:
        column = generator.integers(0, size, shape)
        columns.append(np.where(generator.random(shape) < 0.2, size - 1, column))
    return np.stack(columns, axis=-1).astype(np.int64)


@st.composite
def records(draw: st.DrawFn) -> TokRecord:
    """Any batch: discrete or continuous, any codebooks, ragged, with or without each side information."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    lengths = np.array(draw(st.lists(st.integers(0, 7), max_size=5)), np.int64)
    batch, width = len(lengths), int(lengths.max(initial=0))
    real = np.arange(width) < lengths[:, None]
    edges = st.sampled_from([1, 2, 3, 255, 256, 257, 4096, 2**18, 2**18 + 1, 2**31, 2**40 - 1, 2**62])
    sizes = tuple(draw(st.lists(st.integers(1, 70_000) | edges, min_size=1, max_size=5)))
    is_discrete = draw(st.booleans())
    if is_discrete:
        present = draw(st.integers(1, len(sizes)))
        values = random_ids(generator, (batch, width), sizes[:present]) * real[..., None]
        values = values[..., 0] if present == 1 and draw(st.booleans()) else values
    else:
        sizes, dim = (), draw(st.integers(1, 4))
        values = generator.standard_normal((batch, width, dim)).astype(np.float32) * real[..., None]
    coin = [draw(st.booleans()) for _ in range(4)]
    return TokRecord(
        facts=Facts(
            name=draw(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=5)),
            modality="image",
            codebook_sizes=sizes,
        ),
        values=values,
        lengths=lengths,
        extents=generator.integers(0, 2**40, (batch, draw(st.sampled_from([1, 2])))),
        positions=generator.integers(0, 2**32, (batch, width)) * real if coin[0] else None,
        durations=generator.integers(0, 2**32, (batch, width)) * real if coin[1] else None,
        scales=generator.random((batch, draw(st.integers(0, 3)))).astype(np.float32) if coin[2] else None,
        captions=tuple(draw(st.text(max_size=4)) for _ in range(batch)) if coin[3] else None,
    )


def assert_same(left: TokRecord, right: TokRecord) -> None:
    assert left.facts == right.facts and left.captions == right.captions
    for name in ("values", "lengths", "extents", "positions", "durations", "scales"):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, name
            assert np.array_equal(ours, theirs), name


@given(records())
@settings(max_examples=200)
def test_everything_comes_back(record: TokRecord) -> None:
    assert_same(from_bytes(to_bytes(record)), record)


def test_ids_are_packed_at_their_true_width() -> None:
    sizes = (1, 2, 3, 4, 5, 4096, 2**18, 2**18 + 1)
    assert [tokfile.id_bits(size) for size in sizes] == [1, 1, 2, 2, 3, 12, 18, 19]
    assert tokfile.payload_bytes(100, (4096,)) == 150
    assert tokfile.payload_bytes(3, (2, 3)) == 2
    assert tokfile.payload_bytes(0, (2,)) == 0
    small, large = (to_bytes(record_of([[0] * count])) for count in (256, 256 + 80))
    assert len(large) - len(small) in range(78, 83)  # 80 more ids of 8 bits; the header may change by a byte


def test_the_layout_is_the_documented_one() -> None:
    record = TokRecord(
        facts=Facts(name="x", modality="image", codebook_sizes=(3, 16)),
        values=np.array([[[2, 9], [1, 15]], [[0, 4], [0, 0]]]),
        lengths=np.array([2, 1]),
        extents=np.array([[5, 6], [7, 8]]),
        captions=("ä", ""),
    )
    blob = to_bytes(record)
    magic, version, size = struct.unpack_from("<4sHI", blob)
    header = json.loads(zlib.decompress(blob[10 : 10 + size]))
    assert (magic, version) == (b"\x89TOK", 1)
    assert header == {
        "facts": {"name": "x", "modality": "image", "codebook_sizes": [3, 16]},
        "shape": [2, 2, 2],
        "extents": 2,
        "chunks": [["lengths", 16], ["extents", 32], ["ids", 3], ["captions", 10]],
    }
    payload = blob[10 + size : -4]
    assert payload[:48] == struct.pack("<6q", 2, 1, 5, 6, 7, 8)
    assert payload[48:51] == int("101001011111000100000000", 2).to_bytes(3, "big")
    assert payload[51:] == '["ä", ""]'.encode()
    assert struct.unpack("<I", blob[-4:])[0] == zlib.crc32(blob[:-4])


def record_of(rows: list[list[int]], facts: Facts | None = None) -> TokRecord:
    values = np.array(rows, np.int64)
    facts = facts or Facts(name="x", modality="image", codebook_sizes=(256,))
    lengths = np.full(len(rows), values.shape[1])
    return TokRecord(facts, values, lengths, np.ones((len(rows), 1), np.int64))


def test_padding_is_not_written() -> None:
    record = record_of([[1, 2, 7, 7], [3, 7, 7, 7]])
    padded = replace(record, lengths=np.array([2, 1]), positions=np.full((2, 4), 2**40))
    padded.positions[:, :2] = 5  # pyright: ignore[reportOptionalSubscript]
    back = from_bytes(to_bytes(padded))
    assert back.values.tolist() == [[1, 2], [3, 0]]
    assert back.positions is not None and back.positions.tolist() == [[5, 5], [5, 0]]


def test_blocks_of_a_long_item_join() -> None:
    sizes = (3, 2**18, 2)
    values = random_ids(np.random.default_rng(0), (1, 2 * tokfile._BLOCK + 5), sizes)
    record = TokRecord(
        Facts(name="x", modality="image", codebook_sizes=sizes),
        values,
        np.array([values.shape[1]]),
        np.ones((1, 2), np.int64),
    )
    blob = to_bytes(record)
    assert np.array_equal(from_bytes(blob).values, values)
    assert len(blob) < tokfile.payload_bytes(values.shape[1], sizes) + 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.array([[256]])}, "an id lies outside its codebook"),
        ({"values": np.array([[-1]])}, "an id lies outside its codebook"),
        ({"values": np.zeros((1, 1, 2), np.int64)}, "ids of 2 codebooks, the facts name 1"),
        ({"facts": Facts(name="x", modality="image")}, "ids of 1 codebooks, the facts name 0"),
        ({"positions": np.array([[-1]])}, r"positions outside 0 \.\.\. 2\*\*32 - 1"),
        ({"durations": np.array([[2**32]])}, "durations outside"),
        ({"captions": ("\ud800",)}, "surrogates not allowed"),
        ({"facts": Facts(name="x" * 2**20, modality="image", codebook_sizes=(256,))}, "the facts take 10"),
    ],
)
def test_what_could_not_be_read_is_not_written(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_bytes(replace(record_of([[0]]), **change))


def test_a_batch_of_padding_is_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.zeros(3000, np.int64)
    lengths[0] = 9000
    values = np.zeros((3000, 9000), np.int8)
    record = replace(record_of([[0]]), values=values, lengths=lengths, extents=np.ones((3000, 1), np.int64))
    with pytest.raises(ValueError, match=r"shape \(3000, 9000\) is nearly all padding; split the batch"):
        to_bytes(record)
    monkeypatch.setattr(tokfile, "MAX_SPARSE_VALUES", 1 << 40)
    blob = to_bytes(record)
    monkeypatch.undo()
    with pytest.raises(TokFileError, match="nearly all padding"):
        from_bytes(blob)
    monkeypatch.setattr(tokfile, "MAX_VALUES", 8)
    with pytest.raises(ValueError, match="holds more than 8 values; split the batch"):
        to_bytes(record_of([[0] * 9]))


def sample() -> bytes:
    """A small file with every chunk that ids can have beside them."""
    values = random_ids(np.random.default_rng(1), (2, 3), FACTS.codebook_sizes)
    return to_bytes(
        TokRecord(
            facts=FACTS,
            values=values,
            lengths=np.array([3, 1]),
            extents=np.array([[30], [10]]),
            positions=np.arange(6).reshape(2, 3),
            durations=np.ones((2, 3), np.int64),
            scales=np.ones((2, 2), np.float32),
            captions=("one", "two"),
        )
    )


def test_every_flipped_byte_is_noticed() -> None:
    blob = sample()
    from_bytes(blob)
    for place in range(len(blob)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(blob)
            damaged[place] ^= change
            with pytest.raises(TokFileError):
                from_bytes(bytes(damaged))


def test_every_flipped_byte_under_a_valid_checksum_is_refused_or_harmless(tmp_path: Path) -> None:
    blob = sample()
    path = tmp_path / "x.tok"
    for place in range(len(blob) - 4):
        for change in (0x01, 0x40, 0xFF):
            damaged = bytearray(blob[:-4])
            damaged[place] ^= change
            path.write_bytes(damaged + struct.pack("<I", zlib.crc32(damaged)))
            try:
                tokens = Tokens.load(path)
            except TokFileError:
                continue
            assert tokens.values.shape == (2, 3, 3) and tokens.unbind()[1].bits >= 0


def test_every_truncation_is_noticed() -> None:
    blob = sample()
    for length in range(len(blob)):
        with pytest.raises(TokFileError):
            from_bytes(blob[:length])
    with pytest.raises(TokFileError, match="checksum does not match"):
        from_bytes(blob + b"\0")


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.tok"
    for blob, message in (
        (b"\x89PNG\r\n", r"x\.tok: not a \.tok file \(it starts with b'\\x89PNG', expected b'\\x89TOK'\)"),
        (b"", "not a .tok file"),
        (sample()[:12], "truncated after 12 bytes; copy the file again"),
        (sample()[:-1], "checksum does not match; the file is truncated or damaged"),
        (b"\x89TOK" + struct.pack("<H", 2) + sample()[6:], "version 2, this tokenzoo reads up to 1; upgrade"),
        (b"\x89TOK" + struct.pack("<H", 0) + sample()[6:], "version 0 does not exist"),
    ):
        path.write_bytes(blob)
        for read in (tokfile.read_record, tokfile.read_facts, Tokens.load):
            with pytest.raises(TokFileError, match=message):
                read(path)


def forged(change: Callable[[dict[str, Any]], Any], payload: bytes | None = None) -> bytes:
    """The sample with another header, and a checksum that fits."""
    blob = sample()
    size = struct.unpack_from("<I", blob, 6)[0]
    header = json.loads(zlib.decompress(blob[10 : 10 + size]))
    replaced = change(header)
    text = json.dumps(header if replaced is None else replaced).encode()
    packed = zlib.compress(text)
    body = b"\x89TOK" + struct.pack("<HI", 1, len(packed)) + packed
    body += blob[10 + size : -4] if payload is None else payload
    return body + struct.pack("<I", zlib.crc32(body))


def changed(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header.update(entries)


def of_chunks(**payload: bytes) -> tuple[list[list[Any]], bytes]:
    return [[name, len(blob)] for name, blob in payload.items()], b"".join(payload.values())


@pytest.mark.parametrize(
    "header",
    [
        *(
            {"shape": shape}
            for shape in ([2, 3], [2, 3, 2], [2, 3, 4], [2, 3, 0], [3, 3, 3], [2, 4, 3], [2, -3, 3])
        ),
        *({"shape": shape} for shape in ([2, 10**18, 3], [10**18, 3, 3], [2, 3, 10**18], [0, 10**18, 3])),
        *(
            {"shape": shape}
            for shape in ([2.0, 3, 3], [True, 3, 3], [], [2], [2, 3, 3, 1], 7, None, "23", {"2": 3})
        ),
        *({"extents": extents} for extents in (0, 2, 3, -1, 1.5, "1", None, [1], 10**30)),
        *({"scales": scales} for scales in (0, 1, 3, -2, 2.0, "2", None, 10**30)),
        *(
            {"chunks": chunks}
            for chunks in ([], {}, None, 3, [["ids"]], [[1, 2]], [[[], 1]], "ab", [["ids", -1]])
        ),
        {"chunks": [["lengths", 10**30]]},
        {"chunks": [["code", 1]]},
        {"facts": []},
        {"facts": ["name", "modality"]},
        {"facts": None},
        {"facts": {}},
        {"facts": {"name": "x", "modality": "image"}},
        {"facts": {"name": "x", "modality": "image", "codebook_sizes": [4, 16, 2**70]}},
        {"facts": {"name": "x", "modality": "image", "codebook_sizes": [4, 16, 1]}},
        {"facts": {"name": "x", "modality": "image", "codebook_sizes": [4, 16]}},
    ],
)
def test_a_header_that_lies_is_refused(header: dict[str, Any]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TokFileError):
            from_bytes(forged(changed(**header)))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("header", [[], 3, None, "x", {}, {"facts": 1}])
def test_a_header_that_is_none_is_refused(header: Any) -> None:
    replaced = forged(lambda _: header if header is not None else "null")
    with pytest.raises(TokFileError, match="the header cannot be read"):
        from_bytes(replaced)


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": struct.pack("<q", -1), "ids": b"\0"}),
        ([1, 2], {"lengths": struct.pack("<Q", 2**64 - 1), "extents": bytes(8), "ids": b"\0"}),
        ([1, 2], {"lengths": struct.pack("<Q", 1), "extents": bytes(8), "ids": b"\0"}),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "ids": b"\0", "floats": b""}),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "floats": bytes(8)}),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": bytes(8)}),
        ([1, 2], {"extents": bytes(8), "ids": b"\0"}),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "ids": b"\0"}),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "ids": b"\0", "positions": bytes(4)}),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "ids": b"\0", "captions": b"{}"}),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "ids": b"\0", "captions": b"[1]"}),
        (
            [1, 2],
            {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "ids": b"\0", "captions": b'{"a": 1}'},
        ),
        ([1, 2], {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "ids": b"\0", "captions": b"\xff"}),
        (
            [1, 2],
            {"lengths": struct.pack("<Q", 2), "extents": bytes(8), "ids": b"\0", "captions": b"[" * 99_999},
        ),
        ([1, 0, 2**40], {"lengths": bytes(8), "extents": bytes(8), "floats": b""}),
        ([0, 2**50], {"lengths": b"", "extents": b"", "ids": b""}),
        ([2**14, 2**14], {"lengths": struct.pack("<16384Q", 2**14, *[0] * 16383), "ids": bytes(4096)}),
    ],
)
def test_a_payload_that_lies_is_refused(shape: list[int], chunks: dict[str, bytes]) -> None:
    if len(shape) == 2 and shape[0] == 2**14:
        chunks = {**chunks, "extents": bytes(8 * 2**14)}
    listing, payload = of_chunks(**chunks)
    header = changed(shape=shape, chunks=listing, facts=FACTS.to_dict())
    tracemalloc.start()
    try:
        with pytest.raises(TokFileError):
            from_bytes(forged(header, payload))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_header_that_inflates_without_end_is_refused() -> None:
    packed = zlib.compress(b'{"facts": "' + b"a" * (64 << 20), 9)
    body = b"\x89TOK" + struct.pack("<HI", 1, len(packed)) + packed
    blob = body + struct.pack("<I", zlib.crc32(body))
    tracemalloc.start()
    try:
        with pytest.raises(TokFileError, match="header larger than 1048576 bytes"):
            from_bytes(blob)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    body = b"\x89TOK" + struct.pack("<HI", 1, 2**32 - 1) + packed
    with pytest.raises(TokFileError, match="the header claims 4294967295 bytes"):
        from_bytes(body + struct.pack("<I", zlib.crc32(body)))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["facts", "shape", "extents", "scales", "chunks"]), _json))
def test_any_header_raises_nothing_else(entries: dict[str, Any]) -> None:
    try:
        from_bytes(forged(changed(**entries)))
    except TokFileError:
        return
    assert entries.get("shape", [2, 3, 3]) == [2, 3, 3]


@given(records())
@settings(max_examples=50)
def test_tokens_come_back_from_a_file(tmp_path_factory: pytest.TempPathFactory, record: TokRecord) -> None:
    def tensor(array: np.ndarray | None) -> Any:
        return None if array is None else torch.from_numpy(array)

    names = ("values", "lengths", "extents", "positions", "durations", "scales")
    tokens = Tokens(
        facts=record.facts, captions=record.captions, **{n: tensor(getattr(record, n)) for n in names}
    )
    path = tmp_path_factory.mktemp("tok") / "x.tok"
    tokens.save(path)
    back = Tokens.load(path)
    assert back.identical(tokens) and back.facts == tokens.facts
    assert back.values.dtype == tokens.values.dtype
    for name in names:
        field = getattr(back, name)
        assert field is None or field.add_(1) is field  # writable: nothing warns, nothing is shared
    assert Tokens.load(path).identical(tokens)


def test_narrow_floats_come_back_as_they_were(tmp_path: Path) -> None:
    facts = Facts(name="x", modality="image", latent_dim=2)
    values = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    tokens = Tokens(values, torch.tensor([3]), torch.tensor([[4, 4]]), facts)
    tokens.save(tmp_path / "x.tok")
    assert Tokens.load(tmp_path / "x.tok").identical(tokens)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tok"
    tokfile.write_record(record_of([[1, 2]]), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="outside its codebook"):
        tokfile.write_record(record_of([[1, 999]]), path)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(os, "replace", full)
        tokfile.write_record(record_of([[3]]), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.tok"]
    tokfile.write_record(record_of([[3]]), path)
    assert tokfile.read_record(path).values.tolist() == [[3]]
    assert os.listdir(tmp_path) == ["x.tok"]


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    tokfile.write_record(record_of([[3]]), tmp_path / "x.tok")
    (tmp_path / "usual").touch()
    assert (tmp_path / "x.tok").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_facts_are_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "x.tok"
    path.write_bytes(sample())
    code = (
        "import sys; from tokenzoo.zoo.tokfile import read_facts, read_record; "
        f"facts = read_facts({str(path)!r}); record = read_record({str(path)!r}); "
        "print(facts.name, facts.codebook_sizes, record.captions, 'torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.strip() == "levels (4, 16, 3) ('one', 'two') False"
    assert tokfile.read_facts(path) == FACTS
