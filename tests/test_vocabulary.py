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
from tokenzoo.zoo.vocabulary import JointVocabulary

from .toys import build_toy

BYTES, GRID, SOUND = ByteTokenizer(), build_toy("toy-grid"), build_toy("toy-sound")
TABLE = JointVocabulary(1000, (GRID.facts, SOUND.facts))


def test_text_comes_first_and_every_codebook_has_its_range() -> None:
    assert TABLE.size == 1000 + 16 + 6 + 8 + 3
    assert TABLE.ranges(GRID.facts) == (range(1000, 1016),)
    assert TABLE.ranges(SOUND.facts) == (range(1016, 1022), range(1022, 1030), range(1030, 1033))


@given(st.integers(0, 50), st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=4))
def test_ranges_cover_the_vocabulary_once(text_size: int, media: list[list[int]]) -> None:
    facts = [
        Facts(name=str(index), modality="audio", codebook_sizes=tuple(sizes))
        for index, sizes in enumerate(media)
    ]
    table = JointVocabulary(text_size, tuple(facts))
    ids = [*range(text_size), *itertools.chain(*(ids for each in facts for ids in table.ranges(each)))]
    assert ids == list(range(table.size))


def test_a_token_flattens_to_its_ids_in_order() -> None:
    tokens = SOUND.stamp([[[5, 7, 2], [1, 0, 0]], [[0, 1, 2]], []])
    assert TABLE.flatten(tokens) == [[1021, 1029, 1032, 1017, 1022, 1030], [1016, 1023, 1032], []]
    assert TABLE.flatten(tokens.keep(2)) == [[1021, 1029, 1017, 1022], [1016, 1023], []]
    assert TABLE.flatten(GRID.stamp([[3, 0, 15, 1]])) == [[1003, 1000, 1015, 1001]]


def test_spans_come_back() -> None:
    sound = SOUND.encode([torch.linspace(-1, 1, size)[None] for size in (9, 1, 8)])
    assert TABLE.stamp(SOUND, TABLE.flatten(sound), extents=sound.extents).identical(sound)
    short = sound.keep(2)
    assert TABLE.stamp(SOUND, TABLE.flatten(short), depth=2, extents=sound.extents).identical(short)
    picture = GRID.encode(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).keep(3)
    assert TABLE.stamp(GRID, TABLE.flatten(picture)).identical(picture)
    assert TABLE.stamp(SOUND, [[], []]).lengths.tolist() == [0, 0]
    assert TABLE.stamp(GRID, torch.tensor([[1003, 1000]])).ids.tolist() == [[3, 0]]  # pyright: ignore


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
    assert TABLE.describe(1000) == "toy-grid id 0 of codebook 0"
    assert TABLE.describe(1015) == "toy-grid id 15 of codebook 0"
    assert TABLE.describe(1021) == "toy-sound id 5 of codebook 0"
    assert TABLE.describe(1032) == "toy-sound id 2 of codebook 2"
    assert TABLE.describe(1033) == TABLE.describe(-1) == "outside 0 ... 1032"


@pytest.mark.parametrize(
    ("spans", "more", "message"),
    [
        ([[1016, 1022, 1030, 1016]], {}, "span 0 has 4 ids: toy-sound takes a multiple of 3; was it cut?"),
        (
            [[], [1016, 1022, 1029]],
            {},
            "id 1029 at place 2 of span 1 is toy-sound id 7 of codebook 1: expected codebook 2",
        ),
        ([[7, 1022, 1030]], {}, "id 7 at place 0 of span 0 is text id 7: expected codebook 0 of toy-sound"),
        ([[1016, 1022, 2000]], {}, r"id 2000 at place 2 of span 0 is outside 0 \.\.\. 1032"),
        ([[1016, 1022, -1]], {}, r"id -1 at place 2 of span 0 is outside 0 \.\.\. 1032"),
        ([[1016, 1022, 1030]], {"depth": 2}, "span 0 has 3 ids: toy-sound takes a multiple of 2"),
        ([[1016]], {"depth": 4}, "depth=4: toy-sound has 3 codebooks"),
        ([[1016]], {"depth": 0}, "depth=0: toy-sound has 3 codebooks"),
        ([[1016, 1022, 1030]], {"extents": [[9]]}, "1 tokens for an extent of 9: toy-sound takes 3"),
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
    for size in (-1, 2.0, True):
        with pytest.raises(ValueError, match=rf"text_size={size}: expected an integer, 0 or more"):
            JointVocabulary(size, ())  # pyright: ignore[reportArgumentType]


def test_the_table_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    TABLE.save(path)
    assert JointVocabulary.load(path) == TABLE
    plain = json.loads(path.read_text())
    assert [entry["offsets"] for entry in plain["media"]] == [[1000], [1016, 1022, 1030]]
    empty = JointVocabulary(0, ())
    empty.save(path)
    assert JointVocabulary.load(path) == empty and empty.size == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, r"v\.json: offsets or format_version do not fit the facts"),
        ({"text_size": 999}, "offsets or format_version do not fit"),
        ({"text_size": "1000"}, "text_size='1000': expected an integer"),
        ({"media": None}, r"no joint vocabulary \(TypeError"),
        (
            {"media": [{"offsets": []}]},
            r"no joint vocabulary \(KeyError\('facts'\)\): write one with its save",
        ),
        ({"media": [{"facts": {"name": "x"}, "offsets": []}]}, "facts lack modality"),
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


def test_padding_is_not_flattened() -> None:
    tokens = Tokens.cat([GRID.stamp([[1, 2]]), GRID.stamp([[4, 5, 6]])])
    assert TABLE.flatten(tokens) == [[1001, 1002], [1004, 1005, 1006]]


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, tokenzoo.zoo.vocabulary; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
