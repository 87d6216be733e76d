"""The benchmark measures what it says and prints it all; its cases are checked before they are timed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tokenzoo.kernels import bench, bench_cases, bench_peers
from tokenzoo.kernels.bench_cases import CASES, OURS, Case
from tokenzoo.kernels.bench_measure import measure
from tokenzoo.zoo.cli import main


def tiny(agrees: bool = True):
    def cases(device: str) -> Iterator[Case]:
        rows = torch.zeros(1000, 1000)
        yield Case("small", {OURS: lambda: rows + 1, "peer": lambda: (rows + 1) @ rows}, lambda: agrees)
        yield Case("large", {OURS: lambda: rows.clone()}, lambda: agrees)

    return cases


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_measures_time_and_memory_of_each() -> None:
    rows = torch.zeros(512, 512)  # 1 MiB
    found = measure({"one": lambda: rows + 1, "two": lambda: (rows + 1, rows + 2)}, "cpu", repeats=2)
    assert found["one"].peak_mib == pytest.approx(1, abs=0.1)
    assert found["two"].peak_mib == pytest.approx(2, abs=0.1)
    assert 0 < found["one"].milliseconds < 1000


def test_the_page_and_the_numbers(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(bench, "CASES", {"tiny": tiny()})
    assert main(["bench", "tiny", "--repeats", "1", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "kernels_cpu.md").read_text()
    assert page.strip() == capsys.readouterr().out.strip()
    lines = page.splitlines()
    assert "one thread" in lines[0] and torch.__version__.split("+")[0] in lines[0]
    assert lines[2] == bench.LEGEND
    lines = lines[2:]
    assert lines[2:6] == ["### tiny", "", "| size | tokenzoo | peer |", "|---|---:|---:|"]
    assert lines[6].startswith("| small | ") and "x, " in lines[6] and lines[7].endswith("| - |")
    rows = json.loads((tmp_path / "kernels_cpu.json").read_text())["rows"]
    assert rows[0]["measured"]["peer"]["peak_mib"] == pytest.approx(8000000 / 2**20, rel=0.1)


def test_the_numbers_on_stdout(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench, "CASES", {"tiny": tiny(), "other": tiny()})
    assert main(["bench", "tiny", "other", "tiny", "--repeats", "1", "--first", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["operation"] for row in told["rows"]] == ["tiny", "other"]
    assert told["rows"][0]["measured"][OURS]["milliseconds"] > 0


def test_tables_of_other_operations_are_not_lost(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(bench, "CASES", {"tiny": tiny(), "other": tiny()})
    command = ["bench", "--repeats", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    page = (tmp_path / "kernels_cpu.md").read_text()
    assert page.strip() == capsys.readouterr().out.strip() and page.count("### ") == 2
    assert main([*command, "tiny"]) == 2
    assert "kernels_cpu.json in it also holds other, which would be lost" in capsys.readouterr().err
    assert (tmp_path / "kernels_cpu.md").read_text() == page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels_cpu.json", "kernels_cpu.md"]


def test_what_was_measured_before_a_failure_is_kept(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(bench, "CASES", {"tiny": tiny(), "other": tiny(agrees=False)})
    (tmp_path / "kernels_cpu.md").write_text("of a run before")
    assert main(["bench", "--repeats", "1", "--out", str(tmp_path)]) == 1
    assert "### tiny" in (tmp_path / "kernels_cpu.unfinished.md").read_text()
    assert (tmp_path / "kernels_cpu.md").read_text() == "of a run before"
    assert "### tiny" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "kernels_cpu.md").mkdir(parents=True)
    for out, message in [
        ("file", "File exists; give a folder"),
        ("file/below", "Not a directory; give a folder"),
        ("taken", "kernels_cpu.md in it is no file"),
    ]:
        assert main(["bench", "nearest", "--out", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err


def test_what_disagrees_is_not_timed(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench, "CASES", {"tiny": tiny(agrees=False)})
    assert main(["bench", "tiny"]) == 1
    told = capsys.readouterr()
    assert "tiny, small: tokenzoo and the plain formula disagree; nothing was timed" in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown operation nothing; known: nearest, "),
        (["fsq", "--device", "cuda"], "--device cuda: no GPU here"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_first_case_of_each_operation_agrees(name: str, monkeypatch) -> None:
    """Without the peer library and the compiler, which are not there everywhere."""
    monkeypatch.setattr(bench_peers, "has_vqp", lambda: False)
    monkeypatch.setattr(bench_peers, "can_compile", lambda: False)
    case = next(iter(CASES[name]("cpu")))
    assert next(iter(case.contenders)) == OURS and len(case.contenders) >= 2
    assert case.agree()


def test_ids_agree_but_for_a_thousandth() -> None:
    ids = torch.arange(2000)
    assert bench_cases.same(ids, torch.cat([ids[:1999], ids[:1]]))
    assert not bench_cases.same(ids, ids.roll(1))


def test_the_module_names_mistakes_too(capsys) -> None:
    for arguments, message in [
        (["nothing"], "unknown operation nothing"),
        (["fsq", "--first", "0"], "--first 0"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            bench.main(arguments)
        assert message in capsys.readouterr().err


def test_the_module_is_a_command() -> None:
    command = [sys.executable, "-m", "tokenzoo.kernels.bench", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "lfq-entropy" in shown and "--repeats" in shown
