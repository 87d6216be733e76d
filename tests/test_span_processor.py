"""Whatever a model of transformers samples under the processor decodes."""

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor

from tokenzoo.zoo.interleave import JointTokenizer
from tokenzoo.zoo.span_grammar import SpanGrammar
from tokenzoo.zoo.vocabulary import JointMedium, JointVocabulary

from .joint_toys import BYTES, PHOTO, SPEECH, VOICE, joint_toys

JOINT = joint_toys()
TABLE = JOINT.vocabulary
WIDE_AT, PHOTO_AT, SPEECH_AT, VOICE_AT = (block.begin for block in TABLE.blocks)
PADDED = 448  # rows of the embedding, more than there are ids
END = 0  # a byte that ends a sequence


class Boost(LogitsProcessor):
    """Media come often, and all ends at times: a model without training would hardly begin one."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[:, [block.begin for block in TABLE.blocks]] += 4
        scores[:, [END, *(block.end for block in TABLE.blocks)]] += 2
        return scores


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=PADDED,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=END,
    )
    return LlamaForCausalLM(config).eval()


def prompts() -> list[list[int]]:
    """Text; and every kind of span, just begun, within a token, and all but ended. All are as long."""
    begun = [[block.begin] for block in TABLE.blocks]
    low, middle, _ = (ids.start for ids in TABLE.ranges(SPEECH.facts))
    early, late = (ids.start for ids in TABLE.ranges(VOICE.facts))
    inside = [
        [SPEECH_AT, low + 5, middle + 7],
        [VOICE_AT, early, early, late + 1],
        [VOICE_AT, early, late],
        [PHOTO_AT, PHOTO_AT + 2],
        [WIDE_AT, *[WIDE_AT + 33] * 5],
        [WIDE_AT, *[WIDE_AT + 33] * 6],
        [WIDE_AT, *[WIDE_AT + 33] * 6, WIDE_AT + 1],
    ]
    found = [*begun, *inside, list(b"a cat"), [7]]
    return [[65] * (8 - len(each)) + each for each in found]


def generated(model: LlamaForCausalLM, rows: int, processor: Any, seed: int = 0, **options: Any) -> Tensor:
    start = torch.tensor(list(itertools.islice(itertools.cycle(prompts()), rows)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.generate(  # pyright: ignore
            start,
            attention_mask=torch.ones_like(start),
            logits_processor=[Boost(), processor],
            **options,
        )


def test_a_thousand_sampled_sequences_decode(model: LlamaForCausalLM) -> None:
    processor = JOINT.logits_processor(max_length=48)
    batches = [generated(model, 250, processor, seed, do_sample=True, max_length=48) for seed in range(4)]
    rows = [row for batch in batches for row in batch.tolist()]
    assert len(rows) == 1000 and len({tuple(row) for row in rows}) > 900
    found = [part for row in rows for part in JOINT.decode(row, signals=False)]
    media = [part for part in found if part.medium != "text"]
    assert all(part.is_complete for part in media), "max_length leaves no span cut"
    counts = {name: {int(p.tokens.lengths[0]) for p in media if p.medium == name} for name in JOINT.media}
    assert counts["wide"] == {6} and counts["photo"] <= set(range(1, 17)) and len(counts["photo"]) > 8
    assert len(counts["speech"]) > 5 and len(counts["voice"]) > 5
    assert len(media) > 1000


def test_their_signals_decode_too(model: LlamaForCausalLM) -> None:
    processor = JOINT.logits_processor(counts={"photo": (4, 16)}, max_length=60)
    rows = generated(model, 26, processor, do_sample=True, max_length=60)
    media = [part for row in rows for part in JOINT.decode(row) if part.medium != "text"]
    assert all(bool(part.signal.isfinite().all()) and part.signal.ndim >= 2 for part in media)
    photos = {int(p.tokens.lengths[0]) for p in media if p.medium == "photo" and p.tokens is not None}
    assert photos <= {4, 16} and len(media) > 26


def test_without_an_end_only_the_last_span_may_be_cut(model: LlamaForCausalLM) -> None:
    rows = generated(model, 130, JOINT.logits_processor(), do_sample=True, max_new_tokens=20)
    parts = [JOINT.decode(row, signals=False) for row in rows]
    assert all(part.is_complete for row in parts for part in row[:-1])
    assert any(not row[-1].is_complete for row in parts)


def test_beams_that_swap_histories_stay_legal(model: LlamaForCausalLM) -> None:
    for sample in (False, True):
        processor = JOINT.logits_processor(max_length=40)
        rows = generated(
            model, 13, processor, num_beams=4, num_return_sequences=4, do_sample=sample, max_length=40
        )
        parts = [part for row in rows for part in JOINT.decode(row, signals=False)]
        assert len(rows) == 52 and all(part.is_complete for part in parts)
        assert {part.medium for part in parts} >= {"wide", "photo", "text"}


def test_only_the_media_asked_for_begin(model: LlamaForCausalLM) -> None:
    processor = JOINT.logits_processor(media=("wide",))
    rows = generated(model, 65, processor, do_sample=True, max_new_tokens=30)
    new = {part.medium for row in rows for part in JOINT.decode(row, signals=False) if part.span.start >= 8}
    assert new == {"wide", "text"}


def legal(ids: Sequence[int], **options: Any) -> set[int]:
    """What may follow, by the processor itself."""
    scores = JOINT.logits_processor(**options)(torch.tensor([list(ids)]), torch.zeros(1, PADDED))
    return set(scores[0].isfinite().nonzero()[:, 0].tolist())


def test_what_may_follow() -> None:
    text = set(range(256))
    begins = {WIDE_AT, PHOTO_AT, SPEECH_AT, VOICE_AT}
    codes = [set(ids) for block in TABLE.blocks for ids in block.ranges]
    wide, photo, low, middle, high, early, late = codes
    assert legal([65]) == text | begins and legal([65], media=["photo"]) == text | {PHOTO_AT}
    assert legal([65, WIDE_AT]) == wide == legal([WIDE_AT, *[WIDE_AT + 2] * 5])
    assert legal([WIDE_AT, *[WIDE_AT + 2] * 6]) == {WIDE_AT + 1}
    assert legal([WIDE_AT, *[WIDE_AT + 2] * 6, WIDE_AT + 1]) == text | begins
    assert legal([PHOTO_AT]) == photo and legal([PHOTO_AT, PHOTO_AT + 2]) == photo | {PHOTO_AT + 1}
    assert legal([PHOTO_AT, *[PHOTO_AT + 2] * 16]) == {PHOTO_AT + 1}
    first, second, third = min(low), min(middle), min(high)
    assert legal([SPEECH_AT]) == low and legal([SPEECH_AT, first]) == middle
    assert legal([SPEECH_AT, first, second]) == high
    assert legal([SPEECH_AT, first, second, third]) == low | {SPEECH_AT + 1}
    a, b = min(early), min(late)
    assert legal([VOICE_AT]) == early and legal([VOICE_AT, a]) == early | late
    assert legal([VOICE_AT, a, b]) == {VOICE_AT + 1} and legal([VOICE_AT, a, a]) == late
    assert legal([VOICE_AT, a, a, b]) == early | late and legal([VOICE_AT, a, a, b, b]) == {VOICE_AT + 1}


def test_a_span_gone_wrong_can_only_end() -> None:
    late = TABLE.ranges(VOICE.facts)[1].start
    assert legal([WIDE_AT, *[WIDE_AT + 2] * 7]) == {WIDE_AT + 1}
    assert legal([VOICE_AT, late - 1, late, late]) == {VOICE_AT + 1} == legal([VOICE_AT, late])


def test_chosen_counts_and_the_end_of_room() -> None:
    counts = {"photo": (2, 4), "speech": range(2, 4)}
    photo = [PHOTO_AT, PHOTO_AT + 2]
    codes, low = set(TABLE.ranges(PHOTO.facts)[0]), set(TABLE.ranges(SPEECH.facts)[0])
    assert legal(photo, counts=counts) == codes
    assert legal([*photo, PHOTO_AT + 2], counts=counts) == codes | {PHOTO_AT + 1}
    assert legal([*photo, *photo[1:] * 2], counts=counts) == codes
    token = [ids.start for ids in TABLE.ranges(SPEECH.facts)]
    assert legal([SPEECH_AT, *token], counts=counts) == low
    assert legal([SPEECH_AT, *token * 2], counts=counts) == low | {SPEECH_AT + 1}
    assert legal([SPEECH_AT, *token * 3], counts=counts) == {SPEECH_AT + 1}
    # 4 tokens of a photo need 6 places, markers counted; 2 need 4; the shortest of the others more or fewer.
    room = {"counts": counts, "max_length": 5}
    assert legal([65], **room) == {*range(256), PHOTO_AT, VOICE_AT} and legal([65, 65], **room) == {
        *range(256)
    }
    assert legal([*photo, PHOTO_AT + 2], **room) == {PHOTO_AT + 1}
    assert legal([65, 65, *photo], **room) == codes, "begun too late in the prompt: it will be cut"


def test_ranges_are_not_walked_through() -> None:
    for chosen in (range(1, 10**9), range(10**9 - 1, 0, -1)):
        found = JOINT.logits_processor(counts={"speech": chosen}).grammar.counts["speech"]
        assert found == range(1, 10**9)


def test_rows_stand_each_for_themselves() -> None:
    rows = [
        [65, 65, 65],
        [65, 65, WIDE_AT],
        [65, PHOTO_AT, PHOTO_AT + 9],
        [PHOTO_AT, PHOTO_AT + 9, PHOTO_AT + 1],
    ]
    scores = torch.randn(4, PADDED)
    found = JOINT.logits_processor()(torch.tensor(rows), scores)
    for row, told, given_scores in zip(rows, found, scores, strict=True):
        assert torch.equal(told, JOINT.logits_processor()(torch.tensor([row]), given_scores[None])[0])
        assert torch.equal(told[told.isfinite()], given_scores[told.isfinite()])


@given(
    order=st.sampled_from(["token", "delay"]),
    counts=st.sets(st.integers(1, 6), min_size=1).map(sorted),
    room=st.one_of(st.none(), st.integers(20, 30)),
    chance=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=100)
def test_a_walk_by_the_grammar_always_decodes(order: Any, counts: list[int], room: Any, chance: Any) -> None:
    table = JointVocabulary(2, (JointMedium("speech", SPEECH.facts, order=order),))
    grammar = SpanGrammar(table, {"speech": counts}, max_length=room)
    joint = JointTokenizer(_TwoTexts(), {"speech": SPEECH}, table)  # pyright: ignore[reportArgumentType]
    ids: list[int] = []
    while len(ids) < 20 or (grammar.states(torch.tensor([ids]))[0].block and room is None):
        allowed = grammar.allowed(grammar.states(torch.tensor([ids], dtype=torch.int64))[0])
        ids.append(chance.choice([*allowed.markers, *itertools.chain(*allowed.ranges)]))
    ends = [span for span in joint._spans(ids) if span.medium == "speech"]
    if room is not None and ends and ids[-1] != table.blocks[0].end and ends[-1].stop == len(ids):
        ends.pop()
    whole = [table.whole_tokens(table.blocks[0], ids[span.start + 1 : span.stop - 1]) for span in ends]
    assert all(len(tokens) in counts for tokens in whole)
    assert all(
        len(tokens) * 3 == span.stop - span.start - 2 for tokens, span in zip(whole, ends, strict=True)
    )


class _TwoTexts:
    """A text tokenizer of two ids, so that walks come to media soon."""

    facts = BYTES.facts.from_dict({"name": "two", "modality": "text", "codebook_sizes": [2]})


def test_what_cannot_be_kept_legal_says_so() -> None:
    with pytest.raises(ValueError, match=r"counts of photo \[0, 3\]: it decodes 1, 2, \.\.\. 16 tokens"):
        JOINT.logits_processor(counts={"photo": [0, 3]})
    with pytest.raises(ValueError, match=r"counts of wide \[\]: it decodes 6 tokens"):
        JOINT.logits_processor(counts={"wide": []})
    with pytest.raises(ValueError, match=r"counts of photo 8: expected a list of counts, e\.g\. \[8\]"):
        JOINT.logits_processor(counts={"photo": 8})  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"counts of photo range\(1, 1000000000\): it decodes 1, 2, \.\.\. 16"
    ):
        JOINT.logits_processor(counts={"photo": range(1, 10**9)})
    with pytest.raises(ValueError, match=r"counts of wide range\(6, 10{30}\): it decodes 6 tokens"):
        JOINT.logits_processor(counts={"wide": range(6, 10**30)})
    with pytest.raises(ValueError, match="counts of 'image': the joint tokenizer has wide, photo"):
        JOINT.logits_processor(counts={"image": [1]})
    with pytest.raises(ValueError, match="'image' is not in this vocabulary, which holds: wide, photo"):
        JOINT.logits_processor(media=["image"])
    with pytest.raises(
        ValueError, match=r"the model knows 300 ids, the joint vocabulary has 395: model\.resize"
    ):
        JOINT.logits_processor()(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 300))


def test_transformers_is_imported_by_the_processor_alone() -> None:
    code = "import sys, tokenzoo.zoo.interleave; print('transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False"
