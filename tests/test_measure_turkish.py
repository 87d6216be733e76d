"""Turkish morphology by zeyrek."""

import re

import pytest

from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.text.measure_boundaries import boundary_scores
from tokenzoo.text.measure_lexicon import Share, share_of_pieces
from tokenzoo.text.measure_turkish import Turkish, small_letters

from .real_text import parallel


@pytest.fixture(scope="module")
def turkish() -> Turkish:
    return Turkish({"ler", "den"})


def test_small_letters() -> None:
    assert small_letters("IŞIK İki") == "ışık iki"


def test_words_are_parted(turkish: Turkish) -> None:
    assert turkish.analyses("Evlerimizden") == {("ev", "ler", "imiz", "den")}
    assert turkish.analyses("ayarlar") == {("ayar", "lar"), ("ayarla", "r"), ("ay", "ar", "lar")}
    assert turkish.analyses("xqzt") == turkish.analyses("") == turkish.analyses("3") == frozenset()
    assert turkish.affixes_of(["evlerimizden", "kitabı"]) == {"ler", "imiz", "den", "ı"}


def test_words_and_pure_morphemes(turkish: Turkish) -> None:
    pieces = [b" ev", b"Evler", b"ler", b"lerim", b"xqzt", b"\xc4"]
    assert share_of_pieces(pieces, turkish.is_word) == Share(2, 6)
    assert share_of_pieces(pieces, turkish.is_pure) == Share(2, 6)


def test_boundaries_in_real_words(turkish: Turkish) -> None:
    words = sorted(set(re.findall(r"\w{3,}", " ".join(parallel()["tr"][:60]))))
    table = turkish.table([*words, "evlerimizden"])
    assert table["evlerimizden"] == ("ev", "ler", "imiz", "den")
    assert "ayarlar" not in turkish.table(["ayarlar"])
    scores = boundary_scores(ByteTokenizer(), table)
    assert scores.words == len(table) > 60
    assert scores.recall == 1
    assert scores.made == sum(len(word.encode()) - 1 for word in table)
