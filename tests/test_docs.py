"""The Python examples of the docs run, in order, each page in one session."""

import re
from pathlib import Path

import pytest
import soundfile

import tokenzoo
from tokenzoo.audio.audio_files import AudioFiles
from tokenzoo.zoo import catalogue
from tokenzoo.zoo.loading import load
from tokenzoo.zoo.tokenizer import Tokenizer
from tokenzoo.zoo.untrained import untrained

from .toys import build_toy

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")

PAGES = [
    "quantizers.md",
    "kernels.md",
    "image.md",
    "audio.md",
    "lm_spt.md",
    "text.md",
    "text_measures.md",
    "training.md",
    "joint_vocabulary.md",
    "generators.md",
]
# What stands in for official models, whose weights are not here.
SMALL = {
    "flextok-d12-d12": "flextok",
    "lm-spt-12hz": "lm-spt",
    "karl-small-vqgan": "karl",
    "ta-titok-bl32-vq": "ta-titok",
    "mar-kl16": "ldm-vae",
}


def _stand_in(name: str) -> Tokenizer:
    """A toy, or the model itself with random weights where it is small; what needs no download, as it is."""
    if name in SMALL:
        return build_toy(SMALL[name])
    row = catalogue.find(name)
    return load(name) if row is None or row.config is None else untrained(name)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenzoo, "load", _stand_in)
    monkeypatch.chdir(tmp_path)
    waveform, rate_hz = soundfile.read(AudioFiles().samples()[0])
    soundfile.write("speech.wav", waveform[:rate_hz], rate_hz)
    blocks = re.findall(r"```python\n(.*?)```", (checkout / "docs" / page).read_text(), re.S)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)  # our own file, not a stranger's
