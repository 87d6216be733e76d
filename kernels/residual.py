"""Residual vector quantization in one call: signature, torch path, gradient, choice of path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .paths import chosen_path
from .precision import register_in_float32, without_autocast, working_dtype
from .recording import is_recorded
from .vq import nearest


@dataclass(frozen=True, eq=False)
class ResidualCodes:
    """What every stage chose for what the stages before it had left over.

    ids        (..., Q) int64 in [0, K); -1 where a stage was dropped
    quantized  (..., D) float32 or wider, the sum of the chosen codes, first stage first
    errors     (..., Q) float, squared distance between each stage's input and its code; 0 where dropped
    """

    ids: Tensor
    quantized: Tensor
    errors: Tensor

    @property
    def losses(self) -> Tensor:
        """(Q,) commitment of each stage: a mean over all elements of the latents; dropped rows add 0 to it.

        That is the mean DAC takes under quantizer dropout (descript-audio-codec, dac/nn/quantize.py).
        """
        return self.errors.reshape(-1, self.errors.shape[-1]).sum(dim=0) / max(1, self.quantized.numel())


def residual_codes(
    latents: Tensor, codebooks: Tensor | Sequence[Tensor], stages: Tensor | None = None
) -> ResidualCodes:
    """Each stage takes the code nearest to the residual, and hands on what the code does not explain.

    Computed in float32 at least, under any autocast; ties go to the lowest index. `quantized` starts at zero
    and adds one code after the other, so it equals the same sum over looked-up ids bit for bit; a dropped
    stage adds nothing.

    latents    (..., D)  float
    codebooks  (Q, K, D) float, or Q of (K, D), which are then stacked only where a fused kernel wants it
    stages     (...)     int64, how many stages each row keeps: a negative count keeps none, one above Q
                         keeps all; all of them if None
    returns    ids (..., Q), quantized (..., D), errors (..., Q)

    Gradients reach the latents alone: `quantized` passes its own straight through, once, and each error is
    differentiable with all codes held fixed, so the residuals do not see the codes before them.

    Raises ValueError when the shapes do not fit together, a codebook is empty or a dtype is wrong.
    """
    codebooks = list(codebooks)
    _check_inputs(latents, codebooks, stages)
    dtype = working_dtype(latents, *codebooks)
    rows, num_stages = latents.shape[:-1], len(codebooks)
    with without_autocast(latents.device):
        flat = latents.reshape(-1, latents.shape[-1]).to(dtype)
        kept = None if stages is None else stages.reshape(-1)
        walk = residual_op if is_recorded(flat, *codebooks) else _residual
        codes = [codebook.detach().to(dtype) for codebook in codebooks]
        quantized, ids, errors = walk(flat, codes, kept)
    return ResidualCodes(
        ids.reshape(*rows, num_stages), quantized.reshape(latents.shape), errors.reshape(*rows, num_stages)
    )


def _check_inputs(latents: Tensor, codebooks: list[Tensor], stages: Tensor | None) -> None:
    shapes = {tuple(codebook.shape) for codebook in codebooks}
    if len(shapes) != 1 or codebooks[0].ndim != 2 or len(codebooks[0]) == 0:
        raise ValueError(
            f"{len(codebooks)} codebooks of shapes {sorted(shapes)}; expected at least one, all of one shape "
            "(K, D) with K >= 1"
        )
    dim = codebooks[0].shape[1]
    if latents.ndim == 0 or latents.shape[-1] != dim:
        raise ValueError(
            f"latents of shape {tuple(latents.shape)} against codebooks of shapes {sorted(shapes)}; "
            f"expected (..., {dim}): move the features to the last axis"
        )
    for name, tensor in (("latents", latents), ("codebook", codebooks[0])):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} of dtype {tensor.dtype}; expected a floating point tensor")
    if stages is not None and (stages.shape != latents.shape[:-1] or stages.dtype != torch.int64):
        raise ValueError(
            f"stages of shape {tuple(stages.shape)} and dtype {stages.dtype}; expected int64 of shape "
            f"{tuple(latents.shape[:-1])}: one count per latent"
        )


# What the operator and each of its paths return, as operators know tuples only:
# quantized (N, D), ids (N, Q) int64, errors (N, Q). A float comes first, or opcheck cannot add them up.
Walk = tuple[Tensor, Tensor, Tensor]


def _residual(
    latents: Tensor, codebooks: Sequence[Tensor], stages: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the operator does: (N, D) and Q of (K, D) of one dtype, (N,) int64 or None -> a Walk."""
    if chosen_path(latents) == "triton":
        from .residual_triton import residual_triton

        if stages is None:
            stages = latents.new_full((len(latents),), len(codebooks), dtype=torch.int64)
        return residual_triton(latents, torch.stack(list(codebooks)), stages)
    return residual_torch(latents, codebooks, stages)


residual_op = torch.library.custom_op("tokenzoo::residual_codes", mutates_args=())(_residual)


@residual_op.register_fake
def _(latents: Tensor, codebooks: Sequence[Tensor], stages: Tensor | None) -> Walk:
    per_stage = latents.shape[0], len(codebooks)
    ids = latents.new_empty(per_stage, dtype=torch.int64)
    return latents.new_empty(latents.shape), ids, latents.new_empty(per_stage)


def residual_torch(latents: Tensor, codebooks: Sequence[Tensor] | Tensor, stages: Tensor | None) -> Walk:
    """Stage by stage over all rows. The reference differs in the search alone, which chooses for itself."""
    per_stage = len(latents), len(codebooks)
    ids = latents.new_empty(per_stage, dtype=torch.int64)
    errors = latents.new_empty(per_stage)
    residual, quantized = latents, latents.new_zeros(latents.shape)
    for stage, codebook in enumerate(codebooks):
        found = nearest(residual, codebook, "euclidean")
        # On the CPU index_select is several times faster than codebook[found].
        codes = codebook.index_select(0, found)
        if stages is not None:
            codes.masked_fill_((stages <= stage)[:, None], 0)
        residual = residual - codes
        quantized += codes
        ids[:, stage] = found
        errors[:, stage] = residual.square().sum(dim=1)
    if stages is not None:
        dropped = stages[:, None] <= torch.arange(len(codebooks), device=stages.device)
        ids.masked_fill_(dropped, -1)
        errors.masked_fill_(dropped, 0)
    return quantized, ids, errors


def _keep_for_backward(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, Sequence[Tensor], Tensor | None],
    output: Walk,
) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], output[1], *inputs[1])


def _backward(
    ctx: torch.autograd.function.FunctionCtx,
    grad_quantized: Tensor | None,
    _: None,
    grad_errors: Tensor | None,
) -> tuple[Tensor | None, list[None], None]:
    """d quantized / dz = 1, straight through; d error_q / dz = 2 r_q, whose residuals are walked again."""
    latents, ids, *codebooks = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    none = [None] * len(codebooks)
    if grad_errors is None:
        return grad_quantized, none, None
    residual, gradient = latents, torch.zeros_like(latents) if grad_quantized is None else grad_quantized
    for codebook, found, grad in zip(codebooks, ids.T, grad_errors.T, strict=True):
        kept = (found >= 0)[:, None]
        residual = residual - kept * codebook.index_select(0, found.clamp(min=0))
        gradient = gradient + 2 * kept * grad[:, None] * residual
    return gradient, none, None


residual_op.register_autograd(_backward, setup_context=_keep_for_backward)
register_in_float32("tokenzoo::residual_codes")
