"""Text and media in one sequence: what goes in comes out, and what was cut is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenzoo
from tokenzoo import Facts, Tokens
from tokenzoo.zoo.interleave import JointTokenizer
from tokenzoo.zoo.legal_counts import at_most, legal_counts, listed
from tokenzoo.zoo.sequence_parts import MediaItem, Part, Span
from tokenzoo.zoo.vocabulary import JointMedium, JointVocabulary

from .joint_toys import BYTES, PHOTO, SPEECH, VOICE, WIDE, joint_toys
from .toys import build_toy

JOINT = joint_toys()
WIDE_AT, PHOTO_AT, SPEECH_AT, VOICE_AT = (block.begin for block in JOINT.vocabulary.blocks)


def wide(ids: list[int]) -> Tokens:
    return WIDE.stamp([ids], extents=[[8, 12]])


def sampled(draw: st.DrawFn, shape: list[int], least: int, most: int) -> list[Any]:
    """Random ids, and both ends of each codebook often."""
    count = draw(st.integers(least, most))
    ids = [st.one_of(st.sampled_from((0, size - 1)), st.integers(0, size - 1)) for size in shape]
    rows = [[draw(each) for each in ids] for _ in range(count)]
    return [row[0] for row in rows] if len(shape) == 1 else rows


@st.composite
def parts(draw: st.DrawFn) -> str | bytes | Tokens:
    match draw(st.sampled_from(["text", "bytes", "wide", "photo", "speech", "voice"])):
        case "text":
            return draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
        case "bytes":
            return draw(st.binary(max_size=3))
        case "wide":
            return wide(sampled(draw, [32], 6, 6))
        case "photo":
            return PHOTO.stamp([sampled(draw, [50], 1, 16)])
        case "speech":
            return SPEECH.stamp([sampled(draw, [6, 8, 3], 1, 5)])
        case _:
            return VOICE.stamp([sampled(draw, [16, 16], 1, 5)])


def normal(sequence: list[Any]) -> list[Any]:
    """Texts that touch as one, empty ones gone."""
    found: list[Any] = []
    for part in sequence:
        told = part.encode() if isinstance(part, str) else part
        if isinstance(told, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += told
        elif told != b"":
            found.append(told)
    return found


def same(part: Part, expected: bytes | Tokens) -> bool:
    if isinstance(expected, bytes):
        return part.medium == "text" and part.text == expected and part.tokens is None
    return part.tokens is not None and part.is_complete and part.tokens.identical(expected)


@given(st.lists(parts(), max_size=6))
@settings(deadline=None, max_examples=150)
def test_every_sequence_comes_back(sequence: list[Any]) -> None:
    told = JOINT.encode(sequence)
    assert told.ids.dtype == torch.int64 and told.ids.ndim == 1
    assert [span.start for span in told.spans] == [0, *(span.stop for span in told.spans)][: len(told.spans)]
    assert len(told.spans) == len(sequence) and sum(s.stop - s.start for s in told.spans) == len(told.ids)
    found, expected = JOINT.decode(told.ids, signals=False), normal(sequence)
    assert [same(part, each) for part, each in zip(found, expected, strict=True)] == [True] * len(expected)


@given(st.lists(parts(), min_size=1, max_size=4), st.floats(0, 1))
@settings(deadline=None, max_examples=150)
def test_a_sequence_cut_anywhere_decodes_to_its_start(sequence: list[Any], cut: float) -> None:
    told = JOINT.encode(sequence)
    stop = round(cut * len(told.ids))
    found, expected = JOINT.decode(told.ids[:stop], signals=False), normal(sequence)
    for part, each in zip(found[:-1], expected, strict=False):
        assert same(part, each)
    if not found:
        return
    last, whole = found[-1], expected[len(found) - 1]
    assert last.span.stop == stop
    if isinstance(whole, bytes):
        assert last.text is not None and whole.startswith(last.text)
    elif not last.is_complete and last.tokens is not None:
        count = int(last.tokens.lengths[0])
        assert count in JOINT.counts[last.medium]
        assert torch.equal(last.tokens.values, whole.values[:, :count])


def test_the_ids_are_those_of_the_table() -> None:
    told = JOINT.encode(["a", wide([0, 31, 5, 6, 7, 8]), SPEECH.stamp([[[5, 7, 2]]]), "", "bc"])
    table = JOINT.vocabulary
    first = table.ranges(WIDE.facts)[0].start
    low, middle, high = (ids.start for ids in table.ranges(SPEECH.facts))
    assert told.ids.tolist() == [
        *(97, WIDE_AT, first, first + 31, first + 5, first + 6, first + 7, first + 8, WIDE_AT + 1),
        *(SPEECH_AT, low + 5, middle + 7, high + 2, SPEECH_AT + 1, 98, 99),
    ]
    assert told.spans == (
        *(Span("text", 0, 1), Span("wide", 1, 9), Span("speech", 9, 14), Span("text", 14, 14)),
        Span("text", 14, 16),
    )
    assert JOINT.vocabulary.size == 256 + (2 + 32) + (2 + 50) + (2 + 17) + (2 + 32)


def test_signals_are_encoded_and_decoded() -> None:
    generator = torch.Generator().manual_seed(0)
    picture, photo = torch.rand(3, 8, 12, generator=generator), torch.rand(3, 16, 16, generator=generator)
    sound = torch.rand(10, generator=generator).numpy() * 2 - 1
    told = JOINT.encode(
        [
            MediaItem("wide", picture),
            MediaItem("photo", photo, keep=3),
            MediaItem("speech", (sound, 16000)),
        ]
    )
    found = JOINT.decode(told.ids)
    assert [part.medium for part in found] == ["wide", "photo", "speech"]
    assert torch.equal(found[0].signal, WIDE.decode(WIDE.encode([picture]))[0])
    assert torch.equal(found[1].signal, PHOTO.decode(PHOTO.encode([photo], keep=3))[0])
    assert found[2].signal.shape == (1, 12), "whole hops of 4 samples"
    tokens = SPEECH.encode([torch.tensor(sound)[None]])
    assert torch.equal(found[2].tokens.ids, tokens.ids)  # pyright: ignore[reportOptionalMemberAccess]
    assert all(part.signal is None for part in JOINT.decode(told.ids.tolist(), signals=False))


def test_text_leaks_no_special_and_no_medium(tmp_path: Path) -> None:
    text = tokenzoo.load("bpe-40k")
    joint = JointTokenizer(text, {"photo": PHOTO})  # pyright: ignore[reportArgumentType]
    spelled = "<|endoftext|><|photo_begin|><|photo_0_00003|><|pad|>"
    ids = joint.encode([spelled]).ids
    assert int(ids.max()) < 40958 and joint.decode(ids)[0].text == spelled.encode()
    end = text.encode(["<|endoftext|>"], allow="all")  # pyright: ignore[reportCallIssue]
    told = joint.encode(["a cat", end, PHOTO.stamp([[1, 2]])])
    assert told.ids.tolist()[-5:] == [40958, 40960, 40963, 40964, 40961]
    assert joint.decode(told.ids, signals=False)[0].text == b"a cat<|endoftext|>"
    assert joint.decode(told.ids, signals=False, skip_specials=True)[0].text == b"a cat"


def cut(ids: list[int]) -> Part:
    (part,) = JOINT.decode(ids)
    return part


def test_what_was_cut_keeps_its_legal_start() -> None:
    first = JOINT.vocabulary.ranges(WIDE.facts)[0].start
    for ids in ([WIDE_AT], [WIDE_AT, first], [WIDE_AT, first, WIDE_AT + 1], [WIDE_AT, WIDE_AT + 1]):
        assert cut(ids).tokens is cut(ids).signal is None and not cut(ids).is_complete
    photo = [PHOTO_AT, PHOTO_AT + 2, PHOTO_AT + 3]
    short = cut(photo)
    assert not short.is_complete and short.signal.shape == (3, 16, 16)
    assert short.tokens is not None and short.tokens.ids.tolist() == [[0, 1]]
    assert cut([*photo, PHOTO_AT + 1]).is_complete
    low, middle, high = (ids.start for ids in JOINT.vocabulary.ranges(SPEECH.facts))
    for ids in ([low, middle + 1, high, low + 2], [low, middle + 1, high, low, middle]):
        spoken = cut([SPEECH_AT, *ids, *[SPEECH_AT + 1] * (len(ids) % 2)])
        assert not spoken.is_complete and spoken.signal.shape == (1, 4)
        assert spoken.tokens is not None and spoken.tokens.ids.tolist() == [[[0, 1, 0]]]
    early, late = (ids.start for ids in JOINT.vocabulary.ranges(VOICE.facts))
    voice = cut([VOICE_AT, early + 7, early + 8, late + 9, early + 1])
    assert voice.tokens is not None and voice.tokens.ids.tolist() == [[[7, 9]]] and not voice.is_complete


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([97, PHOTO_AT + 2], "id 292 at place 1 is retok id 0 of codebook 0: outside of markers only text"),
        ([PHOTO_AT + 1], "id 291 at place 0 is the end marker of photo: outside of markers"),
        ([5000], r"id 5000 at place 0 is outside 0 \.\.\. 394: outside of markers"),
        ([-1], "id -1 at place 0 is outside"),
        ([PHOTO_AT, 97], "id 97 at place 0 of the span from 0 is text id 97: expected codebook 0 of retok"),
        ([97, SPEECH_AT, SPEECH_AT + 2, SPEECH_AT + 3], "at place 1 of the span from 1 is toy-sound id 1 of"),
        ([PHOTO_AT, PHOTO_AT, PHOTO_AT + 1], "is the begin marker of photo: expected codebook 0 of retok"),
        ([PHOTO_AT, WIDE_AT + 1], "is the end marker of wide: expected codebook 0 of retok"),
        ([PHOTO_AT, *[PHOTO_AT + 2] * 17], "17 tokens in the span from 0: photo takes 1, 2, ... 16"),
        ([WIDE_AT, *[WIDE_AT + 2] * 7, WIDE_AT + 1], "7 tokens in the span from 0: wide takes 6"),
        ([VOICE_AT, VOICE_AT + 18], "expected no more ids of toy-codec"),
    ],
)
def test_ids_that_may_not_stand_there_are_named(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JOINT.decode(ids)


def test_what_ids_cannot_carry_is_refused() -> None:
    spoken = SPEECH.stamp([[[5, 7, 2]]])
    wrong: list[tuple[Any, str]] = [
        (replace(spoken, scales=torch.ones(1, 1)), "toy-sound decodes with scales, which ids alone do not"),
        (replace(spoken, durations=torch.ones(1, 1).long()), "toy-sound decodes with durations"),
        (spoken.keep(2), "2 codebooks: speech is written with 3; give its JointMedium depth=2"),
        (SPEECH.stamp([[]]), "0 tokens: speech takes 1 or more"),
        (Tokens.cat([spoken, spoken]), "Tokens of 2 items in one part: give each its own"),
        (WIDE.stamp([[0] * 6], extents=[[12, 8]]), r"a picture of 12 x 8, of which 6 ids .* 8 x 12"),
        (WIDE.stamp([[0] * 4]), "4 tokens: wide takes 6"),
        (build_toy("toy-grid").stamp([[1]]), "toy-grid is not in this vocabulary, which holds: llamagen"),
        (MediaItem("image", "cat.png"), "no medium 'image': this tokenizer has wide, photo, speech, voice"),
        ("\ud800", "lone surrogate at character 0"),
    ]
    for part, message in wrong:
        with pytest.raises(ValueError, match=message):
            JOINT.encode(["a", part])
    karl = build_toy("karl")
    with pytest.raises(ValueError, match="karl decodes with positions"):
        JointTokenizer(BYTES, {"image": karl}).encode([MediaItem("image", torch.rand(3, 16, 16))])
    with pytest.raises(TypeError, match=r"a part is a int: expected text, Tokens or MediaItem"):
        JOINT.encode([3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="parts are a single text"):
        JOINT.encode("abc")
    with pytest.raises(ValueError, match=r"ids are torch.int64 \(1, 2\): expected integers \(L,\)"):
        JOINT.decode(torch.zeros(1, 2, dtype=torch.int64))


def test_table_and_tokenizers_must_agree(tmp_path: Path) -> None:
    table = JointVocabulary(256, (JointMedium("photo", PHOTO.facts),))
    table.save(tmp_path / "joint.json")
    again = JointTokenizer(BYTES, {"photo": PHOTO}, JointVocabulary.load(tmp_path / "joint.json"))
    assert again.vocabulary == table == JointTokenizer(BYTES, {"photo": PHOTO}).vocabulary
    with pytest.raises(ValueError, match="the vocabulary has 7 ids of text, bytes 256"):
        JointTokenizer(BYTES, {"photo": PHOTO}, JointVocabulary(7, table.media))
    with pytest.raises(ValueError, match="media are picture, the vocabulary's photo"):
        JointTokenizer(BYTES, {"picture": PHOTO}, table)
    with pytest.raises(
        ValueError, match="photo: the vocabulary was made with another retok than this llamagen"
    ):
        JointTokenizer(BYTES, {"photo": WIDE}, table)


def test_a_deeper_item_is_cut_to_the_depth_of_its_medium() -> None:
    told = JOINT.encode([VOICE.stamp([[[1, 2, 3], [4, 5, 6]]])])
    (part,) = JOINT.decode(told.ids)
    assert part.tokens is not None and part.tokens.ids.tolist() == [[[1, 2], [4, 5]]]


@pytest.mark.parametrize(
    ("name", "extent", "expected"),
    [
        ("llamagen", None, "1, 4, ... 4096"),
        ("llamagen", (8, 12), "6"),
        ("retok", None, "1, 2, ... 16"),
        ("toy-grid", (8, 12), "1, 2, 3, 4, 5, 6"),
        ("alit", None, "3, 6, 9, 12"),
        ("seed", None, "6"),
        ("snac", None, "1 or more"),
        ("small-windowed-snac", None, "2, 4, ..."),
        ("units", None, "1 or more"),
    ],
)
def test_legal_counts(name: str, extent: tuple[int, int] | None, expected: str) -> None:
    toy = build_toy(name)
    counts = legal_counts(toy, JointMedium("it", toy.facts, extent=extent))
    assert listed(counts) == expected
    assert at_most(counts, counts[0]) == counts[0] and at_most(counts, counts[0] - 1) == 0
    assert at_most(counts, counts[1 % len(counts)]) == counts[1 % len(counts)]


def test_sound_of_every_legal_count_decodes() -> None:
    for name in ("small-windowed-snac", "mimi", "dac", "small-segmented-encodec", "xcodec2"):
        toy = build_toy(name)
        joint = JointTokenizer(BYTES, {"sound": toy})
        block = joint.vocabulary.block("sound")
        for count in joint.counts["sound"][:3]:
            zeros = [ids.start for ids in block.ranges] * count
            (part,) = joint.decode([block.begin, *zeros, block.end])
            assert part.is_complete and part.signal.shape[-1] > 0, f"{name}, {count} tokens"


def test_an_encoder_alone_gives_tokens() -> None:
    seed = build_toy("seed")
    joint = JointTokenizer(BYTES, {"image": seed})
    (part,) = joint.decode(joint.encode([seed.stamp([[1, 2, 3, 4, 5, 6]])]).ids)
    assert part.signal is None and part.tokens is not None and part.is_complete


def test_facts_of_the_text_must_be_ids() -> None:
    with pytest.raises(ValueError, match="toy is continuous"):
        JointVocabulary(0, (Facts(name="toy", modality="image", latent_dim=2),))
