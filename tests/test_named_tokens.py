"""The joint vocabulary as a tokenizer.json: the same ids by name, in a library that knows nothing of us."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import tokenzoo
from tokenzoo.zoo.interleave import JointTokenizer
from tokenzoo.zoo.named_tokens import token_names
from tokenzoo.zoo.vocabulary import JointMedium, JointVocabulary

from .joint_toys import BYTES, PHOTO, SPEECH

TEXT = tokenzoo.load("bpe-40k")
TABLE = JointVocabulary(
    40960, (JointMedium("photo", PHOTO.facts), JointMedium("speech", SPEECH.facts, order="delay"))
)
JOINT = JointTokenizer(TEXT, {"photo": PHOTO, "speech": SPEECH}, TABLE)  # pyright: ignore


def test_transformers_gives_the_same_ids(tmp_path: Path) -> None:
    JOINT.export_named(tmp_path)
    library = AutoTokenizer.from_pretrained(tmp_path)
    assert len(library) == TABLE.size
    told = JOINT.encode(["A çat: ", PHOTO.stamp([[0, 49, 7]]), SPEECH.stamp([[[5, 7, 2], [0, 1, 0]]]), " ok"])
    named = (
        "A çat: <|photo_begin|><|photo_0_00000|><|photo_0_00049|><|photo_0_00007|><|photo_end|>"
        "<|speech_begin|><|speech_0_00005|><|speech_0_00000|><|speech_1_00007|><|speech_1_00001|>"
        "<|speech_2_00002|><|speech_2_00000|><|speech_end|> ok"
    )
    assert library.encode(named, add_special_tokens=False) == told.ids.tolist()
    assert library.decode(told.ids, skip_special_tokens=True) == "A çat:  ok"
    names = [name for block in TABLE.blocks for name in token_names(block)]
    assert library.convert_tokens_to_ids(names) == list(range(40960, TABLE.size))
    assert library.convert_tokens_to_ids("<|endoftext|>") == 40958


def test_nothing_is_named_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"71 names, more than 70: .* insist with limit=71"):
        JOINT.export_named(tmp_path / "out", limit=70)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"bytes is not described by a tokenizer\.json"):
        JointTokenizer(BYTES, {"photo": PHOTO}).export_named(tmp_path)


def test_a_name_that_text_has_already_is_refused(tmp_path: Path) -> None:
    definition = json.loads(TEXT.files()["tokenizer.json"])
    definition["added_tokens"][-1]["content"] = "<|photo_end|>"
    del definition["model"]["vocab"]["<|pad|>"]
    definition["model"]["vocab"]["<|photo_end|>"] = 40959
    raw = json.dumps(definition).encode()
    clash = JointTokenizer(type(TEXT).from_json(raw), {"photo": PHOTO})  # pyright: ignore
    with pytest.raises(ValueError, match=r"<\|photo_end\|> is a token of text already: give the medium"):
        clash.export_named(tmp_path)
