"""A training that was stopped and goes on, and what it refuses."""

from pathlib import Path

import pytest

from tokenzoo.text import train_bpe, train_lz, train_parity, train_scaffold, train_superbpe
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.merge_run import MergeRun
from tokenzoo.text.pair_merges import PairMerges

from .real_text import english, parallel

CORPUS = Corpus.of_texts(english()[:12])
LANGUAGES = Corpus.of_texts({name: parallel()[name][:60] for name in ("de", "el", "en", "ja")})
TRAINERS = {
    "bpe": lambda folder: train_bpe.train(CORPUS, 400, folder=folder, progress=False),
    "superbpe": lambda folder: train_superbpe.train(
        CORPUS, 400, transition=340, folder=folder, progress=False
    ),
    "scaffold": lambda folder: train_scaffold.train(CORPUS, 400, folder=folder, progress=False),
    "lz": lambda folder: train_lz.train(CORPUS, 330, sample_bytes=2000, folder=folder, progress=False),
    "parity": lambda folder: train_parity.train(
        LANGUAGES, 400, window=train_parity.Window(20, 1.5), warm_up=20, folder=folder, progress=False
    ),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_stopped_training_goes_on_to_the_same_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TRAINERS[name](None)
    calls = []
    real = PairMerges.best

    def best(self: PairMerges):
        calls.append(0)
        if len(calls) == 100:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(PairMerges, "best", best)
    with pytest.raises(KeyboardInterrupt):
        TRAINERS[name](tmp_path)
    taken = (tmp_path / "merges.log").read_text().count("\n") - 1
    assert taken >= 20
    with (tmp_path / "merges.log").open("a") as log:
        log.write("97 1")  # a line that was cut off
    first = len(calls)
    assert TRAINERS[name](tmp_path) == whole
    again = len(calls) - first
    calls.clear()
    calls.extend([0] * 200)
    assert TRAINERS[name](None) == whole
    assert again < len(calls) - 200, "steps that were taken are not looked for again"


def test_training_is_deterministic_whatever_the_order_of_texts() -> None:
    forwards = train_bpe.train(CORPUS, 400, progress=False)
    assert train_bpe.train(Corpus.of_texts(english()[:12][::-1]), 400, progress=False) == forwards


def test_a_log_of_another_training(tmp_path: Path) -> None:
    train_bpe.train(CORPUS, 300, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="is the log of another training: its corpus or settings differ"):
        train_bpe.train(CORPUS, 300, min_frequency=3, folder=tmp_path, progress=False)
    longer = train_bpe.train(CORPUS, 320, folder=tmp_path, progress=False)
    assert longer == train_bpe.train(CORPUS, 320, progress=False), (
        "a larger vocabulary goes on from a smaller"
    )
    log = tmp_path / "merges.log"
    log.write_text(log.read_text().splitlines()[0] + "\na b c\n")
    with pytest.raises(ValueError, match="is no log of a training"):
        train_bpe.train(CORPUS, 320, folder=tmp_path, progress=False)


def test_a_vocabulary_smaller_than_the_alphabet() -> None:
    with pytest.raises(
        ValueError, match=r"vocab_size=257: expected at least 258, the 256 bytes and 2 specials"
    ):
        MergeRun(257, identity=[], specials=["<a>", "<b>"])
    assert len(train_bpe.train(CORPUS, 256, progress=False)) == 256


def test_a_corpus_that_gives_fewer_pieces_says_so(caplog: pytest.LogCaptureFixture) -> None:
    vocab = train_bpe.train(Corpus.of_texts(["aa aa aa"]), 1000, specials=["<s>"], progress=False)
    assert vocab.pieces[256:] == (b"aa", b" aa", b"<s>") and vocab.specials == {"<s>": 258}
    assert "the corpus gives 258 pieces, not 999: no pair is frequent enough" in caplog.text


def test_the_bar_counts_merges_and_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    train_bpe.train(CORPUS, 300, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "merging" in err and "44.0/44.0" in err and "reading" in err
