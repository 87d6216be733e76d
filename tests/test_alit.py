"""ALIT: rounds, the length that each image needs, masks that are drawn, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.image.alit import Alit
from tokenzoo.zoo.tokens import Tokens

from .toys import build_toy
from .toys_distilled import VAE, SmallAlitConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def make(name: str = "alit") -> Alit:
    model = build_toy(name)
    assert isinstance(model, Alit)
    return model


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=Generator().manual_seed(3))


def errors_of_rounds(model: Alit, given: Tensor) -> list[list[float]]:
    """The mean absolute error of each image after each round, from whole encodings of every length."""
    errors = []
    for count in (3, 6, 9, 12):
        tokens = model.encode(given, keep=count)
        painted = model.decode_latents(model.dequantize(tokens))
        errors.append((painted - given).abs().mean(dim=(1, 2, 3)).tolist())
    return [list(rounds) for rounds in zip(*errors, strict=True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 11}, "slots=11: expected 12"),
        ({"rounds": 0}, "rounds=0"),
        ({"mask_threshold": 1.5}, "mask_threshold=1.5"),
        ({"vqgan": None, "vae": VAE}, "a VAE has no codes to predict"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SmallAlitConfig(), **change)


def test_keep_is_a_number_of_rounds() -> None:
    model = make()
    assert model.facts.keeps == (3, 6, 9, 12)
    for keep, count in ((3, 3), (9, 9), (12, 12), (100, 12)):
        assert model.encode(images(2), keep=keep).lengths.tolist() == [count] * 2
    for keep in (0, 2, 11):
        with pytest.raises(ValueError, match=f"keep={keep}: "):
            model.encode(images(2), keep=keep)
    bounded = model.encode(images(), keep=6, max_error=0.0)
    assert set(bounded.lengths.tolist()) <= {3, 6}


def test_a_shorter_encoding_is_no_prefix() -> None:
    """So the tokens are not nested: each round writes all of them anew."""
    model = make()
    short, long = (model.encode(images(), keep=count) for count in (3, 12))
    assert not torch.equal(short.ids, long.ids[:, :3])
    assert model.facts.nested is None and model.facts.is_adaptive
    with pytest.raises(ValueError, match="no prefix to keep"):
        long.keep(3)


@pytest.mark.parametrize("name", ["alit", "small-alit-vae"])
def test_each_image_stops_at_the_first_round_that_is_good_enough(name: str) -> None:
    model, given = make(name), images()
    errors = errors_of_rounds(model, given)
    # Between the best and the worst there are thresholds that some images meet early, some late, some never.
    ranked = sorted(error for rounds in errors for error in rounds)
    seen = set()
    for place in (0, 6, 12, 18):
        max_error = (ranked[place] + ranked[place + 1]) / 2
        tokens = model.encode(given, max_error=max_error)
        for length, rounds in zip(tokens.lengths.tolist(), errors, strict=True):
            met = [index for index, error in enumerate(rounds) if error < max_error]
            assert length == 3 * (1 + (met[0] if met else rounds.index(min(rounds))))
            seen.add(length)
        singles = [model.encode(item[None], max_error=max_error) for item in given]
        assert tokens.lengths.tolist() == [int(single.lengths[0]) for single in singles]
        if model.facts.is_discrete:
            assert tokens.identical(Tokens.cat(singles))
        for single in tokens.unbind():
            exact = model.encode(given, keep=int(single.lengths[0]))
            assert any(torch.allclose(single.values, row.values, atol=1e-5) for row in exact.unbind())
    assert len(seen) > 1


def test_an_empty_batch_is_empty() -> None:
    model = make()
    for keep in (None, 12):
        tokens = model.encode(images(0), keep=keep)
        assert len(tokens) == 0 and model.decode(tokens).shape == (0, 3, 16, 16)


def test_rounds_end_when_all_images_are_done() -> None:
    model = make()
    rounds: list[int] = []
    model.encoder.register_forward_hook(lambda module, given, output: rounds.append(len(output)))
    model.encode(images(), max_error=1e6)
    assert rounds == [6]
    rounds.clear()
    model.encode(images(), max_error=0.0)
    assert rounds == [6] * 4
    with pytest.raises(ValueError, match="max_error=-1"):
        model.encode(images(), max_error=-1)


def test_with_keep_alone_nothing_is_painted() -> None:
    model = make()
    painted: list[Any] = []
    assert model.decoder.vqgan is not None
    model.decoder.vqgan.register_forward_hook(lambda module, given, output: painted.append(output))
    model.encode(images(), keep=12)
    assert not painted


def test_patches_are_masked_with_the_probability_of_their_code() -> None:
    model, given = make(), images()
    features = model.encoder.features(given)
    state = model.encoder(model.encoder.first(given, features))
    prediction = model._predict(model.encoder.latents(state))
    surely = model.masked_patches(prediction, features, 0.0)
    assert 0 < int(surely.sum()) < surely.numel(), "only those above the threshold"
    assert not bool(model.masked_patches(prediction, features, 1.0).any())
    many = torch.rand(500, 6, 16, generator=Generator().manual_seed(0))
    share = torch.stack([model.masked_patches(prediction, features, each) for each in many]).float().mean(0)
    expected = share[surely]
    assert bool((share[~surely] == 0).all()) and float(expected.min()) > 0.25
    likelier = model.masked_patches(prediction, features)
    assert bool((share[likelier] > 0.4).all()) and not bool((likelier & ~surely).any())


def test_masks_are_drawn_with_a_generator_only() -> None:
    model = make()
    plain = model.encode(images(), keep=12)
    assert plain.identical(model.encode(images(), keep=12))
    drawn = [model.encode(images(), keep=12, generator=Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert drawn[0].identical(drawn[1])
    assert not drawn[0].identical(plain) and not drawn[0].identical(drawn[2])
    unmasked = build_toy("alit")
    for row in model.encode(images(), keep=3).unbind():
        assert int(row.lengths[0]) == 3, "one round draws nothing"
    assert unmasked.facts.draws_noise
    first = [model.encode(images(), keep=3, generator=Generator().manual_seed(s)) for s in (0, 1)]
    assert first[0].identical(first[1])


def test_a_vae_draws_its_posterior_and_masks_nothing() -> None:
    model = make("small-alit-vae")
    noise = torch.randn(6, 5, 4, 4, generator=Generator().manual_seed(5))
    drawn = model.encode(images(), generator=Generator().manual_seed(5), keep=12)
    assert drawn.identical(model.quantize(model.encode_latents(images(), noise=noise, keep=12)))
    assert not drawn.identical(model.encode(images(), keep=12))


def test_masked_patches_are_replaced() -> None:
    model = make()
    state = model.encoder.first(images(1), model.encoder.features(images(1)))
    drop = torch.zeros(1, 16, dtype=torch.bool)
    drop[0, 5] = True
    plain, masked = model.encoder.grow(state, 1), model.encoder.grow(state, 1, drop)
    assert plain.shape[1] == masked.shape[1] == 1 + 16 + 6
    changed = (plain != masked).any(dim=-1)[0].nonzero()[:, 0].tolist()
    assert changed == [1 + 5]
    token = model.encoder.patch_positions[6] + model.encoder.mask_token[0, 0]
    torch.testing.assert_close(masked[0, 6], model.encoder.norm_round(token))


def test_other_lengths_than_those_of_rounds_are_refused() -> None:
    model = make()
    for ids in ([[1, 2, 3, 4]], [[1, 2, 3], [4]], [[1, 2, 3], []]):
        with pytest.raises(ValueError, match="alit decodes 3, 6, 9, 12 tokens"):
            model.decode(model.stamp(ids))
    mixed = model.decode(model.stamp([[1, 2, 3], [4, 5, 6, 7, 8, 9]]))
    torch.testing.assert_close(mixed[:1], model.decode(model.stamp([[1, 2, 3]])), atol=1e-4, rtol=0)


def test_training_uses_all_rounds_and_padding_costs_nothing() -> None:
    model = make()
    evaluated = model(images())
    lengths = model.encode(images()).lengths
    assert len(set(lengths.tolist())) > 1
    padding = torch.arange(evaluated.quantized.values.shape[1]) >= lengths[:, None]
    assert bool((evaluated.quantized.values[padding] == -1).all())
    model.train()
    result = model(images())
    assert result.quantized.values.shape == (6, 12)
    (result.signal.square().mean() + result.quantized.loss).backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not unused
    for wrong in ({"lengths": torch.tensor([3] * 6)}, {"captions": ["a"] * 6}):
        with pytest.raises(ValueError, match="finds its own lengths"):
            model(images(), **wrong)
