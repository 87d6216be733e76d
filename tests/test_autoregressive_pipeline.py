"""The autoregressive pipeline: what it learned comes back, guided as two forwards say, and is saved."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.zoo.autoregressive_pipeline import AutoregressiveTokenPipeline
from tokenzoo.zoo.sampling import GumbelChoice, LegalTurns

from .tiny_generators import CLASSES, TOKENS, ids_of_classes, quiet, trained_autoregressive
from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained(name: str = "toy-grid", **more: Any) -> AutoregressiveTokenPipeline:
    torch.manual_seed(3)
    size: dict[str, Any] = {"num_tokens": TOKENS, "width": 16, "layers": 1, "heads": 1}
    made = AutoregressiveTokenPipeline.untrained(build_toy(name), **{"num_conditions": CLASSES} | size | more)
    with torch.no_grad():  # far from uniform, so that a condition makes a difference
        for weight in made.transformer.parameters():
            weight.normal_(std=0.4)
    return quiet(made)


@pytest.mark.parametrize("name", ["toy-grid", "toy-sound"])
def test_a_class_gives_its_row(name: str) -> None:
    pipeline = trained_autoregressive(name)
    made = pipeline([2, 0, 1], generator=seeded(0), guidance_scale=1.5)
    expected = ids_of_classes(build_toy(name))[[2, 0, 1]]
    assert made.tokens.ids.tolist() == expected.tolist()
    if name == "toy-sound":
        tokenizer = pipeline.tokenizer.tokenizer
        torch.testing.assert_close(made.audios, tokenizer.decode(tokenizer.stamp(expected)), atol=0, rtol=0)


def test_no_class_gives_any_of_the_rows() -> None:
    made = trained_autoregressive("toy-grid")([None] * 20, generator=seeded(0))
    known = {tuple(row) for row in ids_of_classes(build_toy("toy-grid")).tolist()}
    rows = [tuple(row) for row in made.tokens.ids.tolist()]
    assert known <= set(rows) and sum(row in known for row in rows) >= 18


def greedy_reference(pipeline: AutoregressiveTokenPipeline, told: list[int], scale: float) -> Tensor:
    """Two forwards over the whole row for every id, without a cache."""
    begin = CLASSES + 1
    rows, untold = torch.tensor([[*told, begin]]), torch.tensor([[CLASSES, begin]])
    sizes = pipeline.row.sizes
    starts = [begin + 2 + sum(sizes[:turn]) for turn in range(len(sizes))]
    ids: list[int] = []
    for place in range(TOKENS * len(sizes)):
        turn = place % len(sizes)
        written = torch.tensor([ids], dtype=torch.int64)
        with torch.no_grad():
            given, none = (
                pipeline.transformer(torch.cat([head, written], dim=1)).logits[0, -1].log_softmax(-1)
                for head in (rows, untold)
            )
        guided = (none + scale * (given - none))[starts[turn] : starts[turn] + sizes[turn]]
        ids.append(int(guided.argmax()) + starts[turn])
    return torch.tensor(ids)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance_with_a_cache_is_two_forwards_without(scale: float) -> None:
    pipeline = untrained("toy-sound", longest_condition=4)
    made = pipeline([1, [0, 2, 1], None], guidance_scale=scale, temperature=0)
    rows = torch.tensor(pipeline.vocabulary.flatten(made.tokens))
    expected = [greedy_reference(pipeline, told, scale) for told in ([1], [0, 2, 1], [CLASSES])]
    assert rows.tolist() == torch.stack(expected).tolist()
    other = pipeline([1, [0, 2, 1], None], guidance_scale=4.0 - scale, temperature=0)
    assert not made.tokens.identical(other.tokens)


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(20000, 3)
    drawn = GumbelChoice(seeded(0))(torch.zeros(20000, 1), logits).argmax(-1)
    shares = drawn.bincount() / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.01, rtol=0)


def test_only_the_codebook_whose_turn_it_is() -> None:
    legal = LegalTurns((range(2, 4), range(4, 7)), prompt=1)
    for length, expected in ((1, [2, 3]), (2, [4, 5, 6]), (3, [2, 3])):
        scores = legal(torch.zeros(1, length), torch.ones(1, 8))
        assert scores[0].isfinite().nonzero()[:, 0].tolist() == expected


def test_the_seed_decides() -> None:
    pipeline = untrained()
    first, again, other = (pipeline([0, 1], generator=seeded(seed)).tokens.ids for seed in (5, 5, 6))
    assert first.tolist() == again.tolist() != other.tolist()


def test_with_a_generator_each_a_batch_equals_its_singles() -> None:
    pipeline = untrained("toy-sound", longest_condition=3)
    told = [0, [1, 2, 0], None]
    batch = pipeline(told, generator=[seeded(seed) for seed in (1, 2, 3)], guidance_scale=2.0).tokens
    for index, each in enumerate(told):
        single = pipeline([each], generator=[seeded(index + 1)], guidance_scale=2.0).tokens
        assert single.ids[0].tolist() == batch.ids[index].tolist()


def test_top_k_and_top_p_and_temperature() -> None:
    pipeline = untrained()
    greedy = pipeline([0], temperature=0).tokens.ids.tolist()
    choices: list[dict[str, Any]] = [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}]
    for choice in choices:
        assert pipeline([0], generator=seeded(9), **choice).tokens.ids.tolist() == greedy
    assert pipeline([0], generator=seeded(9)).tokens.ids.tolist() != greedy


@pytest.mark.usefixtures("toy_families")
def test_a_saved_pipeline_makes_the_same(tmp_path: Path) -> None:
    pipeline = untrained("toy-sound", text_tokenizer=ByteTokenizer(), longest_condition=5, depth=2)
    pipeline.save_pretrained(tmp_path)
    loaded = quiet(AutoregressiveTokenPipeline.from_pretrained(tmp_path))
    prompts = ["a cat", "dog", None]
    before, after = (each(prompts, generator=seeded(4), guidance_scale=2.0) for each in (pipeline, loaded))
    assert after.tokens.identical(before.tokens) and before.tokens.ids.shape == (3, TOKENS, 2)
    torch.testing.assert_close(after.audios, before.audios, atol=0, rtol=0)
    assert isinstance(loaded.transformer, transformers.LlamaForCausalLM)
    assert isinstance(loaded.text_tokenizer.tokenizer, ByteTokenizer)


def test_a_text_is_its_ids() -> None:
    pipeline = untrained(text_tokenizer=ByteTokenizer(), longest_condition=3)
    by_text, by_ids = (pipeline([told], temperature=0) for told in ("cat", list(b"cat")))
    assert by_text.tokens.identical(by_ids.tokens)
    assert not by_text.tokens.identical(pipeline(["dog"], temperature=0).tokens)


def test_fewer_tokens_are_a_prefix() -> None:
    pipeline = untrained()
    every, some = pipeline([1], temperature=0), pipeline([1], temperature=0, num_tokens=4)
    assert some.tokens.ids.tolist() == every.tokens.ids[:, :4].tolist()


def test_rows_to_train_on() -> None:
    pipeline = untrained("toy-sound", depth=2)
    tokens = build_toy("toy-sound").stamp([[[5, 7, 2], [1, 0, 0]], [[0, 1, 2]]])
    assert pipeline.rows(tokens, [2, None]) == [[2, 4, 11, 19, 7, 12], [3, 4, 6, 13]]
    assert pipeline.rows(tokens, [2, 1], drop=1.0)[0][0] == pipeline.nobody == 3


def test_conditions_of_numpy_are_ids() -> None:
    pipeline = untrained()
    ours, theirs = (pipeline([each], temperature=0).tokens for each in (1, np.int64(1)))  # pyright: ignore[reportArgumentType]
    assert ours.identical(theirs)


def test_what_cannot_be_is_refused() -> None:
    pipeline, grid = untrained(), build_toy("toy-grid")
    model = pipeline.transformer
    with pytest.raises(ValueError, match="toy-kl is continuous: floats have no ids to generate"):
        AutoregressiveTokenPipeline(build_toy("toy-kl"), model)
    with pytest.raises(ValueError, match=r"the transformer has 22 ids: .* need 23"):
        AutoregressiveTokenPipeline(grid, model, num_conditions=4, num_tokens=TOKENS)
    with pytest.raises(ValueError, match=r"the transformer has 8 positions: .* 7 tokens need 9"):
        AutoregressiveTokenPipeline(grid, model, num_conditions=3, num_tokens=7)
    with pytest.raises(ValueError, match="1 conditions for 2 items"):
        pipeline.rows(grid.stamp([[1], [2]]), [0])
    with pytest.raises(ValueError, match=r"drop=1\.5: expected a chance from 0 to 1"):
        pipeline.rows(grid.stamp([[1]]), [0], drop=1.5)
    with pytest.raises(ValueError, match="9 tokens: this generator takes 6"):
        pipeline.rows(grid.stamp([[1] * 9]), [0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"conditions": [3]}, "condition 3: expected ids in 0 ... 2, or None for none"),
        ({"conditions": [[]]}, "condition ..: expected ids"),
        ({"conditions": []}, "conditions are empty"),
        ({"conditions": [True]}, "condition True: expected ids in"),
        ({"conditions": [[1.0]]}, "condition .1.0.: expected ids in"),
        ({"conditions": 1}, "conditions=1: expected a list, one for each item"),
        ({"conditions": [0], "guidance_scale": math.inf}, "guidance_scale=inf: expected a finite number"),
        ({"conditions": [0], "temperature": math.nan}, "temperature=nan: expected a finite number of at"),
        ({"conditions": ["a cat"]}, "a condition is a string: make the pipeline with a text_tokenizer"),
        ({"conditions": [[0, 1]]}, "condition and tokens are 9 ids: the transformer has 8 positions"),
        ({"conditions": [0], "temperature": -1}, "temperature=-1"),
        ({"conditions": [0], "num_tokens": 0}, "num_tokens=0: this generator makes 1 ... 6"),
        ({"conditions": [0], "output_type": "np"}, "output_type='np'"),
        ({"conditions": [0], "generator": []}, "0 generators for 1 items"),
    ],
)
def test_a_wrong_call_is_told_so(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        untrained()(**call)
