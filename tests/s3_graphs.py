"""ONNX graphs named like the released S3 tokenizers: what torch's exporter makes of those modules.

v1 has its norms in parts, the codebook transposed into a Pow, and the table of positions; v2 has fused norms,
and project_in; v3 has norms in parts, and may hold a bias in a Constant. Checked once against what
torch.onnx.export makes of the s3tokenizer package's modules.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .onnx_writer import constant, message, model, node, single

_LINEARS = {
    "attn/query": "attn.query",
    "attn/key": "attn.key",
    "attn/value": "attn.value",
    "attn/out": "attn.out",
    "mlp/mlp.0": "mlp.0",
    "mlp/mlp.2": "mlp.2",
}


class _Writer:
    """Nodes and initialisers, the latter under made-up numbers as the exporter gives them."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.initialisers: dict[str, Tensor] = {"onnx::Slice_7": torch.tensor([0, 1])}

    def kept(self, name: str, values: Tensor) -> str:
        self.initialisers[name] = values
        return name

    def made(self, operator: str, values: Tensor) -> str:
        return self.kept(f"onnx::{operator}_{1500 + len(self.initialisers)}", values)

    def add(self, operator: str, name: str, *inputs: str, epsilon: float | None = None) -> None:
        stated = () if epsilon is None else (message(1, "epsilon") + single(2, epsilon),)
        self.nodes.append(node(operator, name, ("hidden", *inputs), (f"{name}_output_0",), stated))


def s3_graph(weights: dict[str, Tensor], version: str, *, epsilon: float = 1e-5) -> bytes:
    """An ONNX file that holds these weights, named as by the s3tokenizer package."""
    writer = _Writer()
    for place in (1, 2):
        kernel, bias = (weights[f"encoder.conv{place}.{part}"] for part in ("weight", "bias"))
        name = f"/conv{place}/Conv" if version == "v3" else f"/Conv_{place}"
        writer.add("Conv", name, writer.made("Conv", kernel), writer.made("Conv", bias))
    if version == "v1":
        table = weights["encoder.positional_embedding"]
        writer.add("Slice", "/Slice", writer.kept("encoders.positional_embedding", table))
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.blocks."))
    for layer in range(layers):
        part = {
            name.removeprefix(f"encoder.blocks.{layer}."): values
            for name, values in weights.items()
            if name.startswith(f"encoder.blocks.{layer}.")
        }
        _block(writer, f"/blocks.{layer}", part, fused=version == "v2", epsilon=epsilon)
    _quantizer(writer, weights, version)
    return model(writer.nodes, writer.initialisers)


def _block(writer: _Writer, path: str, weights: dict[str, Tensor], *, fused: bool, epsilon: float) -> None:
    for norm in ("attn_ln", "mlp_ln"):
        scale, bias = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
        if fused:
            names = writer.made("LN", scale), writer.made("LN", bias)
            stated = epsilon if norm == "attn_ln" else None
            writer.add("LayerNormalization", f"{path}/{norm}/LayerNormalization", *names, epsilon=stated)
            continue
        writer.nodes.append(constant(f"{path}/{norm}/Constant_1_output_0", torch.tensor(epsilon)))
        writer.add("Add", f"{path}/{norm}/Add", f"{path}/{norm}/Constant_1_output_0")
        writer.add("Mul", f"{path}/{norm}/Mul", writer.made("Mul", scale))
        writer.nodes.append(constant(f"{path}/{norm}/bias_output_0", bias))
        writer.add("Add", f"{path}/{norm}/Add_1", f"{path}/{norm}/bias_output_0")
    for module, name in _LINEARS.items():
        matrix = writer.made("MatMul", weights[f"{name}.weight"].t())
        writer.add("MatMul", f"{path}/{module}/MatMul", matrix)
        if f"{name}.bias" in weights:
            writer.add("Add", f"{path}/{module}/Add", writer.made("Add", weights[f"{name}.bias"]))
    writer.nodes.append(constant(f"{path}/half", torch.tensor(0.5)))
    writer.add("Mul", f"{path}/mlp/mlp.1/Mul_1", f"{path}/half")
    writer.add("Add", f"{path}/Add")
    if "attn.fsmn_block.weight" in weights:
        kernel = writer.kept(f"{path[1:]}.attn.fsmn_block.weight", weights["attn.fsmn_block.weight"])
        writer.add("Conv", f"{path}/attn/fsmn_block/Conv", kernel)


def _quantizer(writer: _Writer, weights: dict[str, Tensor], version: str) -> None:
    if version == "v1":
        path = "/quantizer/rq/model/layers.0/_codebook"
        codes = writer.made("MatMul", weights["quantizer._codebook.embed"].t())
        writer.nodes.append(constant(f"{path}/two", torch.tensor(2.0)))
        writer.add("Pow", f"{path}/Pow", f"{path}/two")
        writer.add("MatMul", f"{path}/MatMul", codes)
        writer.nodes.append(node("Pow", f"{path}/Pow_1", (codes, f"{path}/two"), ("squares",)))
        return
    name = "quantizer._codebook.project_down"
    writer.add("MatMul", "/quantizer/project_in/MatMul", writer.made("MatMul", weights[f"{name}.weight"].t()))
    bias = writer.kept("quantizer.project_in.bias", weights[f"{name}.bias"])
    writer.add("Add", "/quantizer/project_in/Add", bias)
