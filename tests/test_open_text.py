"""`tokenzoo.load` on files and folders of text: ours, other people's, and what only looks like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tokenzoo
from tokenzoo.text import segmented
from tokenzoo.text.load_json import MAX_BYTES, parse_definition, vocab_of
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.segmented import SegmentedTokenizer
from tokenzoo.text.vocab import TextVocab

from .hub_server import HubServer
from .text_samples import END, NASTY, library, small


def test_a_file_and_a_folder_with_nothing_but_a_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(library().to_str())
    for source in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        loaded = tokenzoo.load(source)
        assert isinstance(loaded, PlainTokenizer) and loaded.facts.name == "text"
        assert loaded.encode_ids(NASTY[7]) == small().encode_ids(NASTY[7])
    assert isinstance(PlainTokenizer.from_pretrained(tmp_path), PlainTokenizer)


def test_the_folder_of_a_language_model(tmp_path: Path) -> None:
    """Its config.json is another's, and its weights are not looked at."""
    (tmp_path / "tokenizer.json").write_text(library().to_str())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["X"]}))
    (tmp_path / "model.safetensors").write_bytes(b"not even weights")
    assert isinstance(tokenzoo.load(tmp_path), PlainTokenizer)


def test_bert_vocabularies(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\nplay\n##ing\n!\n")
    tokenizer = tokenzoo.load(path)
    assert isinstance(tokenizer, PlainTokenizer)
    assert tokenizer.encode_ids("PLAYING!") == [3, 4, 5] and tokenizer.specials == {
        "[PAD]": 0,
        "[UNK]": 1,
        "[CLS]": 2,
    }
    path.write_text("[UNK]\nPlay\n")
    assert tokenzoo.load(tmp_path).encode_ids("Play play") == [1, 0]  # pyright: ignore[reportAttributeAccessIssue]
    path.write_text("only\nwords\n")
    with pytest.raises(tokenzoo.CheckpointError, match=r"expected a line \[UNK\]"):
        tokenzoo.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "holds no vocabulary of a known kind"),
        ("{}", 'describes no tokenizer: expected an object with "model"'),
        ('{"model": {"vocab": {}}}', "describes no tokenizer"),
        ('{"model": {"type": "BPE", "vocab": {"a": -1}}}', "id -1 in the vocabulary: expected 0 ..."),
        ('{"model": {"type": "BPE", "vocab": {"a": 4294967295}}}', "id 4294967295 in the vocabulary"),
        ('{"model": {"type": "BPE", "vocab": {"a": true}}}', "id True in the vocabulary"),
        ('{"model": {"type": "BPE", "vocab": {"a": 3, "b": 3}}}', "two pieces have one id, 3: 'a' and 'b'"),
        (
            '{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": 0, "content": "x"}]}',
            "added token 'x' of id 0 contradicts the piece 'a'",
        ),
        (
            '{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "a"}]}',
            "added token 'a' of id 1 contradicts the piece 'a of id 0'",
        ),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}', "ill-formed"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', "needs 'b', which is no piece"),
        ('{"model": {"type": "Unigram", "vocab": [["a"]]}}', "ill-formed|not enough values"),
        ('{"model": {"type": "Unigram", "vocab": [["a", -1]], "unk_id": 7}}', "unknown id 7"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}', "ill-formed"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": 7}', "ill-formed"),
    ],
)
def test_a_tokenizer_json_that_is_none(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(tokenzoo.CheckpointError, match=message) as caught:
        tokenzoo.load(path)
    assert "file tokenizer.json" in str(caught.value)


def test_files_too_large_are_not_read(tmp_path: Path) -> None:
    for name, start in (("tokenizer.json", b"{"), ("x.tiktoken", b"YQ== 0\n"), ("x.model", b"\n\x04")):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(start)
            file.truncate(MAX_BYTES + 1)
        with pytest.raises(
            tokenzoo.CheckpointError, match=f"{MAX_BYTES + 1} bytes, expected at most {MAX_BYTES}"
        ):
            tokenzoo.load(path)


def test_a_folder_of_ours_that_disagrees_with_itself(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def change(**fields: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config | fields))

    for fields, message in (
        ({"vocab_size": 7}, "tokenizer.json describes .*1200"),
        ({"is_lossless": False}, "tokenizer.json describes"),
        ({"format_version": 9}, r"format_version 9, this tokenzoo reads 1 \.\.\. 1; upgrade"),
        ({"vocab_size": 10**9}, "vocab_size=1000000000: expected 1 ..."),
        ({"colour": 1}, "has no field colour"),
        ({"name": "bell\x07"}, "expected printable characters"),
    ):
        change(**fields)
        with pytest.raises(tokenzoo.CheckpointError, match=message):
            tokenzoo.load(tmp_path)
    change()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(tokenzoo.CheckpointError, match=r"tokenizer\.json"):
        tokenzoo.load(tmp_path)


def test_what_is_something_else_stays_so(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(tokenzoo.CheckpointError, match="that is a file; give a folder"):
        tokenzoo.load(tmp_path / "photo.jpg")
    with pytest.raises(tokenzoo.CheckpointError, match="no such folder"):
        tokenzoo.load(tmp_path / "nobody.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(tokenzoo.CheckpointError, match="holds a list, expected an object"):
        tokenzoo.load(tmp_path)


@pytest.mark.filterwarnings("ignore:Use 'content=")
def test_a_repository_of_others(hub: HubServer, tmp_path: Path) -> None:
    """A language model on the Hub: its vocabulary comes, and its weights do not."""
    small().save_pretrained(tmp_path)
    small().push_to_hub("me/ours")
    loaded = tokenzoo.load("me/ours")
    assert isinstance(loaded, PlainTokenizer) and loaded.facts == small().facts
    assert loaded.provenance is not None and loaded.provenance.startswith("me/ours@")


def segmenter(vocab: TextVocab) -> Any:
    return lambda piece: [*reversed(piece)][::-1]


def test_a_segmenter_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Saved and loaded by its name; bytes come back, specials when asked."""
    monkeypatch.setitem(segmented.SEGMENTERS, "bytes", "mine:segmenter")
    monkeypatch.setattr(segmented.importlib, "import_module", lambda *_: __import__("sys").modules[__name__])
    vocab = TextVocab.of_bytes([END])
    tokenizer = SegmentedTokenizer(vocab, "bytes", PreTokenizer("gpt2"), name="mine", licence="MIT")
    assert tokenizer.encode_ids("é the") == list("é the".encode()) and tokenizer.specials == {END: 256}
    assert tokenizer.encode_ids(f"a{END}", allow="all") == [97, 256]
    assert tokenizer.offsets(b"\xffa") == [(0, 1), (1, 2)] and tokenizer.cuts_safely
    monkeypatch.undo()
    monkeypatch.setitem(segmented.SEGMENTERS, "bytes", "mine:segmenter")
    tokenizer.save_pretrained(tmp_path)
    again = tokenzoo.load(tmp_path)
    assert isinstance(again, SegmentedTokenizer)
    assert again.facts == tokenizer.facts and again.config == tokenizer.config and again.vocab == vocab
    assert not (tmp_path / "tokenizer.json").exists()
    with pytest.raises(ValueError, match="unknown segmenter 'sideways'; known: "):
        SegmentedTokenizer(vocab, "sideways")
    with pytest.raises(ValueError, match="byte 98 is no piece"):
        SegmentedTokenizer(TextVocab(vocab.pieces[:98]), "bytes")


def test_ids_are_those_of_the_file_though_there_are_holes() -> None:
    """`tokenizers` numbers added tokens anew where the vocabulary does not have them."""
    definition = parse_definition(library().to_str().encode())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for place, name, special in ((2000, "<far>", True), (3000, "<farther>", False)):
        definition["added_tokens"].append({"id": place, "content": name, "special": special, **flags})
    tokenizer = PlainTokenizer(definition)
    slow = PlainTokenizer({**definition, "normalizer": {"type": "Lowercase"}})
    assert (tokenizer.engine.name, slow.engine.name) == ("tiktoken", "tokenizers")
    for each in (tokenizer, slow):
        assert each.encode_ids("<farther><far>")[0] == 3000 and 2000 not in each.encode_ids("<far>")
        assert each.encode_ids("<far>a", allow="all")[0] == 2000


def test_specials_that_are_ordinary_pieces_too() -> None:
    """CLIP pads with "!", which text yields as ever: it is no special then."""
    definition = parse_definition(library().to_str().encode())
    for name in ("!", "the"):
        place = definition["model"]["vocab"][name]
        definition["added_tokens"].append(definition["added_tokens"][0] | {"id": place, "content": name})
    assert vocab_of(definition).specials == {END: 0}
    tokenizer = PlainTokenizer(definition)
    assert tokenizer.encode_ids("the cat!") == small().encode_ids("the cat!")
