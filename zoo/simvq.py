"""SimVQ (Zhu et al. 2024, arXiv 2411.02038): a frozen random codebook seen through one learned linear map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.precision import working_dtype
from .codebook_quantizer import CodebookQuantizer


@dataclass(frozen=True, eq=False)
class _Folded:
    """The codes of weights in this state; the weights are held, so no others can come to their addresses."""

    state: list[tuple[int, int, torch.dtype]]
    weights: list[Tensor]
    codes: Tensor


class SimVQ(CodebookQuantizer):
    """One id per latent: the nearest of `num_codes` vectors that are the linear images of frozen ones.

    A step moves all codes, used or not, so none dies.

    dim                width of latents and codes
    dim_base           width of the frozen vectors, default `dim`
    bias               the map has one: official code yes, vector-quantize-pytorch no
    commitment_weight  weight of the term that pulls latents towards their codes
    rotation           gradients to the latents by the rotation trick, not straight through

    State: `base` (K, dim_base) frozen, `projection.weight` and `.bias`.
    Source: youngsheen/SimVQ, taming/modules/vqvae/quantize.py.
    """

    base: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        dim_base: int | None = None,
        bias: bool = True,
        commitment_weight: float = 0.25,
        rotation: bool = False,
    ) -> None:
        super().__init__(num_codes, dim, commitment_weight=commitment_weight, rotation=rotation)
        dim_base = dim if dim_base is None else dim_base
        if dim_base < 1:
            raise ValueError(f"dim_base={dim_base}: expected at least 1")
        self.register_buffer("base", torch.randn(num_codes, dim_base) * dim_base**-0.5)
        self.projection = nn.Linear(dim_base, dim, bias=bias)
        self._folded: _Folded | None = None

    def _codes(self) -> Tensor:
        """The image of the base; without gradients it is kept until a weight changes."""
        weights = [weight.detach() for weight in (self.base, *self.projection.parameters())]
        untracked = torch.compiler.is_compiling() or any(weight.is_inference() for weight in weights)
        if torch.is_grad_enabled() or untracked:
            return self._project()
        state = [(weight.data_ptr(), weight._version, weight.dtype) for weight in weights]
        if self._folded is None or self._folded.state != state:
            self._folded = _Folded(state, weights, self._project())
        return self._folded.codes

    def _project(self) -> Tensor:
        weight, bias = self.projection.weight, self.projection.bias
        dtype = working_dtype(self.base, weight)
        return F.linear(self.base.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))

    def _learn(self, latents: Tensor, ids: Tensor, usage: Tensor) -> None:
        """Nothing: the optimizer moves the map, and the map all codes."""
