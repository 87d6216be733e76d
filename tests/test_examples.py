"""The examples of docs/examples.md do what they say they do, not only run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .hub_server import HubServer

pytestmark = [
    # Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the Hub client's own doing
]


def test_the_examples_do_what_they_say(
    hub: HubServer, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (checkout / "docs" / "examples.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "examples.md", "exec"), names)  # our own file, not a stranger's
    assert names["after"] > names["before"] + 0.5
    assert {"config.json", "model.safetensors", "README.md"} <= set(hub.files("me/my-pyramid"))
    assert sum(a == b for a, b in enumerate(names["nearest"])) >= 4  # one in six by chance
    assert names["right"] >= 7
