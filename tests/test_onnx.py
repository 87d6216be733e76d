"""ONNX files are read without the onnx package, and a hostile one costs no more than its own size."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokenzoo.checkpoints import onnx
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.onnx import Onnx, OnnxGraph, read_graph, read_onnx

from .onnx_writer import constant, message, model, node, number, single, tensor, varint

MATRIX = torch.arange(6.0).reshape(2, 3)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "tokenzoo" / "onnx"


def graph_of(content: bytes, folder: Path) -> OnnxGraph:
    (folder / "x.onnx").write_bytes(content)
    return read_graph(folder / "x.onnx")


def in_graph(*tensors: bytes) -> bytes:
    return message(7, b"".join(message(5, each) for each in tensors))


def test_nodes_and_tensors(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "/layer/MatMul", ("x", "weight"), ("y",)),
        node(
            "LayerNormalization", "/norm", ("y", "a", "b"), ("z",), (message(1, "epsilon") + single(2, 1e-6),)
        ),
        constant("bias", MATRIX[0]),
        node("Identity", "again", ("weight",), ("weight_again",)),
    ]
    graph = graph_of(model(nodes, {"weight": MATRIX, "shape": torch.tensor([1, -1])}), tmp_path)
    assert [(each.operator, each.name) for each in graph.nodes[:2]] == [
        ("MatMul", "/layer/MatMul"),
        ("LayerNormalization", "/norm"),
    ]
    assert graph.nodes[1].inputs == ("y", "a", "b") and graph.nodes[1].outputs == ("z",)
    assert graph.nodes[1].floats == {"epsilon": pytest.approx(1e-6)}
    assert sorted(graph.tensors) == ["bias", "weight", "weight_again"]  # integers are no weights
    assert torch.equal(graph.tensors["weight"], MATRIX) and torch.equal(graph.tensors["bias"], MATRIX[0])
    assert torch.equal(graph.tensors["weight_again"], MATRIX)


@pytest.mark.parametrize(
    "stored",
    [
        tensor("w", MATRIX, packed_dims=True),
        tensor("w", MATRIX, raw=False),
        tensor("w", MATRIX.double(), raw=False),
        tensor("w", MATRIX.half()),
        tensor("w", MATRIX) + number(99, 5) + message(98, "of a later version"),
    ],
)
def test_ways_to_store_a_tensor(stored: bytes, tmp_path: Path) -> None:
    assert torch.equal(graph_of(in_graph(stored), tmp_path).tensors["w"].float(), MATRIX)


def test_tensors_without_elements_and_without_axes(tmp_path: Path) -> None:
    found = graph_of(in_graph(tensor("a", torch.zeros(0, 3)), tensor("b", torch.tensor(2.0))), tmp_path)
    assert found.tensors["a"].shape == (0, 3) and found.tensors["b"] == 2


BIG = 1 << 62
HOSTILE: list[tuple[bytes, str]] = [
    (b"", "cannot mmap an empty file"),
    (b"\x80\x02}q\x00.", "wire type|ends inside|are left"),
    (b"<html>not found</html>", "wire type|are left"),
    (number(1, 8), "0 graphs, expected one"),
    (in_graph() + in_graph(), "2 graphs, expected one"),
    (number(7, 1), "the integer 1 where bytes belong"),
    (message(7, number(5, 1)), "the integer 1 where bytes belong"),
    (varint(7 << 3 | 2) + varint(BIG) + b"x", rf"a field of {BIG} bytes where 1 are left"),
    (b"\x80" * 30, "an integer of more than 10 bytes"),
    (b"\x80", "it ends inside an integer"),
    (varint(7 << 3 | 3), "wire type 3"),
    (in_graph(number(1, BIG) + number(2, 1) + message(8, "w") + message(9, b"abcd")), "has 4 bytes, not"),
    (in_graph(number(1, BIG) * 20 + number(2, 1) + message(8, "w")), "tensor 'w' of shape"),
    (in_graph(number(1, 0) * 20 + number(2, 1) + message(8, "w")), "tensor 'w' of shape"),
    (in_graph(number(1, 3) + number(2, 1) + message(8, "w") + number(14, 1)), "'w' is in pieces, or in"),
    (in_graph(tensor("w", MATRIX) + message(13, "location")), "'w' is in pieces, or in another file"),
    (in_graph(message(1, b"\1" * 1000) + number(2, 1)), "a tensor of more than 16 axes"),
    (in_graph(number(2, 1) + message(8, b"\xff\xfe")), "can't decode byte"),
    (message(7, message(1, message(5, message(2, b"ab")))), "unpack requires"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), HOSTILE)
def test_what_is_no_onnx_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"file x\.onnx: not a readable ONNX file \(.*({reason})"):
        graph_of(content, tmp_path)


def test_a_message_of_endless_fields_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx, "MAX_FIELDS", 100)
    assert not graph_of(message(7, message(2, "") * 99), tmp_path).tensors
    for content in (message(2, "") * 100, message(1, message(1, "") * 50) * 2):
        with pytest.raises(CheckpointError, match="more than 100 fields"):
            graph_of(message(7, content), tmp_path)


def test_damage_anywhere_raises_one_error_and_allocates_little(tmp_path: Path) -> None:
    whole = model([node("Add", "/a", ("x", "w"), ("y",)), constant("c", MATRIX)], {"w": MATRIX})
    chance = random.Random(0)
    tracemalloc.start()
    for place in range(len(whole)):
        for damaged in (whole[:place], whole[:place] + bytes([chance.randrange(256)]) + whole[place + 1 :]):
            try:
                graph_of(damaged, tmp_path)
            except CheckpointError:
                continue
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_it_is_read_once(cache: Path, tmp_path: Path) -> None:
    asked: list[OnnxGraph] = []

    def named(graph: OnnxGraph) -> dict[str, Tensor]:
        asked.append(graph)
        return {"codes": graph.tensors["w"].t()}

    path = tmp_path / "x.onnx"
    path.write_bytes(in_graph(tensor("w", MATRIX)))
    for _ in range(2):
        assert torch.equal(read_onnx(path, Onnx("x.onnx", named))["codes"], MATRIX.t())
    assert len(asked) == 1 and len(list(cache.iterdir())) == 1
    read_onnx(path, Onnx("x.onnx", named, version=2))
    assert len(asked) == 2
    for copy in cache.iterdir():
        copy.write_bytes(b"damaged")
    assert torch.equal(read_onnx(path, Onnx("x.onnx", named))["codes"], MATRIX.t())
    assert len(asked) == 3
    with pytest.raises(CheckpointError, match=r"file y\.onnx: no such file; check the name, or download"):
        read_onnx(tmp_path / "y.onnx", Onnx("y.onnx", named))


def test_importing_the_reader_does_not_import_onnx() -> None:
    named: Callable[..., object] = read_graph
    assert named.__module__ == "tokenzoo.checkpoints.onnx" and not hasattr(onnx, "load")
