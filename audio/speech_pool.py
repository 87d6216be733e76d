"""Recorded speech in five languages out of Debian packages: what the default speech codec is trained on.

    pip install "tokenzoo[audio,recipes]"                   # PyAV decodes G.722
    python -m tokenzoo.audio.speech_pool data/speech        # 57 MB to download; a minute, 770 MB on disk
    python -m tokenzoo.audio.speech_pool data/speech --fetched cache/

writes 16 kHz mono, all recordings of a set one after the other, and where each lies:

    train.npy, train.json           four voices, to train on, each at three speeds
    held_out.npy, held_out.json     the last tenth of the prompts of these voices: other words
    unseen.npy, unseen.json         never trained on: the Italian voice, and five utterances of LibriVox
    provenance.json                 packages, versions, checksums, licences, minutes

The `.npy` are int16 (S,); a `.json` is a list of {"name", "speaker", "language", "start", "samples"}.

All four are the voices of women: played slower, they reach the pitch of men too, whom a codec must know.

The prompts of the telephone exchange Asterisk, in wide band, and the LibriVox lines that pocketsphinx is
tested with. Beeps, tones, silences and screaming monkeys are left out. Nothing is redistributed: it is
fetched where it is needed. The same packages give the same bytes. Runs where apt-get and dpkg-deb are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..zoo.optional import require

SAMPLE_RATE_HZ = 16_000
# The last one in so many prompts of a voice, in the order of their names, is held out.
HELD_OUT_SHARE = 10
# Of the training recordings; 0.65 brings 190 Hz to 124.
SPEEDS = (Fraction(1), Fraction(17, 20), Fraction(13, 20))


@dataclass(frozen=True)
class Voice:
    """A package of recordings by one speaker, as it states them.

    package   of Debian
    folder    of the recordings inside
    speaker   whom its file of licences credits
    is_seen   False: never trained on
    """

    package: str
    folder: str
    speaker: str
    language: str
    licence: str
    is_seen: bool = True


def _asterisk(folder: str, speaker: str, licence: str, *, is_seen: bool = True) -> Voice:
    language = folder[:2]
    package = f"asterisk-core-sounds-{language}-g722"
    return Voice(package, f"usr/share/asterisk/sounds/{folder}", speaker, language, licence, is_seen)


_LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox"
VOICES = (
    _asterisk("en_US_f_Allison", "Allison Smith", "CC-BY-SA-3.0"),
    _asterisk("es_MX_f_Allison", "Allison Smith", "CC-BY-SA-3.0"),
    _asterisk("fr_CA_f_June", "June Wallack", "CC-BY-SA-3.0"),
    _asterisk("ru_RU_f_IvrvoiceRU", "Maxim Topal", "CC-BY-3.0"),
    _asterisk("it_IT_m_Carlo", "Carlo Flora", "CC-BY-3.0", is_seen=False),
    Voice("pocketsphinx-testdata", _LIBRIVOX, "LibriVox", "en", "public domain", is_seen=False),
)
_NOT_SPEECH = re.compile(
    r"(silence/.*|(as|des)cending-2tone|beep|beeperr|confbridge-(join|leave)|tt-monkeys)$"
)


class FetchError(RuntimeError):
    """A package could not be fetched or is not what it was; the message names it."""


@dataclass(frozen=True)
class Recording:
    """One file of a voice; `name` is its path inside the folder, without the suffix.

    speed  at which it is played: 1/2 makes it twice as long, an octave lower
    """

    name: str
    path: Path
    voice: Voice
    speed: Fraction = SPEEDS[0]


@dataclass(frozen=True)
class Place:
    """Where a recording lies in an array of samples."""

    name: str
    speaker: str
    language: str
    start: int
    samples: int


def fetch(voices: Sequence[Voice], fetched: Path) -> None:
    """Unpack packages below `fetched`/x, download to `fetched`/deb what is not there; install nothing."""
    archives = fetched / "deb"
    archives.mkdir(parents=True, exist_ok=True)
    wanted = [voice.package for voice in voices if not list(archives.glob(f"{voice.package}_*.deb"))]
    if wanted:
        # As root apt would drop to a user who cannot write here; for others the option means nothing.
        _run(["apt-get", "update", "-qq"], archives)
        _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *wanted], archives)
    for voice in voices:
        target = fetched / "x" / voice.package
        if not target.is_dir():
            _run(["dpkg-deb", "-x", str(archive(voice, fetched).resolve()), str(target.resolve())], archives)


def archive(voice: Voice, fetched: Path) -> Path:
    """The .deb of a voice; FetchError unless there is one."""
    found = sorted((fetched / "deb").glob(f"{voice.package}_*.deb"))
    if len(found) != 1:
        raise FetchError(f"{len(found)} files {voice.package}_*.deb in {fetched / 'deb'}: expected one")
    return found[0]


def recordings(voice: Voice, fetched: Path) -> list[Recording]:
    """The spoken recordings of a voice, by name; FetchError where none lie there."""
    root = fetched / "x" / voice.package / voice.folder
    paths = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.*")}
    found = [
        Recording(name, path, voice)
        for name, path in sorted(paths.items())
        if path.suffix in (".g722", ".wav") and path.stat().st_size and not _NOT_SPEECH.match(name)
    ]
    if not found:
        raise FetchError(f"{voice.package} has no recordings in {voice.folder}: has the package changed?")
    return found


def read(recording: Recording) -> np.ndarray:
    """(S,) int16 at 16 kHz."""
    samples = _decoded(recording.path)
    if recording.speed == 1:
        return samples
    torchaudio: Any = require("torchaudio", "audio")
    sound = torch.from_numpy(samples.astype(np.float32))
    slower = torchaudio.functional.resample(sound, recording.speed.numerator, recording.speed.denominator)
    return slower.round().clamp(-32768, 32767).to(torch.int16).numpy()


def _decoded(path: Path) -> np.ndarray:
    if path.suffix == ".wav":
        with wave.open(str(path)) as file:
            kind = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            if kind != (SAMPLE_RATE_HZ, 1, 2):
                raise FetchError(f"{path}: (rate, channels, bytes) {kind}, expected 16 kHz mono int16")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2")
    av: Any = require("av", "recipes")
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.int16)


def split(voice: Voice, found: Sequence[Recording]) -> Iterator[tuple[str, Recording]]:
    """The set of each recording: "train", "held_out" or "unseen"."""
    first_held_out = len(found) - math.ceil(len(found) / HELD_OUT_SHARE)
    for index, recording in enumerate(found):
        seen = "train" if index < first_held_out else "held_out"
        yield (seen if voice.is_seen else "unseen"), recording


def write_set(name: str, members: Sequence[Recording], folder: Path) -> list[Place]:
    """NAME.npy and NAME.json in `folder`."""
    sounds, places, start = [], [], 0
    for recording in members:
        sounds.append(read(recording))
        voice, samples = recording.voice, len(sounds[-1])
        name_of_speed = "" if recording.speed == 1 else f"@{float(recording.speed)}"
        full_name = f"{voice.package}:{recording.name}{name_of_speed}"
        places.append(Place(full_name, voice.speaker, voice.language, start, samples))
        start += samples
    part = folder / f"{name}.part.npy"
    np.save(part, np.concatenate(sounds))
    os.replace(part, folder / f"{name}.npy")
    (folder / f"{name}.json").write_text(json.dumps([asdict(place) for place in places], indent=0) + "\n")
    return places


def build(folder: Path, fetched: Path) -> dict[str, float]:
    """Everything that the head of this file lists; returns the minutes of each set."""
    fetch(VOICES, fetched)
    folder.mkdir(parents=True, exist_ok=True)
    sets: dict[str, list[Recording]] = {"train": [], "held_out": [], "unseen": []}
    for voice in VOICES:
        for name, recording in split(voice, recordings(voice, fetched)):
            speeds = SPEEDS if name == "train" else SPEEDS[:1]
            sets[name] += [replace(recording, speed=speed) for speed in speeds]
    places = {name: write_set(name, members, folder) for name, members in sets.items()}
    minutes = {name: _minutes(found) for name, found in places.items()}
    packages = []
    for voice in VOICES:
        file = archive(voice, fetched)
        mine = {
            name: [p for p in found if p.name.startswith(f"{voice.package}:")]
            for name, found in places.items()
        }
        packages.append(
            asdict(voice)
            | {"version": file.name.split("_")[1], "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            | {"recordings": sum(map(len, mine.values()))}
            | {"minutes": {name: _minutes(found) for name, found in mine.items() if found}}
        )
    told = {"sample_rate_hz": SAMPLE_RATE_HZ, "minutes": minutes, "packages": packages}
    (folder / "provenance.json").write_text(json.dumps(told, indent=1) + "\n")
    return minutes


def _minutes(places: Sequence[Place]) -> float:
    return round(sum(place.samples for place in places) / SAMPLE_RATE_HZ / 60, 2)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]} is not here: run this on Debian, or fetch elsewhere") from error
    if done.returncode:
        raise FetchError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument(
        "--fetched", type=Path, help="where packages lie, or go to (default: FOLDER/packages)"
    )
    chosen = parser.parse_args(arguments)
    try:
        minutes = build(chosen.folder, chosen.fetched or chosen.folder / "packages")
    except FetchError as error:
        print(f"speech_pool: {error}", file=sys.stderr)
        return 1
    print(f"minutes: {minutes}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
