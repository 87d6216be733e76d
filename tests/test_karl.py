"""KARL: tokens in scattered slots, lengths of their own, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.image.distilled import VAE_SCALE
from tokenzoo.image.karl import Karl, KarlConfig
from tokenzoo.image.karl_parts import ERRORS, positions_of
from tokenzoo.image.maskgit_encoder import PixelEncoder
from tokenzoo.zoo.tokens import Tokens

from .toys import build_toy
from .toys_distilled import VAE, VQGAN, SmallKarlConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def make(name: str = "karl") -> Karl:
    model = build_toy(name)
    assert isinstance(model, Karl)
    return model


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vqgan": None}, "expected one of the two"),
        ({"vae": VAE}, "expected one of the two"),
        ({"patch_size": 8}, "patch_size=8: the autoencoder has 4"),
        ({"image_size": 18}, "expected a multiple"),
        ({"image_size": 32}, "preprocess.size=16"),
        ({"budget": 15}, "budget=15: expected 1 ... 14"),
        ({"vqgan": replace(VQGAN, network=replace(VQGAN.network, latent_dim=32))}, "features=32"),
        ({"num_codes": 0}, "num_codes=0"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SmallKarlConfig(), **change)


@pytest.mark.parametrize("name", ["karl", "small-karl-vae"])
def test_each_image_keeps_slots_of_its_own(name: str) -> None:
    model = make(name)
    tokens = model.encode(images())
    assert len(set(tokens.lengths.tolist())) > 1 and tokens.positions is not None
    assert model.facts.is_adaptive and model.facts.nested is None
    for single in tokens.unbind():
        assert single.positions is not None
        slots = single.positions[0].tolist()
        assert slots == sorted(set(slots)) and slots[-1] < model.config.budget
    scattered = tokens.positions != torch.arange(tokens.positions.shape[1])
    assert bool((scattered & tokens.mask).any())


def test_halting_is_deletion() -> None:
    """What the official mask does to the places of the grid, to the last bit but rounding."""
    model = make().double()
    latents, votes = model.encoder(images().double(), 5, 10)
    kept = votes.sigmoid() <= 0.75
    masked = model.decoder(model.quantizer.decode(model.quantizer.encode(latents)), keep=kept)
    torch.testing.assert_close(model.decode_latents(model.dequantize(model.encode(images()))), masked)
    filled = model.decoder(model.quantizer.decode(model.quantizer.encode(latents)))
    assert float((filled - masked).detach().abs().max()) > 1e-2


def test_mixed_lengths_decode_as_singles_do() -> None:
    model = make().double()
    tokens = model.encode(images())
    none = replace(tokens.unbind()[0], lengths=torch.tensor([0]))
    mixed = Tokens.cat([*tokens.unbind(), none])
    together = model.decode_latents(model.dequantize(mixed))
    for item, single in enumerate(mixed.unbind()):
        alone = model.decode_latents(model.dequantize(single))
        torch.testing.assert_close(together[item : item + 1], alone, atol=1e-10, rtol=0)


def test_keep_is_a_budget() -> None:
    model = make()
    assert model.facts.keeps == (2, 4, 6, 8, 10, 12, 14)
    assert model.encode(images(), keep=10).identical(model.encode(images()))
    for keep in (2, 4, 14):
        tokens = model.encode(images(), keep=keep)
        assert int(tokens.lengths.max()) <= keep and tokens.positions is not None
        assert int(tokens.positions.max()) < keep
    assert model.encode(list(images()), keep=14).identical(tokens)
    assert model.encode(images(), keep=100).identical(tokens)
    assert model.encode_latents(images(), keep=1).values.shape[1] <= 1
    for keep in (0, 15):
        with pytest.raises(ValueError, match=rf"keep={keep}: expected 1 \.\.\. 14"):
            model.encode_latents(images(), keep=keep)
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f"keep={wrong}: "):
            model.encode(images(), keep=wrong)
    with pytest.raises(ValueError, match="no prefix to keep"):
        tokens.keep(4)


def test_the_allowed_error_is_rounded_up() -> None:
    model = make()
    asked: list[int] = []
    model.encoder.register_forward_pre_hook(lambda module, given: asked.append(given[1]))
    for max_error in (0.0, 0.005, 0.0051, 0.05, 0.38, 7.0, float("inf")):
        model.encode(images(1), max_error=max_error)
    assert asked == [0, 0, 1, 5, 18, 18, 18] and len(ERRORS) == 19
    model.encode(images(1))
    assert ERRORS[asked[-1]] == 0.05
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=r"max_error=.*: expected 0 \.\.\. inf"):
            model.encode(images(1), max_error=wrong)
    near, far = (model.encoder(images(1), error, 1)[0] for error in (0, 18))
    assert not torch.allclose(near, far, atol=1e-3)


def test_positions_are_checked_and_default_to_the_first_slots() -> None:
    model = make()
    plain = model.stamp([[1, 2, 3], [4]])
    stated = model.stamp([[1, 2, 3], [4]], positions=[[0, 1, 2], [0]])
    torch.testing.assert_close(model.decode(plain), model.decode(stated))
    moved = model.stamp([[1, 2, 3], [4]], positions=[[2, 0, 13], [0]])
    assert not torch.allclose(model.decode(moved)[0], model.decode(stated)[0])
    with pytest.raises(ValueError, match=r"positions hold 14: karl has slots 0 \.\.\. 13"):
        model.decode(model.stamp([[1, 2]], positions=[[0, 14]]))
    with pytest.raises(ValueError, match="a slot twice"):
        model.decode(model.stamp([[1, 2], [3, 4]], positions=[[0, 1], [5, 5]]))
    order = model.decode(model.stamp([[3, 1, 2]], positions=[[9, 4, 7]]))
    torch.testing.assert_close(order, model.decode(model.stamp([[1, 2, 3]], positions=[[4, 7, 9]])))


def test_an_empty_batch_is_empty() -> None:
    model = make()
    tokens = model.encode(images(0))
    assert len(tokens) == 0 and model.decode(tokens).shape == (0, 3, 16, 16)


def test_wide_padding_is_read_by_nobody() -> None:
    model = make()
    tokens = model.stamp([[1, 2, 3]])
    wide = model.stamp([[1, 2, 3] + [0] * 30], lengths=[3], positions=[[0, 1, 2] + [0] * 30])
    torch.testing.assert_close(model.decode(wide), model.decode(tokens))


def test_the_posterior_is_sampled_with_a_generator_only() -> None:
    model = make("small-karl-vae")
    given = images(2)
    assert model.encoder.vae is not None
    mean, logvar = model.encoder.vae(given).chunk(2, dim=1)
    assert torch.equal(model.encoder.features(given), VAE_SCALE * mean)
    noise = torch.randn(2, 5, 4, 4, generator=Generator().manual_seed(7))
    sampled = VAE_SCALE * (mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise)
    torch.testing.assert_close(model.encoder.features(given, noise), sampled)
    drawn = model.encode(given, generator=Generator().manual_seed(7))
    assert drawn.identical(model.quantize(model.encode_latents(given, noise=noise)))
    assert not drawn.identical(model.encode(given))
    assert model.facts.draws_noise and not make().facts.draws_noise


def test_training_keeps_all_latents() -> None:
    model = make().train()
    result = model(images())
    assert result.quantized.values.shape == (6, 10)
    torch.testing.assert_close(result.signal, model.decoder(result.quantized.latents))
    (result.signal.square().mean() + result.quantized.loss).backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused and all("halt" in name for name in unused)
    model.eval()
    evaluated = model(images())
    assert not torch.allclose(evaluated.signal, model.decoder(evaluated.quantized.latents))
    for wrong in ({"lengths": torch.tensor([3] * 6)}, {"captions": ["a"] * 6}):
        with pytest.raises(ValueError, match="finds its own lengths"):
            model(images(), **wrong)


def test_tables_of_positions_are_sampled_at_the_nearest_entry() -> None:
    table = torch.arange(36.0).view(1, 6, 6)
    assert positions_of(table, 4)[:, 0].tolist() == [
        6.0 * row + column for row in (0, 1, 3, 4) for column in (0, 1, 3, 4)
    ]


def test_codebook_embeddings_are_what_the_decoder_reads() -> None:
    (embeddings,) = make().codebook_embeddings()
    assert embeddings.shape == (40, 4)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(40))
    assert make("small-karl-vae").codebook_embeddings() == ()


def test_config_goes_to_plain_values_and_back() -> None:
    config = make().config
    assert type(config).from_dict(config.to_dict()) == config and isinstance(config, KarlConfig)


def test_pixel_encoder_shrinks() -> None:
    encoder = PixelEncoder(VQGAN.network, middle=2)
    assert encoder(torch.rand(1, 3, 8, 12)).shape == (1, 6, 2, 3)
    assert len(encoder.mid) == 2 and len(PixelEncoder(VQGAN.network).mid) == 1
