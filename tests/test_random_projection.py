"""The random-projection quantizer: frozen, repeatable, nearest by direction, several codebooks."""

import pytest
import torch
from torch.nn import functional as F

from tokenzoo.zoo.random_projection import RandomProjectionQuantizer

from .agreement import check_agreement, draw, same_bits


@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_forward_is_decode_of_encode(num_codebooks: int, dtype: torch.dtype, autocast: bool) -> None:
    quantizer = RandomProjectionQuantizer(50, 20, code_dim=6, num_codebooks=num_codebooks)
    per_token = () if num_codebooks == 1 else (num_codebooks,)
    for shape in ((7,), (2, 9), (0,), ()):
        quantized = check_agreement(quantizer, draw(*shape, 20).to(dtype), autocast=autocast)
        assert quantized.values.shape == (*shape, *per_token)
        assert quantized.latents.shape == (*shape, 6 * num_codebooks)
        assert quantized.usage is not None and quantized.usage.shape == (*per_token, 50)
        assert int(quantized.usage.sum()) == quantized.values.numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_buffers_of_any_dtype_under_autocast(num_codebooks: int, dtype: torch.dtype) -> None:
    """Autocast to bfloat16 raises where tensors of float16 are joined."""
    quantizer = RandomProjectionQuantizer(70, 6, num_codebooks=num_codebooks).to(dtype)
    quantized = check_agreement(quantizer, draw(9, 6), autocast=True)
    assert quantized.latents.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("normalise", [True, False])
def test_ids_as_published(normalise: bool) -> None:
    """argmin over the codes of | norm(c) - norm(A x) |, in float64."""
    quantizer = RandomProjectionQuantizer(100, 20, code_dim=8, num_codebooks=2, normalise=normalise)
    latents = draw(300, 20, scale=4) + 3
    wide = latents.double()
    if normalise:
        wide = (wide - wide.mean(dim=1, keepdim=True)) / (
            wide.var(dim=1, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
    ids = quantizer.encode(latents)
    for place in range(2):
        projected = F.normalize(wide @ quantizer.projection[place].double(), dim=1)
        distances = torch.cdist(projected, F.normalize(quantizer.codebook[place].double(), dim=1))
        assert torch.equal(ids[:, place], distances.argmin(dim=1))


def test_normalised_latents_use_more_codes() -> None:
    """The paper's reason: an offset that all latents share sends them to the same few codes."""
    latents = draw(2000, 40) + 8
    used = [
        len(RandomProjectionQuantizer(256, 40, normalise=normalise).encode(latents).unique())
        for normalise in (True, False)
    ]
    assert used[0] > 200 and used[1] < used[0] / 2


def test_the_seed_is_everything() -> None:
    torch.manual_seed(1)
    one = RandomProjectionQuantizer(30, 8)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    two, other = RandomProjectionQuantizer(30, 8), RandomProjectionQuantizer(30, 8, seed=1)
    assert torch.equal(one.projection, two.projection) and torch.equal(one.codebook, two.codebook)
    assert not torch.equal(one.projection, other.projection)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "torch's own chance is not used"
    torch.testing.assert_close(one.codebook.norm(dim=-1), torch.ones(1, 30))
    spread = RandomProjectionQuantizer(2, 400, code_dim=100).projection
    torch.testing.assert_close(spread.std(), torch.tensor((2 / 500) ** 0.5), rtol=0.02, atol=0)


def test_nothing_is_trained_and_all_is_saved() -> None:
    quantizer = RandomProjectionQuantizer(30, 8, seed=3).train()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    latents = draw(5, 8).requires_grad_()
    quantized = quantizer(latents)
    assert not list(quantizer.parameters()) and not quantized.latents.requires_grad
    assert quantized.loss.item() == 0
    assert before.keys() == {"projection", "codebook"}
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name])
    loaded = RandomProjectionQuantizer(30, 8)
    loaded.load_state_dict(before)
    assert torch.equal(loaded.encode(latents), quantized.values)


def test_in_bfloat16_it_still_computes_in_float32() -> None:
    quantizer = RandomProjectionQuantizer(30, 8).to(torch.bfloat16)
    wide = RandomProjectionQuantizer(30, 8)
    wide.load_state_dict({name: tensor.float() for name, tensor in quantizer.state_dict().items()})
    latents = draw(200, 8)
    assert torch.equal(quantizer.encode(latents), wide.encode(latents))
    assert same_bits(quantizer(latents).latents, wide(latents).latents)


@pytest.mark.parametrize("arguments", [(0, 8), (8, 0)])
def test_impossible_sizes_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        RandomProjectionQuantizer(*arguments)
    with pytest.raises(ValueError, match="0 codebooks"):
        RandomProjectionQuantizer(8, 8, num_codebooks=0)
