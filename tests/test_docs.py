"""The Python examples of the docs run, in order, each page in one session."""

import re
from pathlib import Path

import pytest

PAGES = ["quantizers.md", "kernels.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page: str, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (checkout / "docs" / page).read_text(), re.S)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)  # our own file, not a stranger's
