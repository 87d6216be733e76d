"""Packed rows: the bins, the blocks, and the loss of the padded batch."""

from functools import partial

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokenzoo.zoo.prepacking import IGNORED, first_fit, pack, pad

ROWS = [[5, 6, 7], [8, 9], [1, 2, 3, 4], [10]]


@pytest.fixture(scope="module")
def llama() -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    return tiny_llama("sdpa")


def tiny_llama(attention: str) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        attn_implementation=attention,
    )
    # Larger weights than a new model has, so that attention matters to the loss.
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model


def test_bins_take_the_longest_first() -> None:
    assert first_fit([3, 2, 4, 1], 5) == ((2, 3), (0, 1))
    assert first_fit([5, 5], 5) == ((0,), (1,))
    assert first_fit([1, 1, 1], 5) == ((0, 1, 2),)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(20, 50))
def test_every_row_lies_in_one_bin_and_none_overflows(lengths: list[int], width: int) -> None:
    bins = first_fit(lengths, width)
    assert sorted(index for members in bins for index in members) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in members) for members in bins]
    assert max(loads) <= width
    # No two bins could be one: the first had room for what opened the second.
    assert all(a + b > width for i, a in enumerate(loads) for b in loads[i + 1 :])


def test_positions_restart_and_the_first_of_each_is_no_label() -> None:
    packed = pack(ROWS, 6)
    assert packed.bins == ((2, 1), (0, 3))
    assert packed.ids.tolist() == [[1, 2, 3, 4, 8, 9], [5, 6, 7, 10, 0, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 0, 1]]
    assert packed.labels.tolist() == [
        [IGNORED, 2, 3, 4, IGNORED, 9],
        [IGNORED, 6, 7, IGNORED, IGNORED, IGNORED],
    ]
    assert packed.filled == 10 / 12


def test_the_mask_is_causal_within_blocks() -> None:
    seen = pack(ROWS, 6).mask()[1, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


def mixed_rows() -> list[list[int]]:
    chance = torch.Generator().manual_seed(1)
    return [torch.randint(0, 32, (n,), generator=chance).tolist() for n in (17, 3, 9, 1, 20, 6, 2, 12, 5)]


def loss_and_gradient(model: transformers.LlamaForCausalLM, inputs: dict) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("by", ["positions", "mask"])
def test_the_packed_loss_is_the_padded_loss(attention: str, by: str) -> None:
    torch.manual_seed(0)
    model, rows = tiny_llama(attention), mixed_rows()
    packed = pack(rows, 24)
    inputs = packed.inputs() | ({"attention_mask": packed.mask()} if by == "mask" else {})
    loss, gradient = loss_and_gradient(model, inputs)
    expected, expected_gradient = loss_and_gradient(model, pad(rows))
    assert len(packed.ids) == 4 and float(expected) > 3
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-4)


def test_the_padded_loss_is_the_mean_over_single_rows(llama: transformers.LlamaForCausalLM) -> None:
    rows = mixed_rows()
    total = count = 0.0
    with torch.no_grad():
        for row in rows:
            logits = llama(torch.tensor([row])).logits[0, :-1]
            following = torch.tensor(row[1:], dtype=torch.int64)
            total += float(torch.nn.functional.cross_entropy(logits, following, reduction="sum"))
            count += len(row) - 1
        loss = llama(**pack(rows, 24).inputs()).loss
    assert abs(float(loss) - total / count) < 1e-5


def test_a_row_is_blind_to_its_neighbours(llama: transformers.LlamaForCausalLM) -> None:
    """The trap: with a cache, which is transformers' default, the blocks are not read off the positions."""
    packed, other = pack(ROWS, 10), pack([[9, 9, 9], [8, 9], [1, 2, 3, 4], [10]], 10)
    with torch.no_grad():
        ours, theirs = llama(**packed.inputs()).logits, llama(**other.inputs()).logits
        leaky = [llama(**(each.inputs() | {"use_cache": True})).logits for each in (packed, other)]
    assert packed.bins == ((2, 0, 1, 3),)
    torch.testing.assert_close(ours[0, 7:], theirs[0, 7:], atol=0, rtol=0)
    assert not torch.allclose(leaky[0][0, 7:], leaky[1][0, 7:], atol=1e-3)


def test_a_collator_of_a_data_loader() -> None:
    loader = torch.utils.data.DataLoader(ROWS, batch_size=4, collate_fn=partial(pack, width=6))  # pyright: ignore
    (batch,) = loader
    assert batch.bins == ((2, 1), (0, 3))


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 1 has 4 ids: expected 1 \.\.\. 3; cut it"):
        pack([[1], [1, 2, 3, 4]], 3)
    with pytest.raises(ValueError, match="row 0 has 0 ids"):
        pack([[]], 3)
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([], 3)
    with pytest.raises(ValueError, match=r"row 1 is torch\.float32 \(1,\): expected a list of integer ids"):
        pack([[1], [1.5]], 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="row 0 holds -1: expected ids of at least 0"):
        pack([[3, -1]], 3)
    with pytest.raises(ValueError, match=r"width=2\.5: expected an integer"):
        pack([[1]], 2.5)  # pyright: ignore[reportArgumentType]
    assert pack((iter(row) for row in ROWS), 6).ids.tolist() == pack(ROWS, 6).ids.tolist()
