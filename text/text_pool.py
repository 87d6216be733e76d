"""Real text in some thirty languages out of Debian packages: what the default text tokenizers are trained on.

    python -m tokenzoo.text.text_pool data/text            # 150 MB to download; two minutes, 150 MB on disk
    python -m tokenzoo.text.text_pool data/text --fetched cache/

writes, one paragraph a line but for code:

    train/LANGUAGE/*.txt            to train on; "python" is one of the languages
    held_out/LANGUAGE.txt           of pages that are not trained on, without what occurs in train
    parallel/development/LANGUAGE.txt, parallel/held_out/LANGUAGE.txt
                                    the same paragraphs in all PARALLEL languages, line by line; from two
                                    other sets of pages
    other/en.txt                    English of another kind, never trained on
    provenance.json                 packages, versions, licences, sizes

Help pages of LibreOffice (MPL-2.0), the Debian Administrator's Handbook (GPL-2+ or CC-BY-SA-3.0), WordNet
(its own permissive licence), manual pages (their own) and modules of Python (PSF-2.0). Nothing is
redistributed: it is fetched where it is needed. The same packages give the same bytes. Runs where apt-get and
dpkg-deb are.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# As Debian names its packages, and the folder inside.
HELP = {
    "en-us": "en-US", "tr": "tr", "de": "de", "fr": "fr", "es": "es", "ja": "ja", "ru": "ru",
    "zh-cn": "zh-CN", "ko": "ko", "hi": "hi", "fi": "fi", "hu": "hu", "pl": "pl", "pt-br": "pt-BR",
    "cs": "cs", "it": "it", "sl": "sl", "vi": "vi", "el": "el", "km": "km",
}  # fmt: skip
# Languages whose help is translated nearly throughout; Hindi, Finnish and Khmer are not.
PARALLEL = (
    "en", "cs", "de", "el", "es", "fr", "hu", "it", "ja", "ko", "pl", "pt", "ru", "sl", "tr", "vi", "zh",
)  # fmt: skip
_PACKAGES = {
    **{f"libreoffice-help-{name}": "MPL-2.0 or LGPL-3+" for name in HELP},
    "debian-handbook": "GPL-2+ or CC-BY-SA-3.0",
    "dict-wn": "WordNet",
    "manpages": "GPL, BSD and MIT, per page",
    "libpython3.11-stdlib": "PSF-2.0",
}
# One page in so many is held out, one more is for development.
_SHARE = 20
# WordNet is large and of one kind: one entry in so many is enough.
_WORDNET_SHARE = 5
_PARAGRAPH = re.compile(r'<(p|h\d|li)[^>]*\bid="([a-z]+_id\w+)"[^>]*>(.*?)</\1>', re.DOTALL)
_HANDBOOK = re.compile(r'<(div class="para"|h\d class="title")[^>]*>(.*?)</(?:div|h\d)>', re.DOTALL)
_SCRIPT = re.compile(r"<(script|style).*?</\1>", re.DOTALL)

# (page, id) -> paragraph
Paragraphs = dict[tuple[str, str], str]


def fetch(packages: Iterable[str], fetched: Path) -> dict[str, str]:
    """Unpack packages below `fetched`/x, download them where they are not there; returns their versions.

    Nothing is installed. RuntimeError names the package that failed.
    """
    archives = fetched / "deb"
    archives.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in packages if not list(archives.glob(f"{name}_*.deb"))]
    if wanted:
        _run(["apt-get", "update", "-qq"], archives, "the package lists")
        _run(
            ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *wanted],
            archives,
            " ".join(wanted),
        )
    versions = {}
    for name in packages:
        (archive,) = archives.glob(f"{name}_*.deb")
        versions[name] = archive.name.split("_")[1].replace("%3a", ":")
        if not (fetched / "x" / name).is_dir():
            _run(
                ["dpkg-deb", "-x", str(archive.resolve()), str((fetched / "x" / name).resolve())],
                archives,
                name,
            )
    return versions


def help_paragraphs(fetched: Path, package: str) -> Paragraphs:
    """The paragraphs of one language of LibreOffice's help."""
    root = (
        fetched / "x" / f"libreoffice-help-{package}" / "usr/share/libreoffice/help" / HELP[package] / "text"
    )
    found: Paragraphs = {}
    for page in sorted(root.rglob("*.html")):
        whole = _SCRIPT.sub("", page.read_text(encoding="utf-8", errors="ignore"))
        _, _, shown = whole.partition('<div id="DisplayArea"')
        for match in _PARAGRAPH.finditer(shown or whole):
            if text := _plain(match[3]):
                found[str(page.relative_to(root)), match[2]] = text
    return found


