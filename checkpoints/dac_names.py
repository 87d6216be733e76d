"""Tensor names that the official files of DAC and SNAC share; ours are those of `audio/dac_parts.py`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .renames import Renames
from .weight_norm import fold_weight_norm

# Official name, weight norm folded | ours, innermost layers first.
NETWORKS: Renames = (
    ("encoder.block.*.block.*.block.*.*", "encoder.*.*.*.*"),
    ("encoder.block.*.block.*.*", "encoder.*.*.*"),
    ("encoder.block.*.*", "encoder.*.*"),
    ("decoder.model.*.block.*.block.*.*", "decoder.*.*.*.*"),
    ("decoder.model.*.block.*.*", "decoder.*.*.*"),
    ("decoder.model.*.*", "decoder.*.*"),
)
# The first tensors of the parts. One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "encoder.block.0.weight",
        "encoder.block.1.block.0.block.1.weight",
        "decoder.model.0.weight",
        "quantizer.quantizers.0.in_proj.weight",
    }
)
_PROJECTIONS = (".in_proj.weight", ".out_proj.weight")


def codebooks(level: str) -> Renames:
    """The names of a level of the quantizer, where ours is at `level`, with a star for its number."""
    return (
        ("quantizer.quantizers.*.in_proj.*", f"{level}.project_in.*"),
        ("quantizer.quantizers.*.out_proj.*", f"{level}.project_out.*"),
        ("quantizer.quantizers.*.codebook.weight", f"{level}.inner.codebook"),
    )


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight norm joined; the projections of the quantizer, convolutions of one sample, as linear maps."""
    return {name: _as_linear(name, tensor) for name, tensor in fold_weight_norm(tensors).items()}


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    is_conv = name.endswith(_PROJECTIONS) and tensor.ndim == 3 and tensor.shape[2] == 1
    return tensor.squeeze(2) if is_conv else tensor
