"""Sounds to train on: folders, arrays, crops, what is held out, and what cannot be read."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Generator, Tensor

from tokenzoo.audio.data import AudioFolderData
from tokenzoo.audio.preprocess import AudioPreprocess, AudioReadError
from tokenzoo.audio.sounds import ArrayRecordings, Crops, FolderRecordings
from tokenzoo.zoo.held_out import held_out

RATE_HZ = 16_000
MONO = AudioPreprocess(sample_rate_hz=RATE_HZ)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def ramp(samples: int, start: int = 0) -> np.ndarray:
    """int16 samples that say their own place."""
    return (np.arange(start, start + samples) - 16_000).astype(np.int16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two speakers: 1000 and 3000 samples, and one of 250 in stereo at another rate."""
    for name, samples in (("anna/1.wav", 1000), ("anna/deep/2.flac", 3000)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, ramp(samples), RATE_HZ, subtype="PCM_16")
    (tmp_path / "bert").mkdir()
    stereo = np.stack([ramp(250), ramp(250)], axis=1)
    soundfile.write(tmp_path / "bert" / "3.wav", stereo, RATE_HZ // 2, subtype="PCM_16")
    return tmp_path


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", ramp(1600))
    places = [
        {"name": "x", "speaker": "anna", "start": 0, "samples": 1000},
        {"name": "y", "speaker": "bert", "start": 1000, "samples": 600},
    ]
    (tmp_path / "a.json").write_text(json.dumps(places))
    return tmp_path / "a.npy"


def trainer_of(preprocess: AudioPreprocess = MONO, hop: int = 100) -> Any:
    module = SimpleNamespace(
        preprocess=preprocess,
        num_tokens=lambda extent: -(-extent[0] // hop),
        default_extents=lambda lengths: lengths[:, None] * hop,
    )
    return SimpleNamespace(lightning_module=module, global_rank=0, world_size=1, limit_val_batches=1.0)


def set_up(data: AudioFolderData, **settings: Any) -> AudioFolderData:
    data.trainer = trainer_of(**settings)
    data.setup("fit")
    return data


def test_a_folder_lists_its_sounds_with_speakers(folder: Path) -> None:
    found = FolderRecordings(folder).found
    assert [(each.name, each.speaker, each.rate_hz, each.samples) for each in found] == [
        ("anna/1.wav", "anna", RATE_HZ, 1000),
        ("anna/deep/2.flac", "anna", RATE_HZ, 3000),
        ("bert/3.wav", "bert", RATE_HZ // 2, 250),
    ]


def test_every_second_is_an_item_and_crops_are_exact(folder: Path) -> None:
    crops = Crops(FolderRecordings(folder), [0, 1], MONO, 400)
    assert len(crops) == 2 + 7
    fixed = crops.read(range(9), None)
    assert fixed.dtype == torch.int16 and fixed.shape == (9, 1, 400)
    starts = fixed[:, 0, 0].int() + 16_000
    assert starts.tolist() == [0, 600, 0, 433, 867, 1300, 1733, 2167, 2600]
    assert (fixed.int().diff(dim=-1) == 1).all(), "samples pass bit for bit"
    drawn = crops.read([2] * 50, generator())
    places = drawn[:, 0, 0].int() + 16_000
    assert 0 <= int(places.min()) < 300 and 2300 < int(places.max()) <= 2600
    assert torch.equal(drawn, crops.read([2] * 50, generator()))


def test_other_rates_are_resampled_and_stereo_is_mixed(folder: Path) -> None:
    """250 samples at half the rate are 500; silence follows where a sound is shorter than a crop."""
    (sound,) = Crops(FolderRecordings(folder), [2], MONO, 400).read([0], None)
    whole = MONO(folder / "bert" / "3.wav")
    torch.testing.assert_close(sound[:, :380].float() / 32768, whole[:, :380], atol=2e-4, rtol=0)
    (longer,) = Crops(FolderRecordings(folder), [2], MONO, 700).read([0], None)
    assert longer[:, :500].any() and not longer[:, 500:].any()
    stereo = AudioPreprocess(sample_rate_hz=RATE_HZ, channels=2)
    (both,) = Crops(FolderRecordings(folder), [0], stereo, 400).read([0], None)
    assert both.shape == (2, 400) and torch.equal(both[0], both[1])


def test_an_array_is_cut_at_its_recordings(array: Path) -> None:
    recordings = ArrayRecordings(array, RATE_HZ)
    assert [(each.name, each.speaker, each.samples) for each in recordings.found] == [
        ("x", "anna", 1000),
        ("y", "bert", 600),
    ]
    crops = Crops(recordings, [1], MONO, 800)
    (sound,) = crops.read([0], generator())
    assert torch.equal(sound[0, :600], torch.from_numpy(ramp(600, 1000))) and not sound[0, 600:].any()
    array.with_suffix(".json").unlink()
    assert [each.samples for each in ArrayRecordings(array, RATE_HZ).found] == [1600]


def test_the_rate_of_an_array_is_told_or_stands_beside_it(array: Path) -> None:
    with pytest.raises(ValueError, match="does not say its rate: give array_rate_hz"):
        ArrayRecordings(array, None)
    (array.parent / "provenance.json").write_text('{"sample_rate_hz": 8000}')
    assert ArrayRecordings(array, None).found[0].rate_hz == 8000


def test_what_is_no_array_of_sounds_is_refused(array: Path, tmp_path: Path) -> None:
    (tmp_path / "b.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"b\.npy is not a readable \.npy file"):
        ArrayRecordings(tmp_path / "b.npy", 1)
    np.save(tmp_path / "c.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"holds float32 \(2, 3\): expected int16 \(S,\)"):
        ArrayRecordings(tmp_path / "c.npy", 1)
    array.with_suffix(".json").write_text('[{"name": "x", "start": 0, "samples": 1601}]')
    with pytest.raises(ValueError, match=r"does not fit .*a\.npy, which holds 1600 samples"):
        ArrayRecordings(array, 1)
    array.with_suffix(".json").write_text('[{"name": "x"}]')
    with pytest.raises(ValueError, match=r"expected a list of \{name, start, samples\}"):
        ArrayRecordings(array, 1)
    array.with_suffix(".json").write_text("[")
    with pytest.raises(ValueError, match="is not readable JSON"):
        ArrayRecordings(array, 1)


def test_what_is_no_sound_is_reported_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "bad.wav").write_bytes(b"RIFF and no more")
    with caplog.at_level(logging.WARNING, logger="tokenzoo"):
        recordings = FolderRecordings(folder)
    assert len(recordings.found) == 3 and "bad.wav is no readable sound" in caplog.text
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        FolderRecordings(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no readable sounds \(\.wav, \.flac"):
        FolderRecordings(folder / "empty")


def test_another_sound_replaces_one_that_breaks_off(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    recordings = FolderRecordings(folder)
    crops = Crops(recordings, [0, 1], MONO, 1000)
    (folder / "anna" / "1.wav").unlink()
    with caplog.at_level(logging.WARNING, logger="tokenzoo"):
        found = crops.read([0, 0], None)
    assert caplog.text.count("skipped") == 1
    assert torch.equal(found[0, 0], torch.from_numpy(ramp(1000))) and torch.equal(found[0], found[1])
    (folder / "anna" / "deep" / "2.flac").unlink()
    with pytest.raises(AudioReadError, match="none of 4 crops can be read"):
        crops.read([3], generator())


def test_seconds_are_held_out_by_file_or_by_speaker(folder: Path) -> None:
    def sizes(**settings: Any) -> tuple[int, int]:
        data = set_up(AudioFolderData(str(folder), crop_seconds=250 / RATE_HZ, batch_size=1, **settings))
        return len(data.train_dataloader()), len(data.val_dataloader())

    # A crop is three hops of 100 samples: 3, 10 and 1 of them fit into the three sounds.
    assert sizes(validation=str(folder)) == (14, 14)
    assert sizes(validation=str(folder), validation_crops=5) == (14, 5)
    trained, held = sizes(validation_share=0.1)
    assert trained + held == 14 and trained and held
    assert sizes(validation_share=0.05, hold_out="speaker") in ((13, 1), (1, 13))
    with pytest.raises(ValueError, match="holds out all of"):
        sizes(validation_share=0.99)
    (folder / "4.wav").write_bytes((folder / "anna" / "1.wav").read_bytes())
    with pytest.raises(ValueError, match="does not say who speaks"):
        sizes(hold_out="speaker")


def test_without_a_held_out_sound_there_is_no_validation(folder: Path) -> None:
    data = set_up(AudioFolderData(str(folder), validation_share=0.0))
    assert data.trainer is not None and data.trainer.limit_val_batches == 0


def test_validation_crops_never_change(array: Path) -> None:
    def crops(seed: int) -> Tensor:
        data = AudioFolderData(
            str(array), str(array), array_rate_hz=RATE_HZ, crop_seconds=0.01, batch_size=16, seed=seed
        )
        (batch,) = list(set_up(data).val_dataloader())
        return batch

    assert crops(0).shape == (8, 1, 200) and torch.equal(crops(0), crops(1))


def test_training_crops_follow_the_seed_and_the_epoch(array: Path) -> None:
    def epochs(seed: int) -> list[Tensor]:
        data = AudioFolderData(
            str(array), str(array), array_rate_hz=RATE_HZ, crop_seconds=0.01, batch_size=4, seed=seed
        )
        batches = set_up(data).train_dataloader()
        return [batch for _ in range(2) for batch in batches]

    first, again, other = epochs(0), epochs(0), epochs(1)
    assert len(first) == 4 and all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[2]) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_share": 1.0}, r"validation_share=1\.0"),
        ({"hold_out": "word"}, "hold_out='word'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"crop_seconds": 0.0}, r"crop_seconds=0\.0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioFolderData("x", **settings)


def test_data_needs_a_tokenizer(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="no trainer"):
        AudioFolderData(str(folder)).setup("fit")


def test_sizes_count_where_they_are_given() -> None:
    assert held_out(["a", "b", "c"], 0.5, [1, 1, 100]).sum() >= 1
    assert held_out(["", "", ""], 0.5, [10, 1, 9]).tolist() == [False, True, True]
    assert not held_out(["a", "b"], 0.0, [1, 1]).any()
