"""Binary spherical quantization (Zhao et al. 2024, arXiv 2406.07548)."""

from __future__ import annotations

from .lfq import LookupFreeQuantizer


class BinarySphericalQuantizer(LookupFreeQuantizer):
    """Signs of latents on the unit sphere: codes are the corners 1 / sqrt(dim) * {-1, 1}^dim.

    dim                    D, number of bits, at most 62
    commitment_weight      beta: of the squared distance to the code, summed over features, mean over rows
    sample_entropy_weight  gamma_0: of the mean entropy of p(code|x)
    code_entropy_weight    gamma: of minus the entropy of the mean of p
    entropy_weight         zeta: of both entropies, divided by inverse_temperature
    inverse_temperature    p(code|x) is the softmax of inverse_temperature * 2 x.code
    group_size             the entropy of the mean is summed over groups of this many bits, an upper bound:
                           9 officially, 1 for single bits, None for the exact entropy of all 2**dim codes

    The gradient skips the signs, not the normalisation. Source: zhaoyue-zephyrus/bsq-vit, quantizer/bsq.py,
    with soft entropies; there the entropy of a sample, "analytical" or by "group", is the same exact number.
    """

    def __init__(
        self,
        dim: int,
        *,
        commitment_weight: float = 0.0,
        sample_entropy_weight: float = 1.0,
        code_entropy_weight: float = 1.0,
        entropy_weight: float = 1.0,
        inverse_temperature: float = 1.0,
        group_size: int | None = 9,
    ) -> None:
        per_entropy = entropy_weight / inverse_temperature
        super().__init__(
            dim,
            spherical=True,
            commitment_weight=commitment_weight * dim,
            sample_entropy_weight=per_entropy * sample_entropy_weight,
            code_entropy_weight=per_entropy * code_entropy_weight,
            inverse_temperature=inverse_temperature,
            group_size=group_size,
        )
