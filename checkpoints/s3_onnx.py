"""The weights of the released S3 tokenizers: from the nodes of their ONNX graphs to a state dict.

An exporter keeps the name of a weight that it leaves alone, and makes one up for any that it transposes; the
nodes keep the path of the module. So a weight is found by the node that takes it. The names are those of the
s3tokenizer package, whose `onnx2torch` maps the same graphs. No released file was at hand: the mapping is
tested with graphs that are named like them, and what is not found the strict load reports.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from .onnx import OnnxGraph, OnnxNode

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"/blocks\.(\d+)/(.+)/[^/]+")
_MODULES = frozenset(
    {
        *(f"attn.{part}" for part in ("query", "key", "value", "out", "fsmn_block")),
        *("attn_ln", "mlp_ln", "mlp.0", "mlp.2"),
    }
)
_PROJECT_BIAS = "quantizer.project_in.bias"
_PROJECT = "quantizer._codebook.project_down"
# Of the norms in the s3tokenizer package, and in our configurations.
NORM_EPS = 1e-5


def from_onnx(graph: OnnxGraph) -> dict[str, Tensor]:
    """The state dict, by the names of the s3tokenizer package, in a released graph of v1, v2 or v3.

    Warns when the file states another epsilon for its norms than the package has.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in graph.tensors.items():
        if name == "encoders.positional_embedding" or name.endswith("fsmn_block.weight"):
            found[f"encoder.{name.removeprefix('encoders.')}"] = tensor
        elif name == _PROJECT_BIAS:
            found[f"{_PROJECT}.bias"] = tensor
    convolutions = 0
    for node in graph.nodes:
        block = _BLOCK.fullmatch(node.name)
        if block:
            found |= _of_block(node, block[1], block[2].replace("/", ".").replace("mlp.mlp.", "mlp."), graph)
        elif node.operator == "Conv":
            # The graph is in order: the first convolution feeds the second.
            convolutions += 1
            found |= _named(f"encoder.conv{convolutions}", graph, node.inputs[1:2], node.inputs[2:3])
        else:
            found |= _of_quantizer(node, graph)
    return found


def _of_block(node: OnnxNode, index: str, module: str, graph: OnnxGraph) -> dict[str, Tensor]:
    """What a node inside a transformer block takes."""
    name = f"encoder.blocks.{index}.{module}"
    if module not in _MODULES:
        return {}
    if node.operator == "LayerNormalization":
        _check_epsilon(name, node.floats.get("epsilon", NORM_EPS))
        return _named(name, graph, node.inputs[1:2], node.inputs[2:3])
    if node.operator == "Conv":
        return _named(name, graph, node.inputs[1:2], ())
    operands = [graph.tensors[each] for each in node.inputs if each in graph.tensors]
    # The epsilon of a norm in parts and the constants of GELU are scalars.
    operands = [tensor for tensor in operands if tensor.numel() > 1]
    if node.operator == "MatMul":
        return {f"{name}.weight": tensor.t() for tensor in operands if tensor.ndim == 2}
    part = {"Mul": "weight", "Add": "bias"}.get(node.operator)
    return {f"{name}.{part}": tensor for tensor in operands if part and tensor.ndim == 1}


def _of_quantizer(node: OnnxNode, graph: OnnxGraph) -> dict[str, Tensor]:
    """The codebook of v1, which is squared for the distances, or the projection of v2 and v3."""
    matrices = [graph.tensors[each] for each in node.inputs if each in graph.tensors]
    matrices = [tensor for tensor in matrices if tensor.ndim == 2]
    bias = graph.tensors.get(_PROJECT_BIAS)
    if bias is None:
        name = "quantizer._codebook.embed"
        matrices = matrices if node.operator == "Pow" and "quantizer" in node.name else []
    else:
        name = f"{_PROJECT}.weight"
        matrices = [m for m in matrices if node.operator == "MatMul" and m.shape[1] == bias.numel()]
    return {name: matrices[0].t()} if matrices else {}


def _named(name: str, graph: OnnxGraph, weight: tuple[str, ...], bias: tuple[str, ...]) -> dict[str, Tensor]:
    pairs = (*((f"{name}.weight", each) for each in weight), *((f"{name}.bias", each) for each in bias))
    return {part: graph.tensors[each] for part, each in pairs if each in graph.tensors}


def _check_epsilon(name: str, epsilon: float) -> None:
    if abs(epsilon - NORM_EPS) > 1e-3 * NORM_EPS:
        warnings.warn(
            f"{name} has epsilon {epsilon:.1e} in this file, and {NORM_EPS:.1e} here, as in s3tokenizer "
            "0.3.0: a few ids will differ; set norm_eps in the configuration",
            stacklevel=2,
        )
