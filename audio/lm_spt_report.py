"""What resynthesis distillation does for a tiny LM-SPT: twins of one seed, one without it, on unheard speech.

    python -m tokenzoo.audio.speech_pool data/speech
    python -m tokenzoo.audio.lm_spt_report data/speech openai/whisper-tiny.en

Prints a table and, with --json, writes its numbers. docs/lm_spt.md has those of one run. The networks are
hundreds of times smaller than the recipes in configs/, so that a CPU trains each in minutes: the table
compares two objectives, it does not say how good LM-SPT is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .asr_encoder import AsrEncoder
from .lm_spt import LmSpt
from .losses import mel_distance
from .resynthesis import as_heard, feature_distance

# Hop in samples of 16 kHz: strides of the encoder.
STRIDES = {640: (8, 8, 10), 1280: (8, 8, 10, 2), 2560: (8, 8, 10, 4)}
RATE_HZ = 16_000
WIDTHS: dict[str, Any] = {"encoder_channels": 4, "features": 64, "decoder_channels": 64}
CODES: dict[str, Any] = {"num_codebooks": 4, "semantic_codes": 256, "acoustic_codes": 256}
MEL = ((256, 20), (512, 40), (1024, 80))
SETS = ("held_out", "unseen")
LEAST_SECONDS, MOST_SECONDS = 1.0, 6.0


@dataclass(frozen=True)
class Score:
    """A tokenizer on a set of recordings, means over them.

    token_rate_hz   tokens a second
    weight          of the distillation in training; 0: without it
    recordings      of which set, and how many
    distance        mean squared distance of the recognizer's features of what the semantic ids alone say,
                    over the variance of the original's within a recording: 1 is no better than their mean
    deviation       standard error of `distance`
    shuffled        the same with the semantic ids in another order: no more than `distance` where the ids say
                    nothing, however near the sound of the decoder comes to that of speech
    told            by how much `shuffled` exceeds `distance`, and told_deviation its standard error, by pairs
    cosine          1 less the cosine of the same vectors
    mel             distance of log10 mels with all codebooks
    """

    token_rate_hz: float
    weight: float
    set: str
    recordings: int
    distance: float
    deviation: float
    shuffled: float
    told: float
    told_deviation: float
    cosine: float
    mel: float


def train(pool: Path, whisper: str, hop: int, weight: float, *, steps: int, batch: int, seed: int) -> LmSpt:
    """A tiny LM-SPT of this hop, from random weights of this seed."""
    from lightning.pytorch import Trainer

    from .data import AudioFolderData
    from .training import AudioTraining

    torch.manual_seed(seed)
    strides = STRIDES[hop]
    module = AudioTraining(
        "lm-spt",
        WIDTHS | CODES | {"encoder_strides": strides, "decoder_strides": strides[::-1]},
        losses={  # pyright: ignore[reportArgumentType]
            "waveform": 0.0,
            "mel": 15.0,
            "mel_windows": [window for window, _ in MEL],
            "mel_bands": [bands for _, bands in MEL],
            "resynthesis": weight,
            "asr_encoder": whisper,
        },
        optimizer={"learning_rate": 2e-3, "betas": (0.8, 0.99), "warmup_steps": 20},  # pyright: ignore
        ema_decay=None,
        seed=seed,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    data = AudioFolderData(str(pool / "train.npy"), batch_size=batch, crop_seconds=1.0, seed=seed)
    trainer.fit(module, data)
    return module.tokenizer.eval()  # pyright: ignore[reportReturnType]


def held_out(pool: Path, name: str, count: int) -> Iterator[Tensor]:
    """(1, 1, S) float, `count` recordings of a set, evenly spaced in the order of their voices."""
    from .sounds import open_recordings

    recordings = open_recordings(pool / f"{name}.npy", None)
    rows = [i for i, each in enumerate(recordings.found) if each.samples >= LEAST_SECONDS * RATE_HZ]
    most = round(MOST_SECONDS * RATE_HZ)
    for place in range(min(count, len(rows))):
        row = rows[place * len(rows) // min(count, len(rows))]
        yield recordings.read(row, 0, most)[None]


@torch.no_grad()
def judge(tokenizer: LmSpt, encoder: AsrEncoder, sounds: Sequence[Tensor], weight: float, name: str) -> Score:
    """`Score` of one tokenizer on recordings (1, 1, S)."""
    rows = []
    for sound in sounds:
        tokens = tokenizer.encode(sound)
        (wanted,) = encoder(as_heard(sound, RATE_HZ))
        made = encoder(as_heard(tokenizer.decode(tokens.keep(1)), RATE_HZ))
        order = torch.randperm(tokens.ids.shape[1], generator=torch.Generator().manual_seed(0))
        mixed = replace(tokens, values=tokens.ids[:, order])
        other = encoder(as_heard(tokenizer.decode(mixed.keep(1)), RATE_HZ))
        spread = (wanted - wanted.mean(dim=1, keepdim=True)).square().mean()
        distance = feature_distance(made, [wanted]) / spread
        shuffled = feature_distance(other, [wanted]) / spread
        cosine = feature_distance(made, [wanted], "cosine")
        mel = mel_distance(tokenizer.decode(tokens), sound, MEL, RATE_HZ)
        rows.append(torch.stack([distance[0], shuffled[0], shuffled[0] - distance[0], cosine[0], mel]))
    found = torch.stack(rows).double()
    distance, shuffled, told, cosine, mel = found.mean(dim=0).tolist()
    deviations = found.std(dim=0) / len(found) ** 0.5
    return Score(
        token_rate_hz=RATE_HZ / tokenizer.config.hop_samples,
        weight=weight,
        set=name,
        recordings=len(found),
        distance=distance,
        deviation=float(deviations[0]),
        shuffled=shuffled,
        told=told,
        told_deviation=float(deviations[2]),
        cosine=cosine,
        mel=mel,
    )


def table(scores: Sequence[Score]) -> str:
    """Markdown."""
    lines = [
        "| tokens/s | distillation | speech | distance | ids shuffled | told by order | mel, all ids |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in scores:
        lines.append(
            f"| {each.token_rate_hz:g} | {each.weight:g} | {each.set}, {each.recordings} "
            f"| {each.distance:.3f} ± {each.deviation:.3f} | {each.shuffled:.3f} "
            f"| {each.told:.3f} ± {each.told_deviation:.3f} | {each.mel:.3f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pool", type=Path, help="the folder that tokenzoo.audio.speech_pool wrote")
    parser.add_argument("whisper", help="folder or Hub id of a Whisper")
    parser.add_argument("--hops", type=int, nargs="+", default=list(STRIDES), choices=list(STRIDES))
    parser.add_argument("--weight", type=float, default=10.0, help="of the distillation")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--recordings", type=int, default=64, help="of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    chosen = parser.parse_args(arguments)
    encoder = AsrEncoder.from_whisper(chosen.whisper)
    scores: list[Score] = []
    for hop in chosen.hops:
        for weight in (0.0, chosen.weight):
            settings = {"steps": chosen.steps, "batch": chosen.batch, "seed": chosen.seed}
            tokenizer = train(chosen.pool, chosen.whisper, hop, weight, **settings)
            for name in SETS:
                sounds = list(held_out(chosen.pool, name, chosen.recordings))
                scores.append(judge(tokenizer, encoder, sounds, weight, name))
            print(table(scores[-len(SETS) :]), file=sys.stderr, flush=True)
            if chosen.json:
                told = {"steps": chosen.steps, "batch": chosen.batch, "scores": [asdict(s) for s in scores]}
                chosen.json.write_text(json.dumps(told, indent=1) + "\n")
    print(table(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
