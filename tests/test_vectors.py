"""The vectors of llama.cpp: nasty texts and their ids, against vocabularies that people use.

The vectors are here, in llama_vectors.json. The vocabularies (60 MB) are not: they are looked for in
$TOKENZOO_VOCABULARIES, by default ~/.cache/tokenzoo/vocabularies, and fetched once with pip, from the source
distribution of llama-cpp-python (77 MB). Where that cannot be had, these tests are skipped and say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

import tokenzoo
from tokenzoo.text.plain import PlainTokenizer

pytestmark = pytest.mark.network

VECTORS = json.loads((Path(__file__).parent / "llama_vectors.json").read_text(encoding="utf-8"))
PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
FOLDER = Path(os.environ.get("TOKENZOO_VOCABULARIES") or Path.home() / ".cache" / "tokenzoo" / "vocabularies")
# The vectors of three more are there: they pass, and take as long again as all of these.
NAMES = [name for name in VECTORS["ids"] if name not in ("command-r", "mpt", "refact")]
# Where tiktoken's ranks say the same.
RANKED = {"gpt-2", "llama-bpe", "qwen2"}


def fetch() -> str | None:
    """Fill FOLDER; what went wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["download", "--quiet", "--no-deps", "--no-binary", PACKAGE, "--dest", folder]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
        try:
            subprocess.run(
                [sys.executable, "-m", "pip", *command, f"{PACKAGE}=={VERSION}"],
                check=True,
                capture_output=True,
                text=True,
                timeout=300,
                env=environment,
            )
        except subprocess.CalledProcessError as error:
            return error.stderr.strip()[-300:]
        except subprocess.TimeoutExpired:
            return "pip took longer than five minutes"
        (archive,) = Path(folder).glob("*.tar.gz")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise ValueError(f"{archive.name} is not the file that was looked at: its sha256 differs")
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            for member in packed:
                name = Path(member.name).name
                inside = packed.extractfile(member) if name.startswith("ggml-vocab-") else None
                if inside is not None and name.endswith(".gguf"):
                    partial = FOLDER / f"{name}.{os.getpid()}"
                    partial.write_bytes(inside.read())
                    partial.replace(FOLDER / name)
    return None


@pytest.fixture(scope="session")
def vocabularies() -> Path:
    if not all((FOLDER / f"ggml-vocab-{name}.gguf").is_file() for name in NAMES):
        problem = fetch()
        if problem is not None:
            pytest.skip(f"no vocabularies in {FOLDER}, and {PACKAGE} could not be fetched: {problem}")
    return FOLDER


@pytest.mark.parametrize("name", NAMES)
def test_every_vector(name: str, vocabularies: Path) -> None:
    tokenizer = tokenzoo.load(vocabularies / f"ggml-vocab-{name}.gguf")
    assert isinstance(tokenizer, PlainTokenizer)
    assert (tokenizer.engine.name == "tiktoken") == (name in RANKED)
    expected = VECTORS["ids"][name]
    assert len(expected) == len(VECTORS["texts"]) == 47
    wrong = [
        text
        for text, ids in zip(VECTORS["texts"], expected, strict=True)
        if tokenizer.encode_ids(text) != ids
    ]
    assert wrong == []
    if tokenizer.facts.is_lossless:
        for text in VECTORS["texts"]:
            assert tokenizer.decode_bytes(tokenizer.encode_ids(text)) == text.encode()


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "bert-bge"])
def test_saved_the_ids_are_those_of_transformers(name: str, vocabularies: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenzoo.load(vocabularies / f"ggml-vocab-{name}.gguf").save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    for text, ids in zip(VECTORS["texts"], VECTORS["ids"][name], strict=True):
        assert plain(text, add_special_tokens=False)["input_ids"] == ids
