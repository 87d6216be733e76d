"""The Python examples of the README run, in order, in one session; so does the one of docs/tok.md."""

import re
import shutil
from pathlib import Path

import pytest

import tokenzoo

SAMPLES = Path(tokenzoo.__file__).parent / "image" / "samples"

# An upload through hub 2.4 raises a DeprecationWarning of its own HTTP client.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content="),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]


def test_the_examples_run(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub):
    blocks = re.findall(r"```python\n(.*?)```", (checkout / "README.md").read_text(), re.S)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "cat.jpg", "photo.jpg")
    shutil.copytree(SAMPLES, "photographs")
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)  # our own file, not a stranger's
    assert names["tok"].facts.revision is not None
    assert names["tokens"].ids.shape == (1, 376)
    assert min(names["rows"][0]) >= 50259
    assert tokenzoo.load("out/finetuned").facts.fingerprint != names["tok"].facts.fingerprint


def test_the_reader_of_the_format_reads(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (block,) = re.findall(r"```python\n(.*?)```", (checkout / "docs" / "tok.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    texts = ["the cat", "", "sat"]
    tokenzoo.load("bytes").encode(texts).save("photo.tok")
    names: dict = {}
    exec(compile(block, "tok.md", "exec"), names)
    assert [bytes(row.tolist()).decode() for row in names["ids"]] == texts
    tok = tokenzoo.load("pyramid-128")
    tokens = tok.encode([tok.preprocess(path) for path in sorted(SAMPLES.glob("*.jpg"))[:2]])
    tokens.save("photo.tok")
    exec(compile(block, "tok.md", "exec"), names)
    assert [row.tolist() for row in names["ids"]] == tokens.ids.tolist()
