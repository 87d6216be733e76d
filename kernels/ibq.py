"""Index backpropagation (IBQ, Shi et al. 2024, arXiv 2412.02692): hard codes with the gradients of a softmax
over all codes. The backward pass computes it again in tiles, so no N x K matrix is ever held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import full_products, register_in_float32, without_autocast, working_dtype
from .vq import nearest

# Logits in a tile. On a CPU they stay in cache from one pass to the next (1 MiB in float32); elsewhere what
# counts is how often a kernel is launched.
CPU_TILE_ELEMENTS = 1 << 18
TILE_ELEMENTS = 1 << 24


@dataclass(frozen=True, eq=False)
class SoftAssignment:
    """The code of each latent, with the gradients of its softmax over all codes.

    ids        (...) int64, the largest z.e; ties go to the lowest index
    quantized  (..., D) float, codebook[ids] bit for bit, with the gradient of (hard - sg(p) + p) @ codebook,
               p = softmax(z.e): to the chosen code directly, through p to the latents and to every code
    entropies  (...) float, nats, of softmax(z.e / entropy_temperature); None without a temperature
    mean       (K,) float, the mean of those softmaxes over all latents, 0 if there are none; None likewise
    """

    ids: Tensor
    quantized: Tensor
    entropies: Tensor | None
    mean: Tensor | None


def index_backpropagation(
    latents: Tensor, codebook: Tensor, *, entropy_temperature: float | None = None
) -> SoftAssignment:
    """Hard assignment by dot product, differentiable in the latents and in every code.

    Computed in float32 at least, under any autocast; float64 stays float64. Memory grows with N + K D and a
    few tiles, in both passes. The gradient itself has no gradient.

    latents              (..., D) float
    codebook             (K, D)   float
    entropy_temperature  of the entropies; they cost a second pass over the logits. SEED-Voken: 0.01

    Source: TencentARC/SEED-Voken, src/IBQ/modules/vqvae/quantize.py. Raises ValueError when the shapes do not
    fit together, the codebook is empty or the temperature not positive.
    """
    _check_inputs(latents, codebook, entropy_temperature)
    dtype = working_dtype(latents, codebook)
    with without_autocast(latents.device):
        flat = latents.reshape(-1, latents.shape[-1]).to(dtype)
        quantized, ids, entropies, mean = index_backpropagation_op(
            flat, codebook.to(dtype), entropy_temperature
        )
        shape = latents.shape[:-1]
        measured = entropy_temperature is not None
        return SoftAssignment(
            ids=ids.reshape(shape),
            quantized=quantized.reshape(*shape, codebook.shape[1]),
            entropies=entropies.reshape(shape) if measured else None,
            mean=mean if measured else None,
        )


@torch.library.custom_op("tokenzoo::index_backpropagation", mutates_args=())
def index_backpropagation_op(
    latents: Tensor, codebook: Tensor, temperature: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator: (N, D), (K, D) of one dtype -> quantized (N, D), ids (N,), entropies (N,), mean (K,).

    Without a temperature the last two are empty.
    """
    ids = nearest(latents, codebook, "dot")
    if temperature is None:
        return codebook[ids], ids, latents.new_empty(0), latents.new_empty(0)
    entropies = latents.new_empty(len(latents))
    mean = latents.new_zeros(len(codebook))
    with full_products():
        for rows in _tiles(latents, codebook):
            logits = (latents[rows] @ codebook.T).div_(temperature)
            # Not the exponential of the logarithms: on a CPU that is ten times slower where it underflows.
            probabilities = logits.softmax(dim=1)
            entropies[rows] = -torch.linalg.vecdot(probabilities, logits.log_softmax(dim=1))
            mean += probabilities.sum(dim=0)
    return codebook[ids], ids, entropies, mean.div_(max(1, len(latents)))


@index_backpropagation_op.register_fake
def _(latents: Tensor, codebook: Tensor, temperature: float | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, codes = (0, 0) if temperature is None else (latents.shape[0], codebook.shape[0])
    ids = latents.new_empty(latents.shape[0], dtype=torch.int64)
    quantized = latents.new_empty(latents.shape)
    return quantized, ids, latents.new_empty(rows), latents.new_empty(codes)


def _save_inputs(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, Tensor, float | None],
    output: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    latents, codebook, ctx.temperature = inputs  # pyright: ignore[reportAttributeAccessIssue]
    ctx.save_for_backward(latents, codebook, output[1])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: torch.autograd.function.FunctionCtx,
    of_quantized: Tensor | None,
    _: None,
    of_entropies: Tensor | None,
    of_mean: Tensor | None,
) -> tuple[Tensor, Tensor, None]:
    latents, codebook, ids = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    temperature = ctx.temperature  # pyright: ignore[reportAttributeAccessIssue]
    gradients = index_backpropagation_backward_op(
        latents, codebook, ids, temperature, of_quantized, of_entropies, of_mean
    )
    return *gradients, None


