"""Our codecs beside the official packages on the same weights: `python -m tokenzoo.audio.peers`.

Whichever of `encodec`, `dac` (descript-audio-codec) and `snac` is installed is built at full size with random
weights, which ours takes over through its converter; both run in turns in this process, in one thread.
Prints seconds of processor time, the ratio (above 1: ours is faster) and how many ids agree. None of them is
a dependency.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..zoo import catalogue
from ..zoo.loading import build, read_yaml
from .audio_files import AudioFiles

# Of each, the least counts: what else the machine does only adds.
ROUNDS = 3


@dataclass(frozen=True)
class Peer:
    """An official model behind two functions.

    model   the official module
    encode  sound (1, C, S) to its codes, in a form of its own
    decode  these to sound
    ids     these as ids (1, N, Q), as ours are
    """

    model: torch.nn.Module
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]
    ids: Callable[[Any], Tensor]


def _encodec(module: Any, name: str) -> Peer:
    size = "24" if "24" in name else "48"
    model = getattr(module.EncodecModel, f"encodec_model_{size}khz")(pretrained=False).eval()
    model.bandwidth = None
    return Peer(
        model,
        encode=model.encode,
        decode=model.decode,
        ids=lambda frames: torch.cat([codes for codes, _ in frames], dim=-1).transpose(1, 2),
    )


def _dac(module: Any, name: str) -> Peer:
    config = catalogue_config(name)
    model = module.DAC(
        encoder_dim=config["encoder_channels"],
        encoder_rates=config["encoder_strides"],
        decoder_dim=config["decoder_channels"],
        decoder_rates=config["decoder_strides"],
        n_codebooks=config["num_codebooks"],
        codebook_size=config["num_codes"],
        codebook_dim=config["code_dim"],
        sample_rate=config["preprocess"]["sample_rate_hz"],
    ).eval()
    return Peer(
        model,
        encode=lambda sound: model.encode(model.preprocess(sound, model.sample_rate)),
        decode=lambda found: model.decode(found[0]),
        ids=lambda found: found[1].transpose(1, 2),
    )


def _snac(module: Any, name: str) -> Peer:
    config = catalogue_config(name)
    model = module.SNAC(
        sampling_rate=config["preprocess"]["sample_rate_hz"],
        encoder_dim=config["encoder_channels"],
        encoder_rates=config["encoder_strides"],
        decoder_dim=config["decoder_channels"],
        decoder_rates=config["decoder_strides"],
        attn_window_size=config["window_size"] or None,
        codebook_size=config["num_codes"],
        codebook_dim=config["code_dim"],
        vq_strides=config["frames"],
    ).eval()

    def ids(levels: list[Tensor]) -> Tensor:
        count = levels[0].shape[1]
        return torch.cat([level.unflatten(1, (count, -1)) for level in levels], dim=-1)

    return Peer(model, encode=model.encode, decode=model.decode, ids=ids)


PEERS: dict[str, tuple[str, Callable[[Any, str], Peer]]] = {
    "encodec-24khz": ("encodec", _encodec),
    "encodec-48khz": ("encodec", _encodec),
    "dac-16khz": ("dac", _dac),
    "dac-44khz": ("dac", _dac),
    "snac-24khz": ("snac", _snac),
    "snac-44khz": ("snac", _snac),
}


def catalogue_config(name: str) -> dict[str, Any]:
    """The plain values of a model's configuration, every field with its value."""
    row = catalogue.find(name)
    assert row is not None and row.config is not None
    kind, values = read_yaml(row.config)
    return catalogue.family(kind).config_type.from_dict(values).to_dict()


@dataclass(frozen=True)
class Comparison:
    """Seconds of processor time of one sound: ours and theirs, and the share of ids that agree."""

    name: str
    sound_seconds: float
    encode: tuple[float, float]
    decode: tuple[float, float]
    agreement: float


def compare(name: str, seconds: float, rounds: int = ROUNDS) -> Comparison:
    """One sound of so many seconds through both. ImportError where the peer is not installed."""
    from ..checkpoints.weights import load_strict

    package, make = PEERS[name]
    torch.manual_seed(0)
    peer = make(importlib.import_module(package), name)
    ours: Any = build(*read_yaml(str(catalogue.find(name).config)))  # pyright: ignore
    converter = catalogue.converter(str(catalogue.find(name).converter))  # pyright: ignore
    tensors = converter.fold(peer.model.state_dict())
    names = converter.convert_names(tensors)
    load_strict(ours, {names[key]: tensor for key, tensor in tensors.items() if key in names})
    sound = ours.eval().preprocess(AudioFiles().samples()[0])
    sound = sound.repeat(1, -(-int(seconds * ours.facts.sample_rate_hz) // sound.shape[1]))
    sound = sound[None, :, : int(seconds * ours.facts.sample_rate_hz)]
    with torch.inference_mode():
        theirs, tokens = peer.encode(sound), ours.encode(sound)
        agreement = float((peer.ids(theirs) == tokens.ids).double().mean())
        encode = _in_turns(lambda: ours.encode(sound), lambda: peer.encode(sound), rounds)
        decode = _in_turns(lambda: ours.decode(tokens), lambda: peer.decode(theirs), rounds)
    return Comparison(name, seconds, encode, decode, agreement)


def _in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float]:
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for run, taken in zip((ours, theirs), times, strict=True):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
    return min(times[0]), min(times[1])


def table(rows: Sequence[Comparison]) -> str:
    """Markdown, a row a model."""
    lines = [
        "| model | sound | encode: ours, official, ratio | decode: ours, official, ratio | equal ids |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        times = [
            f"{mine:.2f} s, {other:.2f} s, {other / mine:.2f}" for mine, other in (row.encode, row.decode)
        ]
        cells = [f"`{row.name}`", f"{row.sound_seconds:g} s", *times, f"{100 * row.agreement:.3f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PEERS], default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the sound (default: 10)")
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for name in tqdm(options.names or PEERS, file=sys.stderr):
        try:
            rows.append(compare(name, options.seconds))
        except ImportError as error:
            print(f"{name}: {error}; pip install its package to compare", file=sys.stderr)
    if not rows:
        return 1
    page = f"One thread, torch {torch.__version__}, processor time, least of {ROUNDS}.\n\n{table(rows)}"
    print(page)
    if options.out:
        options.out.write_text(page + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
