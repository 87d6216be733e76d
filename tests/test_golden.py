"""Parity with the official code: every fixture folder under --golden must load and give its numbers."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from tokenzoo.checkpoints.error import CheckpointError

from .golden_fixture import GoldenRun, folded, read_fixture, system_of

# Tensors of each checkpoint that are altered one by one, evenly chosen: all of them would take minutes.
ALTERED = 60

# By the system of the fixtures: what the modules golden_*.py beside this one list.
RUNS: dict[str, GoldenRun] = {
    system: run
    for file in sorted(Path(__file__).parent.glob("golden_*.py"))
    for system, run in getattr(importlib.import_module(f".{file.stem}", __package__), "RUNS", {}).items()
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`fixture_folder` is every folder found, `supported_folder` those that a family serves."""
    wanted = {"fixture_folder", "supported_folder"} & set(metafunc.fixturenames)
    if not wanted:
        return
    given = metafunc.config.getoption("--golden")
    roots = given or [Path(__file__).parent / "golden"]
    folders = sorted(meta.parent for root in roots for meta in Path(root).resolve().glob("*/meta.json"))
    if given and not folders:
        raise pytest.UsageError(f"--golden {', '.join(map(str, given))}: no folder with a meta.json in it")
    if "supported_folder" in wanted:
        folders = [folder for folder in folders if system_of(folder) in RUNS]
    metafunc.parametrize(wanted.pop(), folders, ids=[folder.name for folder in folders])


def test_golden(fixture_folder: Path) -> None:
    system = system_of(fixture_folder)
    assert system in RUNS, f"{fixture_folder}: no runner for system {system!r}; write one"
    fixture, golden = read_fixture(fixture_folder), RUNS[system]
    model = golden.build(fixture.config).eval()
    golden.load(model, fixture.config, fixture.tensors)
    with torch.no_grad():
        computed = golden.run(model, fixture)
    unchecked = sorted(set(fixture.expected) - set(computed))
    assert not unchecked, f"{fixture.name} records {', '.join(unchecked)}, which the runner does not compute"
    for name in fixture.expected:
        fixture.assert_close(name, computed[name])


def test_altered_checkpoint_is_refused(supported_folder: Path) -> None:
    """One tensor removed, reshaped or added: the error names it."""
    fixture, golden = read_fixture(supported_folder), RUNS[system_of(supported_folder)]
    model = golden.build(fixture.config)
    ours = golden.converter.convert_names(fixture.tensors)
    joined = set(fixture.tensors) - set(folded(golden.converter, fixture.tensors))
    for name in list(ours)[:: -(-len(ours) // ALTERED)]:
        removed = {other: kept for other, kept in fixture.tensors.items() if other != name}
        reshaped = fixture.tensors | {name: fixture.tensors[name].unsqueeze(0)}
        lost = len(folded(golden.converter, fixture.tensors)) - len(folded(golden.converter, removed))
        # What does not fold with its partner is missed as a whole, and so is what is made of it besides.
        missing = rf"missing \({max(lost, 1)}\): [^;]*"
        problems = (missing, missing if name in joined else r"wrong shape \(1\): ")
        for altered, problem in zip((removed, reshaped), problems, strict=True):
            with pytest.raises(CheckpointError, match=problem + re.escape(ours[name])):
                golden.load(model, fixture.config, altered)
    for name in ("strange.weight", "encoder.strange.99.weight"):
        with pytest.raises(CheckpointError) as caught:
            golden.load(model, fixture.config, fixture.tensors | {name: torch.zeros(3)})
        assert f"unexpected (1): {golden.converter.convert_names([name])[name]}" in str(caught.value)
