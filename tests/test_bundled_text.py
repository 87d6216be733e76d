"""The text tokenizers that ship: small, lossless, as good as their cards say, and anyone can open them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenzoo

from .real_text import english, parallel

FOLDER = Path(tokenzoo.__file__).parent / "checkpoints" / "bundled"
NAMES = ("bpe-40k", "superbpe-40k")


@cache
def loaded(name: str) -> Any:
    return tokenzoo.load(name)


@pytest.fixture(scope="module", params=NAMES)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param)


def test_they_weigh_little_and_say_what_they_are(tokenizer: Any) -> None:
    assert sum(file.stat().st_size for name in NAMES for file in (FOLDER / name).iterdir()) < 3e6
    card = (FOLDER / tokenizer.facts.name / "README.md").read_text()
    assert str(tokenizer.facts.fingerprint) in card
    assert all(word in card for word in ("## Data", "## Licence", "MPL-2.0", "text_pool"))
    packages = json.loads((FOLDER / tokenizer.facts.name / "provenance.json").read_text())["packages"]
    assert packages["debian-handbook"][1] == "GPL-2+ or CC-BY-SA-3.0" and len(packages) >= 23
    assert len(tokenizer.vocab) == 40960 and tokenizer.facts.is_lossless
    assert tokenizer.specials == {"<|endoftext|>": 40958, "<|pad|>": 40959}


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=60))
@pytest.mark.parametrize("name", NAMES)
def test_any_bytes_come_back(name: str, data: bytes) -> None:
    tokenizer = loaded(name)
    assert tokenizer.decode_bytes(tokenizer.encode_ids(data)) == data


@pytest.mark.parametrize(("name", "measured"), [("bpe-40k", 4.40), ("superbpe-40k", 5.46)])
def test_english_costs_what_was_measured(name: str, measured: float) -> None:
    tokenizer = loaded(name)
    text = "\n".join(parallel()["en"])
    assert len(text.encode()) / tokenizer.count(text) == pytest.approx(measured, abs=0.02)


def test_superbpe_saves_a_sixth_of_the_tokens_at_the_same_size() -> None:
    plain, superwords = (loaded(name) for name in NAMES)

    def saved(texts: Any) -> float:
        counts = [sum(each.count(text) for text in texts) for each in (plain, superwords)]
        return 1 - counts[1] / counts[0]

    assert saved(parallel()["en"]) > 0.15
    assert saved(english()[::10]) > 0.05, "of a kind that was not trained on"


def test_others_open_them(tokenizer: Any) -> None:
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(FOLDER / tokenizer.facts.name)
    for text in (*english()[:2], *(lines[0] for lines in parallel().values()), "a <|pad|> b"):
        ids = tokenizer.encode_ids(text)
        assert theirs.encode(text, add_special_tokens=False, split_special_tokens=True) == ids
        assert theirs.decode(ids) == text
