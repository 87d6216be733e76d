"""`tokenzoo fit` for sound: from a recipe to a codec that loads, with examples to listen to on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml

import tokenzoo
from tokenzoo.zoo import fit
from tokenzoo.zoo.examples import Examples

from .toys import build_toy
from .training_audio import ADVERSARY, LOSSES, new_module, new_trainer, tones

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe beside five sounds and a broken file, for a tiny EnCodec that is judged."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i, sound in enumerate(tones(5, 2000)):
        soundfile.write(folder / f"{i}.flac", sound.T, 16_000, subtype="PCM_16")
    (folder / "broken.wav").write_bytes(b"RIFF and no more")
    settings: dict[str, Any] = {
        "out": str(tmp_path / "out"),
        "trainer": {
            "max_steps": 6,
            "accelerator": "cpu",
            "log_every_n_steps": 2,
            "val_check_interval": 3,
            "check_val_every_n_epoch": None,
        },
        "model": {
            "tokenizer_type": "encodec",
            "config": build_toy("encodec").config.to_dict(),
            "identity": {"name": "tiny", "licence": "MIT"},
            "losses": LOSSES,
            "adversary": ADVERSARY,
            "optimizer": {"learning_rate": 1e-3, "decay_steps": 20},
        },
        "data": {"train": str(folder), "batch_size": 2, "crop_seconds": 0.02, "validation_share": 0.2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "recipe.yaml"


def run(recipe: Path, *arguments: str) -> int:
    return fit.main(["--config", str(recipe), *arguments])


def test_a_recipe_becomes_a_codec_with_examples(
    recipe: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = recipe.parent / "out"
    assert run(recipe) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == f"{out}\n" and "6/6" in stderr
    assert caplog.text.count("broken.wav is no readable sound") == 1
    codec = tokenzoo.load(out)
    assert (codec.facts.name, codec.facts.licence, codec.facts.sample_rate_hz) == ("tiny", "MIT", 16_000)
    names = {path.name for path in (out / "training" / "examples").iterdir()}
    assert {"00-original.wav", "00-keep1.wav", "00.wav", "00.tok", "spectrograms.png"} <= names
    sound, rate_hz = soundfile.read(out / "training" / "examples" / "00.wav")
    assert (sound.shape, rate_hz) == ((320,), 16_000)


def test_last_goes_on_where_the_fit_stopped(recipe: Path) -> None:
    whole, parts = recipe.parent / "whole", recipe.parent / "parts"
    assert run(recipe, "--out", str(whole), "--trainer.max_steps", "9", "--examples", "0") == 0
    assert run(recipe, "--out", str(parts)) == 0
    assert run(recipe, "--out", str(parts), "--ckpt_path", "last", "--trainer.max_steps", "9") == 0
    assert tokenzoo.load(parts).facts.fingerprint == tokenzoo.load(whole).facts.fingerprint
    assert not (whole / "training" / "examples").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model.losses.mell", "1"], 2, "mell"),
        (["--model.adversary.discriminators", "[pitch]"], 2, "pitch"),
        (["--data.train", "nowhere"], 1, "nowhere: no such folder"),
        (["--data.batch_size", "1000"], 1, "items do not fill a batch of 1000"),
        (["--data.crop_seconds", "0.0005"], 1, "more than half of one"),
        (["--model.losses.semantic", "1"], 1, "semantic needs teacher"),
        (["--trainer.precision", "16-true"], 1, "scales the loss"),
    ],
)
def test_mistakes_have_their_exit_codes(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(recipe, *arguments) == code
    assert message in capsys.readouterr().err


def test_what_only_encodes_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = yaml.safe_load(recipe.read_text())
    told["model"] |= {"tokenizer_type": "units", "config": build_toy("units").config.to_dict()}
    recipe.write_text(yaml.safe_dump(told))
    assert run(recipe) == 1
    assert "tiny only encodes" in capsys.readouterr().err


class Writer:
    """What TensorBoard's loggers hold."""

    def __init__(self) -> None:
        self.sounds: dict[str, tuple[torch.Tensor, int, int]] = {}

    def add_audio(self, tag: str, sound: torch.Tensor, step: int, sample_rate: int) -> None:
        self.sounds[tag] = (sound, step, sample_rate)

    def add_image(self, *_: Any) -> None:
        raise AssertionError("this is sound")


def test_loggers_that_take_sounds_get_them(tmp_path: Path) -> None:
    from lightning.pytorch.loggers.logger import DummyLogger

    from .training_audio import OneBatch

    writer, module = Writer(), new_module("encodec")

    class Logger(DummyLogger):
        @property
        def experiment(self) -> Any:
            return writer

    examples = Examples(tmp_path / "examples", 1)
    trainer = new_trainer(2, logger=Logger(), callbacks=[examples], limit_val_batches=1, log_every_n_steps=1)
    trainer.fit(module, datamodule=OneBatch(torch.from_numpy(tones(2)), 2))
    assert set(writer.sounds) == {"examples/00", "examples/00-original"}
    sound, step, rate_hz = writer.sounds["examples/00-original"]
    assert (step, rate_hz) == (2, 16_000)
    torch.testing.assert_close(sound, torch.from_numpy(tones(2))[0, 0] / 32768)
    made = module.decode(module.encode(torch.from_numpy(tones(2))[:1] / 32768))
    torch.testing.assert_close(writer.sounds["examples/00"][0], made[0, 0])
    with pytest.raises(ValueError, match="count=0"):
        Examples(tmp_path, 0)


@pytest.mark.slow
def test_the_overfit_recipe_learns(checkout: Path, tmp_path: Path) -> None:
    samples, out = str(checkout / "audio" / "samples"), tmp_path / "out"
    recipe = checkout / "configs" / "audio_overfit.yaml"
    assert run(recipe, "--out", str(out), "--data.train", samples, "--data.validation", samples) == 0
    rows = (out / "training" / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("val/mel")
    scores = [float(row.split(",")[place]) for row in rows[1:] if row.split(",")[place]]
    assert len(scores) == 3 and scores[-1] < 0.6 and scores == sorted(scores, reverse=True)
