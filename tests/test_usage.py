"""Diagnostics of codebooks: counts against a plain tally, levels, dropped stages, batches, the command."""

import json
import math

import pytest
import torch

import tokenzoo
from tokenzoo.zoo.cli import main
from tokenzoo.zoo.usage import CodebookCount, UsageCount, codebook_usage


def test_a_small_codebook_by_hand() -> None:
    (level,) = codebook_usage(torch.tensor([[0, 0, 0, 1], [1, 3, 3, 0]]), [5])
    assert (level.size, level.count, level.used, level.unused) == (5, 8, 3, 2)
    entropy = -(0.5 * math.log(0.5) + 0.25 * math.log(0.25) * 2)
    assert level.perplexity == pytest.approx(math.exp(entropy))
    assert level.entropy_bits == pytest.approx(1.5)
    assert level.most_frequent == 0.5
    assert level.expected == pytest.approx(5 * (1 - 0.8**8))


def test_uniform_and_collapsed_codebooks() -> None:
    even = codebook_usage(torch.arange(1024).repeat(3), [1024])[0]
    assert even.used == 1024 and even.perplexity == pytest.approx(1024)
    collapsed = codebook_usage(torch.full((500,), 7), [1024])[0]
    assert collapsed.used == 1 and collapsed.perplexity == 1 and collapsed.entropy_bits == 0
    assert collapsed.expected == pytest.approx(1024 * (1 - (1023 / 1024) ** 500))
    nothing = codebook_usage(torch.zeros(0, dtype=torch.int64), [1024])[0]
    assert (nothing.count, nothing.used, nothing.perplexity, nothing.expected) == (0, 0, 0, 0)
    assert codebook_usage(torch.zeros(3, dtype=torch.int64), [1])[0].expected == 1


def test_levels_batches_and_dropped_stages() -> None:
    ids = torch.randint(0, 16, (4, 50, 3), generator=torch.Generator().manual_seed(0))
    ids[0, :, 2] = -1
    levels = codebook_usage(ids, [16, 16, 16])
    assert [level.count for level in levels] == [200, 200, 150]
    for number, level in enumerate(levels):
        kept = ids[..., number][ids[..., number] >= 0]
        shares = torch.bincount(kept, minlength=16) / len(kept)
        assert level.perplexity == pytest.approx(torch.special.entr(shares.double()).sum().exp().item())
    count = CodebookCount([16, 16, 16])
    for batch in ids:
        count.add(batch)
    for batched, whole in zip(count.summary(), levels, strict=True):
        assert vars(batched) == pytest.approx(vars(whole))
    first = CodebookCount([16, 16, 16])
    first.add(ids[..., :1])
    assert [level.count for level in first.summary()] == [200, 0, 0]


def test_huge_codebooks_cost_what_was_seen() -> None:
    (level,) = codebook_usage(torch.tensor([2**61, 3, 3]), [2**62])
    assert level.used == 2 and level.expected == pytest.approx(3)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(3, 2), "a continuous tokenizer has no codes"),
        (torch.zeros(3, 4, dtype=torch.int64), r"\(3, 4\): expected \(..., 3\)"),
        (torch.full((2, 3), 9), r"ids 9 \.\.\. 9: expected 0 \.\.\. 7"),
        (torch.full((2, 3), -2), r"ids -2 \.\.\. -2"),
    ],
)
def test_misfits_are_refused_and_leave_the_count_alone(ids: torch.Tensor, message: str) -> None:
    count = CodebookCount([8, 8, 8])
    with pytest.raises(ValueError, match=message):
        count.add(ids)
    assert all(level.count == 0 for level in count.summary())


def test_training_counts() -> None:
    count = UsageCount()
    assert count.take() is None
    count.add(torch.tensor([[1, 1, 0, 0], [4, 0, 0, 0]]))
    count.add(torch.tensor([[0, 0, 1, 1], [4, 0, 0, 0]]))
    usage = count.take()
    assert usage is not None and count.take() is None
    assert usage.share.item() == pytest.approx((1 + 0.25) / 2)
    assert usage.perplexity.item() == pytest.approx((4 + 1) / 2)


def test_the_command_counts_files_together(tmp_path, capsys) -> None:
    tok = tokenzoo.load("bytes")
    for name, text in {"a": "aab", "b": "bbb"}.items():
        tok.encode([text]).save(tmp_path / f"{name}.tok")
    assert main(["usage", str(tmp_path), "--json"]) == 0
    (level,) = json.loads(capsys.readouterr().out)
    assert (level["size"], level["count"], level["used"], level["unused"]) == (256, 6, 2, 254)
    assert main(["usage", str(tmp_path)]) == 0
    assert "perplexity" in capsys.readouterr().out
    (tmp_path / "broken.tok").write_bytes(b"no tokens")
    assert main(["usage", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "broken.tok" in told.err and "256" in told.out
    assert main(["usage", str(tmp_path / "nothing")]) == 1
