"""The joint vocabulary: ranges that do not touch, spans that come back, and words for what does not fit."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo import Facts, Tokens
from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.zoo.vocabulary import JointMedium, JointVocabulary

from .toys import build_toy

BYTES, GRID, SOUND = ByteTokenizer(), build_toy("toy-grid"), build_toy("toy-sound")
TABLE = JointVocabulary(1000, (GRID.facts, SOUND.facts))


def test_text_comes_first_and_every_codebook_has_its_range() -> None:
    assert TABLE.size == 1000 + (2 + 16) + (2 + 6 + 8 + 3)
    assert TABLE.ranges(GRID.facts) == (range(1002, 1018),)
    assert TABLE.ranges(SOUND.facts) == (range(1020, 1026), range(1026, 1034), range(1034, 1037))
    assert [(block.begin, block.end) for block in TABLE.blocks] == [(1000, 1001), (1018, 1019)]


def test_a_medium_added_at_the_end_moves_no_id() -> None:
    assert JointVocabulary(1000, (GRID.facts,)).blocks == TABLE.blocks[:1]


@given(st.integers(0, 50), st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=4))
def test_ranges_cover_the_vocabulary_once(text_size: int, media: list[list[int]]) -> None:
    facts = [
        Facts(name=str(index), modality="audio", codebook_sizes=tuple(sizes))
        for index, sizes in enumerate(media)
    ]
    table = JointVocabulary(text_size, tuple(facts))
    held = [(block.begin, block.end, *itertools.chain(*block.ranges)) for block in table.blocks]
    ids = [*range(text_size), *itertools.chain(*held)]
    assert ids == list(range(table.size))


def test_a_token_flattens_to_its_ids_in_order() -> None:
    tokens = SOUND.stamp([[[5, 7, 2], [1, 0, 0]], [[0, 1, 2]], []])
    assert TABLE.flatten(tokens) == [[1025, 1033, 1036, 1021, 1026, 1034], [1020, 1027, 1036], []]
    assert TABLE.flatten(tokens.keep(2)) == [[1025, 1033, 1021, 1026], [1020, 1027], []]
    assert TABLE.flatten(GRID.stamp([[3, 0, 15, 1]])) == [[1005, 1002, 1017, 1003]]


def test_spans_come_back() -> None:
    sound = SOUND.encode([torch.linspace(-1, 1, size)[None] for size in (9, 1, 8)])
    assert TABLE.stamp(SOUND, TABLE.flatten(sound), extents=sound.extents).identical(sound)
    short = sound.keep(2)
    assert TABLE.stamp(SOUND, TABLE.flatten(short), depth=2, extents=sound.extents).identical(short)
    picture = GRID.encode(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).keep(3)
    assert TABLE.stamp(GRID, TABLE.flatten(picture)).identical(picture)
    assert TABLE.stamp(SOUND, [[], []]).lengths.tolist() == [0, 0]
    assert TABLE.stamp(GRID, torch.tensor([[1005, 1002]])).ids.tolist() == [[3, 0]]  # pyright: ignore


def test_media_side_by_side_in_one_string() -> None:
    sound, picture = SOUND.stamp([[[5, 7, 2]]]), GRID.stamp([[3, 0, 15, 1]])
    string = [7, *TABLE.flatten(sound)[0], *TABLE.flatten(picture)[0], 999]
    kinds = [TABLE.describe(joint_id).split()[0] for joint_id in string]
    assert kinds == ["text", *["toy-sound"] * 3, *["toy-grid"] * 4, "text"]
    spans = {kind: [i for i, k in zip(string, kinds, strict=True) if k == kind] for kind in set(kinds)}
    assert TABLE.stamp(SOUND, [spans["toy-sound"]]).identical(sound)
    assert TABLE.stamp(GRID, [spans["toy-grid"]]).identical(picture)


def test_describe_at_both_ends_of_each_range() -> None:
    assert TABLE.describe(0) == "text id 0" and TABLE.describe(999) == "text id 999"
    assert TABLE.describe(1002) == "toy-grid id 0 of codebook 0"
    assert TABLE.describe(1017) == "toy-grid id 15 of codebook 0"
    assert TABLE.describe(1025) == "toy-sound id 5 of codebook 0"
    assert TABLE.describe(1036) == "toy-sound id 2 of codebook 2"
    assert TABLE.describe(1000) == "the begin marker of toy-grid"
    assert TABLE.describe(1019) == "the end marker of toy-sound"
    assert TABLE.describe(1037) == TABLE.describe(-1) == "outside 0 ... 1036"


@pytest.mark.parametrize(
    ("spans", "more", "message"),
    [
        ([[1020, 1026, 1034, 1020]], {}, "span 0 has 4 ids: toy-sound takes a multiple of 3; was it cut?"),
        (
            [[], [1020, 1026, 1033]],
            {},
            "id 1033 at place 2 of span 1 is toy-sound id 7 of codebook 1: expected codebook 2",
        ),
        ([[7, 1026, 1034]], {}, "id 7 at place 0 of span 0 is text id 7: expected codebook 0 of toy-sound"),
        ([[1020, 1026, 2000]], {}, r"id 2000 at place 2 of span 0 is outside 0 \.\.\. 1036"),
        ([[1020, 1026, -1]], {}, r"id -1 at place 2 of span 0 is outside 0 \.\.\. 1036"),
        ([[1020, 1026, 1020]], {"depth": 2}, "span 0 has 3 ids: toy-sound takes a multiple of 2"),
        ([[1020]], {"depth": 4}, "depth=4: toy-sound has 3 codebooks"),
        ([[1020]], {"depth": 0}, "depth=0: toy-sound has 3 codebooks"),
        ([[1020, 1026, 1034]], {"extents": [[9]]}, "1 tokens for an extent of 9: toy-sound takes 3"),
    ],
)
def test_spans_that_do_not_fit_say_why(spans: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TABLE.stamp(SOUND, spans, **more)


def test_strangers_and_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes is not in this vocabulary, which holds: toy-grid, toy-sound"):
        TABLE.flatten(BYTES.encode(["a"]))
    with pytest.raises(ValueError, match="bytes is not in this vocabulary"):
        TABLE.stamp(BYTES, [[3]])
    with pytest.raises(ValueError, match="which holds: none"):
        JointVocabulary(5, ()).ranges(BYTES.facts)
    trained = JointVocabulary(0, (replace(GRID.facts, fingerprint="a"),))
    with pytest.raises(ValueError, match="toy-grid is not in this vocabulary"):
        trained.ranges(replace(GRID.facts, fingerprint="b"))
    with pytest.raises(
        ValueError, match="toy-kl is continuous: floats have no ids; choose a discrete tokenizer"
    ):
        JointVocabulary(1000, (GRID.facts, build_toy("toy-kl").facts))
    floats = build_toy("toy-kl")
    with pytest.raises(TypeError, match="toy-kl is continuous"):
        TABLE.flatten(floats.encode(torch.zeros(1, 3, 8, 8)))
    with pytest.raises(ValueError, match="toy-grid stands in the table twice"):
        JointVocabulary(0, (GRID.facts, GRID.facts))
    for depth, message in (
        (4, "depth=4: toy-sound has 3 codebooks"),
        (0, "expected an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            JointMedium("speech", SOUND.facts, depth=depth)
    with pytest.raises(ValueError, match="depth=2: the codebooks of toy-grid do not nest"):
        JointMedium("image", GRID.facts, depth=2)
    for name in ("text", "", "a b", "a|b", "a\n"):
        with pytest.raises(ValueError, match="expected a name without spaces"):
            JointMedium(name, GRID.facts)
    with pytest.raises(ValueError, match="order='raster': expected one of token, delay"):
        JointMedium("image", GRID.facts, order="raster")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="two media are called 'a': give each a name of its own"):
        JointVocabulary(0, (JointMedium("a", GRID.facts), JointMedium("a", SOUND.facts)))
    with pytest.raises(ValueError, match="3 codebooks: this vocabulary holds 2 of toy-sound; cut them with"):
        shallow = JointVocabulary(0, (JointMedium("speech", SOUND.facts, depth=2),))
        shallow.flatten(SOUND.stamp([[[5, 7, 2]]]))
    for size in (-1, 2.0, True):
        with pytest.raises(ValueError, match=rf"text_size={size}: expected an integer, 0 or more"):
            JointVocabulary(size, ())  # pyright: ignore[reportArgumentType]


def test_the_table_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    TABLE.save(path)
    assert JointVocabulary.load(path) == TABLE
    plain = json.loads(path.read_text())
    assert [entry["offsets"] for entry in plain["media"]] == [[1002], [1020, 1026, 1034]]
    assert [(entry["begin"], entry["end"]) for entry in plain["media"]] == [(1000, 1001), (1018, 1019)]
    chosen = JointMedium("speech", SOUND.facts, order="delay", depth=2)
    table = JointVocabulary(7, (chosen, JointMedium("wide", GRID.facts, extent=(8, 16))))
    table.save(path)
    assert JointVocabulary.load(path) == table and table.size == 7 + 2 + 6 + 8 + 2 + 16
    empty = JointVocabulary(0, ())
    empty.save(path)
    assert JointVocabulary.load(path) == empty and empty.size == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, r"v\.json: offsets or format_version do not fit the facts"),
        (
            {"format_version": 1},
            "format_version 1 has no begin and end markers, so its ids are others: build",
        ),
        ({"text_size": 999}, "offsets or format_version do not fit"),
        ({"text_size": "1000"}, "text_size='1000': expected an integer"),
        ({"media": None}, r"no joint vocabulary \(TypeError"),
        (
            {"media": [{"offsets": []}]},
            r"no joint vocabulary \(KeyError\('extent'\)\): write one with its save",
        ),
        ({"media": [{"extent": None, "name": "x", "facts": {"name": "x"}}]}, "facts lack modality"),
        ({"media": [{"extent": None, "name": "text", "facts": GRID.facts.to_dict()}]}, "KeyError"),
        ({"more": 1}, "do not fit"),
    ],
)
def test_a_table_that_lies_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(TABLE.to_dict() | change))
    with pytest.raises(ValueError, match=message):
        JointVocabulary.load(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"v\.json: "):
        JointVocabulary.load(path)


def test_a_delayed_span_lets_later_codebooks_come_later() -> None:
    table = JointVocabulary(100, (JointMedium("speech", SOUND.facts, order="delay"),))
    first, second, third = (ids.start for ids in table.ranges(SOUND.facts))
    tokens = SOUND.stamp([[[0, 1, 2], [3, 4, 0], [5, 6, 1]], [[1, 2, 0]], []])
    expected = [first, first + 3, second + 1, first + 5, second + 4, third + 2, second + 6, third, third + 1]
    assert table.flatten(tokens) == [expected, [first + 1, second + 2, third], []]
    assert table.stamp(SOUND, table.flatten(tokens)).identical(tokens)
    assert table.stamp(SOUND, table.flatten(tokens.keep(2)), depth=2).identical(tokens.keep(2))
    with pytest.raises(ValueError, match="span 0 has 6 ids: toy-sound takes a multiple of 3"):
        table.stamp(SOUND, [expected[:6]])
    with pytest.raises(
        ValueError, match="at place 1 of span 0 is toy-sound id 2 of codebook 2: expected codebook 1"
    ):
        table.stamp(SOUND, [[first, third + 2, second]])


def test_padding_is_not_flattened() -> None:
    tokens = Tokens.cat([GRID.stamp([[1, 2]]), GRID.stamp([[4, 5, 6]])])
    assert TABLE.flatten(tokens) == [[1003, 1004], [1006, 1007, 1008]]


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, tokenzoo.zoo.vocabulary; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
