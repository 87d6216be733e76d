"""Dual quantization: meaning and sound have a latent each; what the first says is taken off the other."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .quantizer import Quantizer
from .split_quantizer import SplitQuantizer


class DualQuantizer(SplitQuantizer):
    """As `SplitQuantizer`, of two latents that lie side by side: (..., D + D) -> (..., D).

    subtracts  `rest` sees its latent less what `first` gave, so it need not say that again

    Source: kakao/lmspt, model_codec/quantization/rvq.py (DualResidualVectorQuantize, semantic_subtraction).
    """

    def __init__(
        self,
        first: Quantizer,
        rest: Quantizer,
        *,
        subtracts: bool = True,
        roles: tuple[str, str] = ("semantic", "acoustic"),
    ) -> None:
        super().__init__(first, rest, roles=roles)
        if first.dim_in != first.dim_out:
            raise ValueError(
                f"first of width {first.dim_in} -> {first.dim_out}: expected the same, as it is subtracted"
            )
        self.subtracts = subtracts
        self.dim_in = first.dim_in + rest.dim_in

    def _for_first(self, latents: Tensor) -> Tensor:
        return latents[..., : self.first.dim_in]

    def _for_rest(self, latents: Tensor, decoded: Callable[[], Tensor]) -> Tensor:
        own = latents[..., self.first.dim_in :]
        if not self.subtracts:
            return own
        first = decoded()
        return own.to(first.dtype) - first
