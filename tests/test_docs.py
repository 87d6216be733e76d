"""The Python examples of the docs run, in order, each page in one session."""

import re
from pathlib import Path

import pytest

import tokenzoo

from .toys import build_toy

PAGES = ["quantizers.md", "kernels.md", "image.md", "text_measures.md"]
# What stands in for official models, whose weights are not here.
SMALL = {
    "flextok-d12-d12": "flextok",
    "karl-small-vqgan": "karl",
    "ta-titok-bl32-vq": "ta-titok",
    "mar-kl16": "ldm-vae",
}


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenzoo, "load", lambda name: build_toy(SMALL[name]))
    blocks = re.findall(r"```python\n(.*?)```", (checkout / "docs" / page).read_text(), re.S)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)  # our own file, not a stranger's
