"""Where the training photographs come from: a table of packages, and how to fetch and search them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_PLASMA = (
    "BytheWater|ColdRipple|ColorfulCups|EveningGlow|FallenLeaf|Grey|Kite|OneStandsOut|Path|"
    "DarkestHour|summer_1am"
)
_LXQT = "flowers|fog|after-the-rain|beam|Valendas|appleflower|cloud|drop|this-is-not-windows|butterfly"
_OPENCV = (
    "fruits|baboon|leuvenA|squirrel_cls|home|aloeL|board|messi5|aero1|aero3|butterfly|building|000|001|002|"
    "chicky_512|rubberwhale1|graf1|orange|apple|stuff|licenseplate_motion"
)
_LOMIRI_DRAWN = "umang|analogpattern|Fossa|Infinite|Painting"
# These three ship as samples (samples/LICENCES.md): what a model is shown off with, it was not trained on.
_LOMIRI_SAMPLES = "seeding_by_Clements_Engelhardt|Picture_0B_by_freespace|picosdeeuropa_by_Aitzol_Berasategi"


class FetchError(RuntimeError):
    """A package manager is missing or could not deliver; the message names package and remedy."""


@dataclass(frozen=True)
class PhotoSource:
    """A package with photographs in it.

    client   "apt" (Debian; no version: point releases move) or "npm"
    name     of the package
    version  pinned for npm, None for apt
    licence  as the package states it
    pattern  glob below the folder of the unpacked package
    keep     regular expression that "/" + the path inside the package must contain; None for no condition
    drop     regular expression that it must not contain
    """

    client: str
    name: str
    version: str | None
    licence: str
    pattern: str
    keep: str | None = None
    drop: str | None = None

    def folder(self, fetched: Path) -> Path:
        """Of the unpacked package."""
        return fetched / ("x" if self.client == "apt" else "n") / self.label

    @property
    def label(self) -> str:
        return self.name if self.version is None else f"{self.name}-{self.version}"

    @property
    def key(self) -> str:
        """Begins the names of its photographs: x/NAME for Debian, n/NAME for npm."""
        return f"{'x' if self.client == 'apt' else 'n'}/{self.name}"


# Renders, drawings, logos and cut-outs were sorted out by eye; that is what `keep` and `drop` say.
TRAINING_SOURCES = (
    PhotoSource(
        "apt",
        "plasma-workspace-wallpapers",
        None,
        "GPL-2+",
        "usr/share/wallpapers/*/contents/images/2560x1600.jpg",
        keep=f"/({_PLASMA})/",
    ),
    PhotoSource(
        "apt",
        "lomiri-wallpapers-16.04",
        None,
        "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0 (per file)",
        "usr/share/backgrounds/*.jpg",
        drop=f"{_LOMIRI_DRAWN}|{_LOMIRI_SAMPLES}",
    ),
    PhotoSource(
        "apt",
        "lomiri-wallpapers-20.04",
        None,
        "CC-BY-SA-3.0",
        "usr/share/backgrounds/*.jpg",
        drop=f"{_LOMIRI_DRAWN}|{_LOMIRI_SAMPLES}",
    ),
    PhotoSource(
        "apt", "mate-backgrounds", None, "GPL-2+, CC-BY-SA-4.0", "usr/share/backgrounds/mate/nature/*.jpg"
    ),
    PhotoSource(
        "apt", "lxqt-themes", None, "LGPL-2.1+, CC-BY-SA-3.0", "**/*", keep=rf"({_LXQT})\.(jpg|png)$"
    ),
    PhotoSource(
        "apt", "kphotoalbum", None, "GPL-2+", "**/*.jpg", keep="demo", drop="Keywords|People-|Places-"
    ),
    PhotoSource("apt", "palapeli-data", None, "GPL-2+, CC0", "**/*.jpg"),
    PhotoSource("apt", "kalzium-data", None, "GPL-2+", "**/*.jpg"),
    PhotoSource(
        "apt",
        "opencv-doc",
        None,
        "Apache-2.0, BSD",
        "usr/share/doc/opencv-doc/examples/**/*",
        keep=rf"/({_OPENCV})\.(jpg|png)$",
    ),
    PhotoSource(
        "apt",
        "gcompris-qt-data",
        None,
        "CC-BY, CC-BY-SA, CC0, public domain (per file)",
        "usr/share/gcompris-qt/rcc/*.rcc",
        keep="categorization|monuments|animals|music|erase",
    ),
    PhotoSource("npm", "soft-ui-design-system", "1.0.4", "MIT", "**/*.jpg", drop="curved"),
    PhotoSource("npm", "material-kit", "2.0.4", "MIT", "**/*.jpg", drop=r"landing|/profile\.jpg"),
    PhotoSource("npm", "startbootstrap-creative", "7.0.7", "MIT", "package/src/assets/img/**/fullsize/*.jpg"),
)

# 50 photographs by as many photographers. Never in the list above.
EVALUATION_SOURCE = PhotoSource("npm", "tabler-ui", "0.0.34", "MIT", "package/src/demo/photos/*-1500.jpg")


@dataclass(frozen=True)
class Photograph:
    """One picture on disk: a file, or `length` bytes of it from `offset` on (length None: the whole file)."""

    name: str
    path: Path
    offset: int = 0
    length: int | None = None

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.length is None else self.length)


def find_photographs(source: PhotoSource, fetched: Path) -> list[Photograph]:
    """The photographs of an unpacked package in the order of their names; FetchError where none lie there.

    In a Qt resource archive (.rcc), WebP pictures lie uncompressed; the name then ends in @offset.
    """
    folder = source.folder(fetched)
    found: list[Photograph] = []
    for path in sorted(folder.glob(source.pattern)):
        inside = path.relative_to(folder).as_posix()
        if not path.is_file():
            continue
        if source.keep is not None and not re.search(source.keep, f"/{inside}"):
            continue
        if source.drop is not None and re.search(source.drop, f"/{inside}"):
            continue
        name = f"{source.key}:{inside}"
        if path.suffix == ".rcc":
            found += [Photograph(f"{name}@{at}", path, at, length) for at, length in _webp_spans(path)]
        else:
            found.append(Photograph(name, path))
    if not found:
        raise FetchError(
            f"no photographs below {folder} ({source.pattern}): delete the folder and fetch it again"
        )
    return found


def fetch_packages(sources: Sequence[PhotoSource], fetched: Path) -> None:
    """Downloads and unpacks what does not lie below `fetched` yet; nothing is installed.

    Archives go to `deb` and `npm`, their content to `x/NAME` and `n/NAME-VERSION`. FetchError names the
    package that failed.
    """
    fetched = fetched.resolve()  # the package managers run in folders of their own
    fetched.mkdir(parents=True, exist_ok=True)
    missing = [source for source in sources if not source.folder(fetched).is_dir()]
    if any(source.client == "apt" for source in missing) and os.geteuid() == 0:
        _run(
            ["apt-get", "update", "-qq"], fetched, "the package lists"
        )  # stale lists name versions that are gone
    for source in missing:
        archive = _download(source, fetched)
        folder = source.folder(fetched)
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if source.client == "apt":
            _run(["dpkg-deb", "-x", str(archive), str(part)], fetched, source.name)
        else:
            _unpack_tar(archive, part, source.name)
        part.rename(folder)


def package_version(source: PhotoSource, fetched: Path) -> str:
    """The pinned version, or the one in the name of the downloaded .deb; "unknown" without it."""
    if source.version is not None:
        return source.version
    archives = _archives(source, fetched)
    return unquote(archives[-1].name.split("_")[1]) if archives else "unknown"


def _download(source: PhotoSource, fetched: Path) -> Path:
    if not _archives(source, fetched):
        folder = fetched / ("deb" if source.client == "apt" else "npm")
        folder.mkdir(parents=True, exist_ok=True)
        if source.client == "apt":
            # The sandbox user cannot write here; unpacking only, no package is installed.
            command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", source.name]
        else:
            command = ["npm", "pack", "--loglevel", "error", f"{source.name}@{source.version}"]
        _run(command, folder, source.name)
    archives = _archives(source, fetched)
    if not archives:
        raise FetchError(f"{source.name}: the download left no archive in {fetched}")
    return archives[-1]


def _unpack_tar(archive: Path, folder: Path, what: str) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FetchError(
            f"{what}: {archive} cannot be unpacked ({error}); delete it and try again"
        ) from error


def _archives(source: PhotoSource, fetched: Path) -> list[Path]:
    if source.client == "apt":
        return sorted((fetched / "deb").glob(f"{source.name}_*.deb"))
    return sorted((fetched / "npm").glob(f"{source.label}.tgz"))


def _run(command: list[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(
            f"{what}: this machine has no {command[0]}; run this on Debian 12 with npm"
        ) from error
    if done.returncode:
        raise FetchError(f"{what}: {' '.join(command[:2])} failed: {done.stderr.strip()[-400:]}")


def _webp_spans(path: Path) -> Iterator[tuple[int, int]]:
    """(offset, length) of every WebP file inside another file."""
    for match in re.finditer(rb"RIFF(....)WEBP", path.read_bytes(), re.S):
        yield match.start(), 8 + int.from_bytes(match[1], "little")
