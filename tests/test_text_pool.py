"""What is read out of the packages, on pages of the same shape."""

import gzip
from pathlib import Path

import pytest

from tokenzoo.text import text_pool

PAGE = """<html><script>var a = "<p id='par_id1'>no</p>";</script><body><div id="DisplayArea" class="x">
<p id="par_id1" class="paragraph">{first} <b>&amp; more</b></p><h1 id="hd_id2">{second}</h1><p id="x">x</p>
<li id="par_id3"> </li></div></body></html>"""


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_help_pages_are_read_by_the_names_of_their_paragraphs(tmp_path: Path) -> None:
    page = "x/libreoffice-help-tr/usr/share/libreoffice/help/tr/text/shared/a.html"
    put(tmp_path / page, PAGE.format(first="Türkçe\n  metin", second="Başlık").encode())
    assert text_pool.help_paragraphs(tmp_path, "tr") == {
        ("shared/a.html", "par_id1"): "Türkçe metin & more",
        ("shared/a.html", "hd_id2"): "Başlık",
    }


def test_the_handbook_without_what_was_left_in_english(tmp_path: Path) -> None:
    root = tmp_path / "x/debian-handbook/usr/share/doc/debian-handbook/html"
    put(root / "en-US/a.html", b'<h1 class="title">Title</h1><div class="para">\n One\n <em>two</em>.</div>')
    put(root / "de-DE/a.html", b'<h1 class="title">Title</h1><div class="para">Eins zwei.</div>')
    assert text_pool.handbook_paragraphs(tmp_path) == {"en": ["Title", "One two."], "de": ["Eins zwei."]}


def test_dictionary_manual_and_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_pool, "_WORDNET_SHARE", 1)
    put(
        tmp_path / "x/dict-wn/usr/share/dictd/wn.dict.dz",
        gzip.compress(b"cat\n  n 1: feline\ndog\n  n: canine\n"),
    )
    assert list(text_pool.wordnet_entries(tmp_path)) == ["cat n 1: feline", "dog n: canine"]
    page = b'.TH X\n\\" comment\nUse \\fB\\-x\\fR to \\&go.\n'
    put(tmp_path / "x/manpages/usr/share/man/man1/a.1.gz", gzip.compress(page))
    put(tmp_path / "x/manpages/usr/share/man/de/man1/a.1.gz", gzip.compress(b"Deutsch\n"))
    assert list(text_pool.manual_pages(tmp_path)) == ["Use -x to go."]
    put(tmp_path / "x/libpython3.11-stdlib/usr/lib/python3.11/a.py", b"if x:\n    pass\n")
    assert list(text_pool.python_modules(tmp_path)) == ["if x:", "    pass", ""]


def test_pages_are_drawn_the_same_way_everywhere() -> None:
    drawn = [text_pool._draw(f"page{number}.html", 20) for number in range(2000)]
    assert all(60 < drawn.count(side) < 140 for side in range(20))
    assert text_pool._draw("page0.html", 20) == 4
