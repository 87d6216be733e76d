"""What the benchmark compares: for each operation a grid of sizes, ours and its peers on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from . import bench_peers as peers
from .attention import attention, attention_mask
from .bench_measure import Work
from .digits import place_values
from .entropy import binary_code_entropy
from .ibq import index_backpropagation, index_backpropagation_reference
from .packing import Packing
from .paths import using
from .residual import residual_codes
from .rotation import rotate_to
from .scalar import quantize_levels
from .statistics import code_statistics
from .vq import nearest_code

OURS = "tokenzoo"


@dataclass(frozen=True, eq=False)
class Case:
    """One row of a table.

    size        what was measured, as a reader says it
    contenders  ours first, under OURS; every one does the same work on the same inputs, or less where it
                says so
    agree       whether ours gives what the plain formula gives, asked before anything is timed
    """

    size: str
    contenders: Mapping[str, Work]
    agree: Callable[[], bool]


def nearest_cases(device: str) -> Iterator[Case]:
    """The nearest of K codes for N Gaussian latents of width d."""
    sizes = {
        "cpu": [
            (4096, 8, 1024),
            (4096, 8, 4096),
            (4096, 12, 16384),
            (4096, 32, 4096),
            (4096, 32, 65536),
            (65536, 8, 1024),
            (4096, 256, 4096),
            (4096, 256, 16384),
            (128, 12, 4096),
        ],
        "cuda": [
            (128, 12, 4096),
            (4096, 8, 1024),
            (4096, 32, 4096),
            (4096, 256, 16384),
            (65536, 8, 1024),
            (65536, 8, 16384),
            (65536, 32, 16384),
            (65536, 64, 16384),
            (65536, 256, 1024),
            (65536, 256, 16384),
            (16384, 1024, 16384),
        ],
    }
    for rows, dim, codes in sizes[device]:
        x, c = gaussian(rows, dim, device), gaussian(codes, dim, device, seed=1)
        options = {"dim": dim, "codebook_size": codes, "rotation_trick": False}
        yield Case(
            size=f"N={rows}, d={dim}, K={codes}",
            contenders={
                OURS: partial(nearest_code, x, c),
                **peers.vqp_module(["eval"], x, "VectorQuantize", **options),
                **peers.plain_and_compiled("cdist + argmin", peers.cdist_argmin, x, c),
                **peers.flash_assign(x, c),
            },
            agree=lambda x=x[:1024], c=c: same(nearest_code(x, c), peers.cdist_argmin(x, c)),
        )


def training_cases(device: str) -> Iterator[Case]:
    """What a codebook of moving averages asks of a training step: the search, and the statistics."""
    sizes = {
        "cpu": [(4096, 8, 1024), (4096, 32, 4096), (4096, 12, 16384), (16384, 256, 1024)],
        "cuda": [
            (4096, 8, 1024),
            (65536, 8, 1024),
            (65536, 32, 4096),
            (16384, 12, 16384),
            (65536, 256, 1024),
        ],
    }
    for rows, dim, codes in sizes[device]:
        x, c = gaussian(rows, dim, device), gaussian(codes, dim, device, seed=1)
        options = {"dim": dim, "codebook_size": codes, "rotation_trick": False}

        def plain(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            return peers.one_hot_statistics(x, peers.cdist_argmin(x, c), len(c))

        yield Case(
            size=f"N={rows}, d={dim}, K={codes}",
            contenders={
                OURS: lambda x=x, c=c: code_statistics(x, nearest_code(x, c), len(c)),
                **peers.vqp_module(["train"], x, "VectorQuantize", **options),
                **peers.plain_and_compiled("cdist + one-hot", plain, x, c),
            },
            agree=lambda x=x[:1024], c=c: same(nearest_code(x, c), peers.cdist_argmin(x, c)),
        )


def statistics_cases(device: str) -> Iterator[Case]:
    """Counts and sums of the latents of each code."""
    sizes = {
        "cpu": [(4096, 32, 1024), (16384, 32, 1024), (4096, 32, 16384), (16384, 256, 1024)],
        "cuda": [(4096, 32, 1024), (65536, 32, 1024), (16384, 32, 16384), (65536, 256, 1024)],
    }
    for rows, dim, codes in sizes[device]:
        x, ids = gaussian(rows, dim, device), drawn(rows, codes, device)
        plain = partial(peers.one_hot_statistics, num_codes=codes)
        yield Case(
            size=f"N={rows}, d={dim}, K={codes}",
            contenders={
                OURS: partial(code_statistics, x, ids, codes),
                **_other_order(x, ids, codes),
                **peers.plain_and_compiled("one-hot, as VQP", plain, x, ids),
            },
            agree=lambda x=x, i=ids, k=codes, f=plain: close(
                code_statistics(x, i, k).sums, f(x, i)[1], atol=1e-2
            ),
        )


def residual_cases(device: str) -> Iterator[Case]:
    """Eight stages of 1024 codes, each a Gaussian as wide as what the stages before leave over."""
    sizes = [(4096, 8), (4096, 32), (4096, 128)]
    if device == "cuda":
        sizes += [(65536, 8), (65536, 32), (65536, 128)]
    for rows, dim in sizes:
        x = gaussian(rows, dim, device)
        codebooks = torch.stack(
            [0.7**stage * gaussian(1024, dim, device, seed=stage + 1) for stage in range(8)]
        )
        options = {"dim": dim, "codebook_size": 1024, "num_quantizers": 8, "rotation_trick": False}
        yield Case(
            size=f"N={rows}, d={dim}, K=1024, 8 stages",
            contenders={
                OURS: partial(residual_codes, x, codebooks),
                **peers.vqp_module(["eval", "train"], x, "ResidualVQ", **options),
                **peers.plain_and_compiled("cdist a stage", peers.cdist_residual, x, codebooks),
            },
            agree=lambda x=x, c=codebooks: same(residual_codes(x, c).ids, peers.cdist_residual(x, c)),
        )


def entropy_cases(device: str) -> Iterator[Case]:
    """The codebook entropy of LFQ, forward and backward."""
    sizes = [(256, 10), (256, 14), (1024, 14), (256, 16), (1024, 18)]
    if device == "cuda":
        sizes += [(4096, 16), (65536, 18)]
    for rows, bits in sizes:
        x = gaussian(rows, bits, device)
        options = {"dim": bits, "codebook_size": 1 << bits}
        full = bits <= 16  # a softmax over more takes gigabytes
        yield Case(
            size=f"N={rows}, 2^{bits} codes",
            contenders={
                OURS: partial(peers.gradient_of, binary_code_entropy, x),
                **(peers.vqp_backward(x, "LFQ", **options) if full else {}),
                **({"softmax": partial(peers.gradient_of, peers.softmax_entropy, x)} if full else {}),
            },
            agree=lambda x=x[:64], full=full: (
                not full or close(binary_code_entropy(x), peers.softmax_entropy(x))
            ),
        )


def fsq_cases(device: str) -> Iterator[Case]:
    """Finite scalar quantization, with ids."""
    sizes = [(65536, (8, 5, 5, 5)), (65536, (8, 8, 8, 6, 5))]
    if device == "cuda":
        sizes += [(1 << 22, (8, 8, 8, 6, 5))]
    for rows, levels in sizes:
        x = gaussian(rows, len(levels), device)
        grid = [torch.tensor(numbers, device=x.device) for numbers in (levels, place_values(levels))]
        plain = partial(peers.plain_fsq, sizes=grid[0], basis=grid[1])
        yield Case(
            size=f"N={rows}, levels {list(levels)}",
            contenders={
                OURS: lambda x=x, levels=levels: quantize_levels(x, levels),
                **peers.vqp_module(["eval"], x, "FSQ", levels=list(levels)),
                **peers.plain_and_compiled("plain (ids alone)", plain, x),
            },
            agree=lambda x=x, levels=levels, f=plain: same(quantize_levels(x, levels).ids, f(x)),
        )


def rotation_cases(device: str) -> Iterator[Case]:
    """The rotation trick, forward and backward."""
    sizes = [(16384, 32), (4096, 256)]
    if device == "cuda":
        sizes += [(262144, 64)]
    for rows, dim in sizes:
        x, c = gaussian(rows, dim, device), gaussian(rows, dim, device, seed=1)
        ours, plain = (lambda x, c=c: rotate_to(x, c)), (lambda x, c=c: peers.rotation_by_matrices(x, c))
        yield Case(
            size=f"N={rows}, d={dim}",
            contenders={
                OURS: partial(peers.gradient_of, ours, x),
                "matrices, autograd": partial(peers.gradient_of, plain, x),
            },
            agree=lambda x=x, f=ours, g=plain: close(peers.gradient_of(f, x)[0], peers.gradient_of(g, x)[0]),
        )


def ibq_cases(device: str) -> Iterator[Case]:
    """Index backpropagation with its entropies, forward and backward to latents and codebook."""
    sizes = [(1024, 64, 4096), (1024, 256, 16384)]
    if device == "cuda":
        sizes += [(16384, 256, 16384)]
    for rows, dim, codes in sizes:
        x, c = gaussian(rows, dim, device), 0.1 * gaussian(codes, dim, device, seed=1)

        def ours(x: Tensor, c: Tensor) -> Tensor:
            soft = index_backpropagation(x, c, entropy_temperature=1.0)
            return soft.quantized.square().sum() + (soft.entropies.sum() if soft.entropies is not None else 0)

        def plain(x: Tensor, c: Tensor) -> Tensor:
            soft = index_backpropagation_reference(x, c, 1.0)
            return soft.quantized.square().sum() + (soft.entropies.sum() if soft.entropies is not None else 0)

        yield Case(
            size=f"N={rows}, d={dim}, K={codes}",
            contenders={
                OURS: partial(peers.gradient_of, ours, x, c),
                "softmax, autograd": partial(peers.gradient_of, plain, x, c),
            },
            agree=lambda x=x[:64], c=c, f=ours, g=plain: close(f(x, c), g(x, c)),
        )


def window_cases(device: str) -> Iterator[Case]:
    """Causal attention with a sliding window, 8 heads of 64."""
    for length, window in [(512, 64), (2048, 128), (4096, 250)]:
        q, k, v = (gaussian(2, 8, length, 64, device, seed=seed) for seed in range(3))
        mask = attention_mask(length, length, causal=True, window=window, device=q.device)
        ours = partial(attention, q, k, v, causal=True, window=window)
        masked = partial(F.scaled_dot_product_attention, q, k, v, attn_mask=mask)
        yield Case(
            size=f"B=2, N={length}, window {window}",
            contenders={OURS: ours, "SDPA with a mask": masked, **_flex(device, q, k, v, window)},
            agree=lambda f=ours, g=masked: close(f(), g()),
        )


def packing_cases(device: str) -> Iterator[Case]:
    """The MLP of a decoder, width 512, on 16 rows of 257 patches and k tokens: packed, and padded."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.randint(1, 257, (16,), generator=generator)
    powers = 2 ** torch.randint(0, 9, (16,), generator=generator)
    for name, counts in {"k uniform in 1 ... 256": uniform, "k a power of two": powers}.items():
        x = gaussian(16, 257 + 256, 512, device)
        keep = (torch.arange(257 + 256) < 257 + counts[:, None]).to(device)
        mlp = torch.nn.Sequential(
            torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 512)
        ).requires_grad_(False).to(device)  # fmt: skip

        def packed(x: Tensor = x, keep: Tensor = keep, mlp: torch.nn.Module = mlp) -> Tensor:
            packing = Packing.of(keep)
            return packing.unpack(mlp(packing.pack(x)))

        yield Case(
            size=name,
            contenders={OURS: packed, "padded": partial(mlp, x)},
            agree=lambda f=packed, x=x, keep=keep, mlp=mlp: close(f()[keep], mlp(x)[keep]),
        )