def handbook_paragraphs(fetched: Path) -> dict[str, list[str]]:
    """Language -> paragraphs of the handbook; what was left in English is in English alone."""
    root = fetched / "x" / "debian-handbook" / "usr/share/doc/debian-handbook/html"
    found: dict[str, list[str]] = {}
    for folder in sorted(root.iterdir(), key=lambda folder: (folder.name != "en-US", folder.name)):
        pages = (page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.html")))
        texts = (_plain(match[2]) for page in pages for match in _HANDBOOK.finditer(page))
        found.setdefault(folder.name.partition("-")[0], []).extend(text for text in texts if text)
    english = set(found["en"])
    kept = {
        name: [text for text in texts if text not in english] for name, texts in found.items() if name != "en"
    }
    return {"en": found["en"], **kept}


def wordnet_entries(fetched: Path) -> Iterator[str]:
    """One entry in `_WORDNET_SHARE`, each a line."""
    data = gzip.decompress((fetched / "x/dict-wn/usr/share/dictd/wn.dict.dz").read_bytes()).decode()
    for entry in re.split(r"\n(?=\S)", data):
        text = " ".join(entry.split())
        if _draw(text, _WORDNET_SHARE) == 0:
            yield text


def manual_pages(fetched: Path) -> Iterator[str]:
    """Lines of the manual pages without the commands of roff."""
    for page in sorted((fetched / "x/manpages/usr/share/man").rglob("*.gz")):
        if page.is_symlink() or page.parent.parent.name != "man":
            continue
        for line in gzip.decompress(page.read_bytes()).decode(errors="ignore").split("\n"):
            if line and line[0] not in ".'\\":
                yield re.sub(r"\\(f.|&|\(..)", "", line).replace("\\-", "-").replace("\\e", "\\")


def python_modules(fetched: Path) -> Iterator[str]:
    """The lines of the modules at the top of Python's library: code, so that indents are seen."""
    root = fetched / "x/libpython3.11-stdlib/usr/lib/python3.11"
    for file in sorted(file for file in root.glob("*.py") if not file.is_symlink()):
        yield from file.read_text(encoding="utf-8").split("\n")


def build(folder: Path, fetched: Path) -> None:
    """Everything that the head of this file lists."""
    versions = fetch(_PACKAGES, fetched)
    pages = {package.partition("-")[0]: help_paragraphs(fetched, package) for package in HELP}
    english = pages["en"]
    # What is not translated is English.
    for language, paragraphs in pages.items():
        if language != "en":
            pages[language] = {key: text for key, text in paragraphs.items() if english.get(key) != text}
    trained = {language: _of(paragraphs, range(2, _SHARE)) for language, paragraphs in pages.items()}
    for language, paragraphs in trained.items():
        _write(folder / "train" / language / "help.txt", paragraphs.values())
        known = set(paragraphs.values())
        held_out = dict.fromkeys(text for text in _of(pages[language], [0]).values() if text not in known)
        _write(folder / "held_out" / f"{language}.txt", held_out)
    for language, texts in handbook_paragraphs(fetched).items():
        _write(folder / "train" / language / "handbook.txt", texts)
    _write(folder / "train" / "en" / "wordnet.txt", wordnet_entries(fetched))
    _write(folder / "train" / "python" / "modules.txt", python_modules(fetched))
    _write(folder / "other" / "en.txt", manual_pages(fetched))
    known = set(trained["en"].values())
    for name, draw in (("held_out", 0), ("development", 1)):
        shared = [
            key
            for key, text in _of(english, [draw]).items()
            if text not in known and all(key in pages[language] for language in PARALLEL)
        ]
        for language in PARALLEL:
            _write(folder / "parallel" / name / f"{language}.txt", [pages[language][key] for key in shared])
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*.txt"))}
    told = {
        "packages": {name: [versions[name], licence] for name, licence in _PACKAGES.items()},
        "bytes": sizes,
    }
    (folder / "provenance.json").write_text(json.dumps(told, indent=1) + "\n")


def _of(paragraphs: Paragraphs, draws: Sequence[int]) -> Paragraphs:
    """Those of the pages that were drawn so; the same pages in every language."""
    return {key: text for key, text in paragraphs.items() if _draw(key[0], _SHARE) in draws}


def _draw(text: str, sides: int) -> int:
    return zlib.crc32(text.encode()) % sides


def _plain(markup: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]+>", "", markup)).split())


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed for {what}: {done.stderr.strip() or done.stdout.strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--fetched", type=Path, help="where packages lie, or go to (default: FOLDER/fetched)")
    options = parser.parse_args(argv)
    build(options.folder, options.fetched or options.folder / "fetched")
    return 0


if __name__ == "__main__":
    sys.exit(main())
