"""Trainers that are stopped half way go on, and make what they would have made."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenzoo.text import (
    compounds,
    task_vocab,
    train_bpe,
    train_less_is_better,
    train_library,
    train_myte,
    train_pathpiece,
    train_root_affix,
)
from tokenzoo.text.corpus import Corpus

from .real_text import english, parallel


class Stopped(Exception):
    pass


def stop_at(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which raises instead of its n-th call."""
    left = [calls]

    def stopping(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Stopped
        return function(*args, **options)

    return stopping


def counted(function: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def counting(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        return function(*args, **options)

    return counting


def corpus(*languages: str) -> Corpus:
    return Corpus.of_texts({language: parallel()[language][:40] for language in languages})


def test_pathpiece_goes_on_between_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(folder: Path | None) -> Any:
        return train_pathpiece.train(
            Corpus.of_texts(english()[:6]), 400, start_size=1200, folder=folder, progress=False
        )

    whole = train(None)
    remove = train_pathpiece._Pruning.remove
    with monkeypatch.context() as patch:
        patch.setattr(train_pathpiece._Pruning, "remove", stop_at(4, remove))
        with pytest.raises(Stopped):
            train(tmp_path)
    lines = (tmp_path / "rounds.log").read_text().splitlines()
    assert len(lines) == 4  # who it is, and three rounds
    # A line that was cut off is no round.
    (tmp_path / "rounds.log").write_text("\n".join([*lines, lines[-1][:5]]))
    calls = [0]
    monkeypatch.setattr(train_pathpiece._Pruning, "remove", counted(remove, calls))
    assert train(tmp_path) == whole
    rounds = len((tmp_path / "rounds.log").read_text().splitlines()) - 1
    assert calls[0] == rounds - 3 > 0
    calls[0] = 0
    assert train(tmp_path) == whole and calls[0] == 0
    with pytest.raises(ValueError, match=r"rounds\.log is the log of another training"):
        train_pathpiece.train(
            Corpus.of_texts(english()[:6]), 390, start_size=1200, folder=tmp_path, progress=False
        )


def test_less_is_better_goes_on_between_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(folder: Path | None) -> Any:
        return train_less_is_better.train(
            corpus("en"), 500, batch_bytes=300, passes=3, folder=folder, progress=False
        )

    whole = train(None)
    monkeypatch.setattr(train_less_is_better, "_SAVE_SECONDS", -1.0)
    settle = train_less_is_better._Reader.settle
    for stop in (3, 8):  # again, once it has gone on
        with monkeypatch.context() as patch:
            patch.setattr(train_less_is_better._Reader, "settle", stop_at(stop, settle))
            with pytest.raises(Stopped):
                train(tmp_path)
    calls = [0]
    monkeypatch.setattr(train_less_is_better._Reader, "settle", counted(settle, calls))
    assert train(tmp_path) == whole
    batches = calls[0] + 2 + 7
    calls[0] = 0
    assert train(None) == whole and calls[0] == batches
    calls[0] = 0
    assert train(tmp_path) == whole and calls[0] == 0
    with pytest.raises(ValueError, match=r"lexicon\.state is of another training"):
        train_less_is_better.train(corpus("en"), 500, folder=tmp_path, progress=False)
    (tmp_path / "lexicon.state").write_text("{}")
    with pytest.raises(ValueError, match="holds no lexicon that can be gone on from"):
        train(tmp_path)


def test_myte_goes_on_within_a_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(folder: Path | None) -> Any:
        return train_myte.train(corpus("en", "de", "el"), 300, folder=folder, progress=False).codes

    whole = train(None)
    join = train_bpe.MergeRun.join
    with monkeypatch.context() as patch:
        patch.setattr(train_bpe.MergeRun, "join", stop_at(450, join))
        with pytest.raises(Stopped):
            train(tmp_path)
    assert len((tmp_path / "language-1" / "merges.log").read_text().splitlines()) >= 100
    assert not (tmp_path / "language-2").exists()
    best = train_bpe.PairMerges.best
    calls = [0]
    monkeypatch.setattr(train_bpe.PairMerges, "best", counted(best, calls))
    assert train(tmp_path) == whole and list(train(tmp_path).items()) == list(whole.items())
    assert 300 <= calls[0] < 500  # of 900


def test_root_affix_goes_on_between_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(folder: Path | None) -> Any:
        return train_root_affix.train(corpus("tr"), 900, folder=folder, progress=False)

    whole = train(None)
    join = train_root_affix.MergeRun.join
    with monkeypatch.context() as patch:
        patch.setattr(train_root_affix.MergeRun, "join", stop_at(60, join))
        with pytest.raises(Stopped):
            train(tmp_path)
    assert len((tmp_path / "merges.log").read_text().splitlines()) == 61
    assert train(tmp_path) == whole


TASKS: dict[str, Callable[[Path], Any]] = {
    "compound": lambda folder: compounds.train(corpus("de"), 400, folder=folder, progress=False),
    "task-adaptive": lambda folder: task_vocab.train(
        corpus("de"), 420, base=base(), folder=folder, progress=False
    ),
}


def base() -> Any:
    alphabet = train_bpe.train(corpus("en"), 300, progress=False)
    scores = tuple(-1.0 - number / 1000 for number in range(len(alphabet)))
    return type(alphabet)(alphabet.pieces, scores=scores)


@pytest.mark.parametrize("name", TASKS)
def test_what_the_library_made_is_kept(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library itself cannot go on; what comes before and after it need not be done again."""
    train = TASKS[name]
    after = {"compound": (compounds, "frequent_parts"), "task-adaptive": (task_vocab, "merge")}[name]
    if name == "task-adaptive":
        with monkeypatch.context() as patch:
            patch.setattr(*after, stop_at(1, task_vocab.merge))
            with pytest.raises(Stopped):
                train(tmp_path)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(train_library, "_trained", stop_at(1, train_library._trained))
            with pytest.raises(Stopped):
                train(tmp_path)
        assert (tmp_path / "words.npz").exists()
    calls = [0]
    monkeypatch.setattr(train_library, "_trained", counted(train_library._trained, calls))
    made = train(tmp_path)
    assert calls[0] == (name == "compound")
    assert train(tmp_path) == made and calls[0] == (name == "compound")


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    """No handler, no last words."""
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from tokenzoo.text import train_less_is_better, train_pathpiece
        from tokenzoo.text.corpus import Corpus
        train_less_is_better._SAVE_SECONDS = -1.0
        corpus, folder = Corpus.of_files(sys.argv[1]), Path(sys.argv[2])
        at, owner, name = int(sys.argv[3]), *{
            "path": (train_pathpiece._Pruning, "remove"), "lib": (train_less_is_better._Reader, "settle")
        }[sys.argv[4]]
        whole, left = getattr(owner, name), [at]
        def killed(*args):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*args)
        setattr(owner, name, killed)
        if sys.argv[4] == "path":
            vocab = train_pathpiece.train(corpus, 400, start_size=900, folder=folder, progress=False)
        else:
            vocab = train_less_is_better.train(corpus, 400, batch_bytes=2000, folder=folder, progress=False)
        print([piece.hex() for piece in vocab.pieces])
        """
    )
    (tmp_path / "text.txt").write_text("\n".join(parallel()["en"][:40]), encoding="utf-8")

    def run(folder: str, at: int, kind: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-c",
            code,
            str(tmp_path / "text.txt"),
            str(tmp_path / folder),
            str(at),
            kind,
        ]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    for kind in ("path", "lib"):
        assert run(kind, 3, kind).returncode == -signal.SIGKILL
        went_on, whole = run(kind, 0, kind), run(f"{kind}-whole", 0, kind)
        assert went_on.returncode == 0 and went_on.stdout == whole.stdout, went_on.stderr
