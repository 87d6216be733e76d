"""Visual Transformers: equations (1) to (5) of arXiv 2006.03677, and tokens that find what matters."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from tokenzoo.image.visual_transformer import (
    FilterTokenizer,
    RecurrentTokenizer,
    TokenProjector,
    TokenTransformer,
    VisualTransformer,
    VisualTransformerConfig,
)

from .toys_visual import SmallVisualTransformerConfig

pytestmark = pytest.mark.usefixtures("one_thread")

PLACES, TOKENS, DIM = 6, 3, 4


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def test_filters_weigh_places() -> None:
    """(1): two places (0, 0) and (log 3, 1), one filter that reads the first feature: weights 1/4 and 3/4."""
    tokenizer = FilterTokenizer(2, 1)
    with torch.no_grad():
        tokenizer.filters.weight.copy_(torch.tensor([[1.0, 0.0]]))
    log3 = float(torch.log(torch.tensor(3.0)))
    places = torch.tensor([[[0.0, 0.0], [log3, 1.0]]])
    expected = torch.tensor([[[0.75 * log3, 0.75]]])
    torch.testing.assert_close(tokenizer(places, places[:, :0]), expected)


def test_the_other_equations_as_they_are_written() -> None:
    torch.manual_seed(0)
    places, tokens = draw(2, PLACES, DIM), draw(2, TOKENS, DIM, seed=1)
    recurrent, transformer, projector = RecurrentTokenizer(DIM), TokenTransformer(DIM), TokenProjector(DIM)
    filters = (tokens @ recurrent.filters.weight.T).mT  # W_R, (C, L)
    expected = (places @ filters).softmax(dim=1).mT @ places
    torch.testing.assert_close(recurrent(places, tokens), expected)

    key, query = tokens @ transformer.key.weight.T, tokens @ transformer.query.weight.T
    middle = tokens + (key @ query.mT).softmax(dim=-1) @ tokens
    expected = middle + transformer.out(F.relu(transformer.hidden(middle)))
    torch.testing.assert_close(transformer(tokens), expected)

    scores = (places @ projector.query.weight.T) @ (tokens @ projector.key.weight.T).mT
    expected = places + scores.softmax(dim=-1) @ tokens
    torch.testing.assert_close(projector(places, tokens), expected)


def test_tokens_care_for_content_and_not_for_places() -> None:
    """Places in another order make the same tokens; recurrent filters depend on the picture."""
    torch.manual_seed(0)
    places, tokens = draw(2, PLACES, DIM), draw(2, TOKENS, DIM, seed=1)
    order = torch.randperm(PLACES)
    for tokenizer in (FilterTokenizer(DIM, TOKENS), RecurrentTokenizer(DIM)):
        torch.testing.assert_close(tokenizer(places[:, order], tokens), tokenizer(places, tokens))
    recurrent = RecurrentTokenizer(DIM)
    assert not torch.allclose(recurrent(places, tokens), recurrent(places, tokens.flip(0)))


@pytest.mark.parametrize(("recurrent", "kind"), [(True, RecurrentTokenizer), (False, FilterTokenizer)])
def test_the_first_layer_has_filters_and_the_others_what_was_asked(recurrent: bool, kind: type) -> None:
    model = VisualTransformer(SmallVisualTransformerConfig(recurrent=recurrent))
    assert [type(each) for each in model.tokenizers] == [FilterTokenizer, kind, kind]
    assert len(model.transformers) == 3 and len(model.projectors) == 2
    model(torch.rand(2, 3, 16, 16)).signal.square().sum().backward()
    assert not [name for name, each in model.named_parameters() if each.grad is None]


def test_the_default_has_the_tokens_of_the_paper() -> None:
    facts = VisualTransformerConfig().facts()
    assert facts.max_tokens == 16 and facts.keeps == () and not facts.makes_fewer


def draw_marks(generator: Generator, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Grey noise with one coloured cell, anywhere: images (B, 3, 16, 16), and its colour (B, 3)."""
    colours = torch.rand(batch, 3, generator=generator)
    colours = colours / colours.amax(dim=1, keepdim=True)
    cells = torch.rand(batch, 1, 16, generator=generator).repeat(1, 3, 1)
    where = torch.randint(16, (batch,), generator=generator)
    cells[torch.arange(batch), :, where] = colours
    return F.interpolate(cells.unflatten(2, (4, 4)), scale_factor=4), colours


def test_two_tokens_find_what_matters() -> None:
    """The colour of a cell that may be anywhere, among 15 that do not matter, out of 2 tokens."""
    torch.manual_seed(0)
    model = VisualTransformer(SmallVisualTransformerConfig(num_tokens=2, layers=2))
    answer = nn.Linear(2 * 8, 3)
    optimizer = torch.optim.Adam([*model.parameters(), *answer.parameters()], lr=5e-3)
    chance = Generator().manual_seed(1)
    for _ in range(300):
        images, colours = draw_marks(chance)
        optimizer.zero_grad()
        F.mse_loss(answer(model(images).signal.flatten(1)), colours).backward()
        optimizer.step()
    images, colours = draw_marks(Generator().manual_seed(2), batch=512)
    with torch.no_grad():
        error = F.mse_loss(answer(model.encode(images).values.flatten(1)), colours)
    assert error < 0.1 * colours.var(dim=0).mean()