CASES: dict[str, Callable[[str], Iterator[Case]]] = {
    "nearest": nearest_cases,
    "ema-step": training_cases,
    "statistics": statistics_cases,
    "residual": residual_cases,
    "lfq-entropy": entropy_cases,
    "fsq": fsq_cases,
    "rotation": rotation_cases,
    "ibq": ibq_cases,
    "window": window_cases,
    "packing": packing_cases,
}


def _other_order(latents: Tensor, ids: Tensor, num_codes: int) -> dict[str, Work]:
    """Sums in the order of the rows; and on CUDA, where Triton gives that too, by atomics of floats."""
    if not latents.is_cuda:
        return {"deterministic": partial(code_statistics, latents, ids, num_codes, deterministic=True)}

    def by_atomics() -> object:
        with using("torch"):
            return code_statistics(latents, ids, num_codes)

    return {"index_add": by_atomics}


def _flex(device: str, query: Tensor, key: Tensor, value: Tensor, window: int) -> dict[str, Work]:
    """Ours once more, by FlexAttention, which is for CUDA."""
    by_flex = partial(attention, query, key, value, causal=True, window=window, flex=True)
    return {"flex=True": by_flex} if device == "cuda" else {}


def gaussian(*shape_and_device: int | str, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same on every device."""
    *shape, device = shape_and_device
    generator = torch.Generator().manual_seed(seed)
    return torch.randn([int(size) for size in shape], generator=generator).to(str(device))


def drawn(rows: int, codes: int, device: str) -> Tensor:
    """(N,) ids as a trained codebook has them, some codes far more frequent than others (Zipf's law)."""
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(1 / torch.arange(1.0, codes + 1), rows, True, generator=generator).to(device)


def same(ours: Tensor, theirs: Tensor) -> bool:
    """At least 99.9 % of the ids: where float32 cannot tell two codes apart, peers choose as they like."""
    return bool((ours == theirs).double().mean() >= 0.999)


def close(ours: Tensor, theirs: Tensor, atol: float = 1e-4) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-3, atol=atol)
