"""Text out of files, and its pretokens: streamed, resumed, bounded."""

from collections import Counter
from pathlib import Path

import pytest

from tokenzoo.text import corpus as corpus_module
from tokenzoo.text import pretoken_counts
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.pretoken_counts import count_pretokens, digest, pooled
from tokenzoo.text.pretokenizers import PreTokenizer

from .real_text import english

GPT2 = PreTokenizer("gpt2")


def texts(corpus: Corpus) -> list[tuple[str, str]]:
    return [(domain, text) for domain, text, _ in corpus.walk()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"en/b.txt": "two\n", "en/a.txt": "one\n", "en/x.bin": "no", "tr/c.md": "üç\n"}.items():
        path = tmp_path / "text" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "text"


def test_files_folders_and_domains(folder: Path) -> None:
    assert texts(Corpus.of_files(folder)) == [("", "one\n"), ("", "two\n"), ("", "üç\n")]
    assert texts(Corpus.of_folder(folder)) == [("en", "one\n"), ("en", "two\n"), ("tr", "üç\n")]
    assert texts(Corpus.of_files({"x": [folder / "en" / "x.bin"]})) == [("x", "no")]
    assert texts(Corpus.of_texts({"y": ["a", "b"]})) == [("y", "a"), ("y", "b")]
    assert Corpus.of_folder(folder).size == 13


def test_lines_of_json_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one\\ntwo"}\n\n{"text": "three", "id": 1}\n')
    assert texts(Corpus.of_files(tmp_path)) == [("", "one\ntwo"), ("", ""), ("", "three")]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"txt": "two"}\n')
    with pytest.raises(
        ValueError, match=r'a.jsonl: the line that ends at byte 31 is no JSON object with a "text"'
    ):
        texts(Corpus.of_files(tmp_path))
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "b.txt").write_bytes(b"a\xffb\x00")
    assert texts(Corpus.of_files(tmp_path)) == [("", "ab\x00")]
    assert texts(Corpus.of_texts(["a\ud800b"])) == [("", "ab")]


@pytest.mark.parametrize("text", ["word " * 50, "line\n" * 50, "é" * 100, "a" * 100, "\U0001f600" * 40])
def test_large_files_come_in_parts_that_cut_no_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(corpus_module, "PART_BYTES", 23)
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    parts = [part for _, part in texts(Corpus.of_files(path))]
    assert "".join(parts) == text and len(parts) >= len(text.encode()) // 23
    if text[-1] == "\n":
        assert all(part.endswith("\n") for part in parts)
    if text[-1] == " ":
        assert all(part.startswith(" ") for part in parts[1:]), "a space belongs to the word after it"


def test_a_limit_holds_for_each_domain() -> None:
    corpus = Corpus.of_texts({"a": ["éé"] * 9, "b": ["y"]}).limited(7)
    assert texts(corpus) == [("a", "éé"), ("a", "é"), ("b", "y")]
    *_, last = [place for domain, _, place in corpus.walk() if domain == "a"]
    assert [(domain, text) for domain, text, _ in corpus.walk(last)] == [("a", ""), ("b", "y")]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder of text"):
        Corpus.of_files(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match=r"the corpus is empty: nothing in 'x'; give files, or folders with \.txt"
    ):
        Corpus.of_files({"x": tmp_path})
    with pytest.raises(ValueError, match="the corpus is empty"):
        Corpus.of_texts([])
    with pytest.raises(ValueError, match="the corpus is empty: its files hold no text"):
        count_pretokens(Corpus.of_texts([""]), GPT2, progress=False)


def test_pretokens_are_counted_by_domain() -> None:
    counts = count_pretokens(
        Corpus.of_texts({"a": ["to be or", " to be"], "b": [" be"]}), GPT2, progress=False
    )
    assert counts == {"a": {b"to": 1, b" be": 2, b" or": 1, b" to": 1}, "b": {b" be": 1}}
    assert pooled(counts) == {b"to": 1, b" be": 3, b" or": 1, b" to": 1}
    assert digest([{b"a": 1, b"b": 2}]) == digest([{b"b": 2, b"a": 1}]) != digest([{b"a": 2, b"b": 1}])


def test_counting_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretoken_counts, "_SAVE_BYTES", 20_000)
    corpus = Corpus.of_texts({"a": english()[:30], "b": english()[30:60]})
    whole = count_pretokens(corpus, GPT2, progress=False)
    state, real, read = tmp_path / "counts.npz", PreTokenizer.pieces, []

    def pieces(self: PreTokenizer, text: str) -> list[str]:
        if len(read) == 40:
            raise KeyboardInterrupt
        read.append(text)
        return real(self, text)

    monkeypatch.setattr(PreTokenizer, "pieces", pieces)
    with pytest.raises(KeyboardInterrupt):
        count_pretokens(corpus, GPT2, state=state, progress=False)
    assert state.exists()
    read[:] = [""] * 41
    assert count_pretokens(corpus, GPT2, state=state, progress=False) == whole
    assert 20 < len(read) - 41 < 60, "what was counted before is not read again"
    read[:] = [""] * 41
    assert count_pretokens(corpus, GPT2, state=state, progress=False) == whole
    assert len(read) == 41, "all of it was there"


def test_a_state_of_another_corpus_or_none(tmp_path: Path) -> None:
    state = tmp_path / "counts.npz"
    count_pretokens(Corpus.of_texts(["one"]), GPT2, state=state, progress=False)
    with pytest.raises(ValueError, match="holds the counts of another corpus or pre-tokenizer: delete it"):
        count_pretokens(Corpus.of_texts(["two"]), GPT2, state=state, progress=False)
    state.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="holds no counts that can be gone on from"):
        count_pretokens(Corpus.of_texts(["one"]), GPT2, state=state, progress=False)


def test_the_rarest_are_forgotten_when_there_are_too_many(caplog: pytest.LogCaptureFixture) -> None:
    counts = Counter(piece for text in english()[:40] for piece in GPT2.pieces(text))
    bounded = count_pretokens(Corpus.of_texts(english()[:40]), GPT2, max_distinct=500, progress=False)[""]
    assert len(bounded) <= 500 and "the rarest" in caplog.text
    frequent = [word for word, _ in counts.most_common(20)]
    assert all(bounded[word.encode()] == counts[word] for word in frequent)
    assert all(count <= counts[word.decode()] for word, count in bounded.items())