@torch.library.custom_op("tokenzoo::index_backpropagation_backward", mutates_args=())
def index_backpropagation_backward_op(
    latents: Tensor,
    codebook: Tensor,
    ids: Tensor,
    temperature: float | None,
    of_quantized: Tensor | None,
    of_entropies: Tensor | None,
    of_mean: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Gradients (N, D), (K, D) of latents and codebook, from those of the outputs; None counts as 0."""
    of_latents = torch.zeros_like(latents)
    of_codebook = torch.zeros_like(codebook)
    with full_products():
        for rows in _tiles(latents, codebook):
            logits = latents[rows] @ codebook.T
            of_logits = torch.zeros_like(logits)
            if of_quantized is not None:
                of_logits += _through_softmax(of_quantized[rows] @ codebook.T, logits.softmax(dim=1))
            if temperature is not None and (of_entropies is not None or of_mean is not None):
                # dH/dp = -log p - 1 is -logits but for a constant along the row, which does not pass the
                # softmax. The constant is chosen so that nothing cancels.
                logits = logits.sub_(logits.amax(dim=1, keepdim=True)).div_(temperature)
                probabilities = logits.softmax(dim=1)
                pulls = logits.mul_(0 if of_entropies is None else -of_entropies[rows, None])
                if of_mean is not None:
                    pulls += of_mean / len(latents)
                of_logits.add_(_through_softmax(pulls, probabilities), alpha=1 / temperature)
            of_latents[rows] = of_logits @ codebook
            of_codebook.addmm_(of_logits.T, latents[rows])
    if of_quantized is not None:
        of_codebook.index_add_(0, ids, of_quantized)
    return of_latents, of_codebook


@index_backpropagation_backward_op.register_fake
def _(
    latents: Tensor, codebook: Tensor, ids: Tensor, temperature: float | None, *gradients: Tensor | None
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(latents), torch.empty_like(codebook)


index_backpropagation_op.register_autograd(_backward, setup_context=_save_inputs)
register_in_float32("tokenzoo::index_backpropagation")


def index_backpropagation_reference(
    latents: Tensor, codebook: Tensor, entropy_temperature: float
) -> SoftAssignment:
    """What is computed, for (N, D), left to autograd as the official code does; holds N x K matrices."""
    logits = latents @ codebook.T
    soft, ids = logits.softmax(dim=1), logits.argmax(dim=1)
    hard = torch.nn.functional.one_hot(ids, len(codebook)).to(soft.dtype)
    sharp = logits / entropy_temperature
    probabilities = sharp.softmax(dim=1)
    return SoftAssignment(
        ids=ids,
        quantized=(hard - soft.detach() + soft) @ codebook,
        entropies=-(probabilities * sharp.log_softmax(dim=1)).sum(dim=1),
        mean=probabilities.sum(dim=0) / max(1, len(latents)),
    )


def _tiles(latents: Tensor, codebook: Tensor) -> Iterator[slice]:
    """Slices of rows. The codebook's gradient is read and written once a tile: a tile has enough rows to pay
    for that, and with D / 2 of them it is still no larger than the codebook."""
    codes, dim = codebook.shape
    elements = CPU_TILE_ELEMENTS if codebook.device.type == "cpu" else TILE_ELEMENTS
    rows = max(1, elements // codes, dim // 2)
    return (slice(start, start + rows) for start in range(0, len(latents), rows))


def _through_softmax(pulls: Tensor, probabilities: Tensor) -> Tensor:
    """Gradient (M, K) of the logits, from that of their softmax; overwrites `pulls`."""
    pulls -= torch.linalg.vecdot(pulls, probabilities).unsqueeze(1)
    return pulls.mul_(probabilities)


def _check_inputs(latents: Tensor, codebook: Tensor, entropy_temperature: float | None) -> None:
    if codebook.ndim != 2 or codebook.shape[0] == 0:
        raise ValueError(f"codebook of shape {tuple(codebook.shape)}; expected (K, D) with K >= 1")
    if latents.ndim == 0 or latents.shape[-1] != codebook.shape[1] or not latents.is_floating_point():
        raise ValueError(
            f"latents of shape {tuple(latents.shape)} and dtype {latents.dtype}; expected floats of shape "
            f"(..., {codebook.shape[1]}): move the features to the last axis"
        )
    if entropy_temperature is not None and not entropy_temperature > 0:
        raise ValueError(f"entropy_temperature={entropy_temperature}; expected more than 0, or None")
