"""K-means starts and revivals: which codes move, where to, when, and the same on all ranks."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from tokenzoo.kernels.vq import nearest_code
from tokenzoo.zoo.codebook_care import KMeansStart, Revival, StartingRows, revive
from tokenzoo.zoo.codebook_quantizer import CodebookQuantizer
from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .two_ranks import ema, results, rows, state


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def among(codes: Tensor, rows: Tensor) -> Tensor:
    """Which codes are one of the rows, bit for bit."""
    return (codes[:, None] == rows).all(dim=2).any(dim=1)


class TestRevive:
    @settings(deadline=None, max_examples=40)
    @given(codes=st.integers(1, 9), batch=st.integers(0, 12), seed=st.integers(0, 999))
    def test_as_many_dead_codes_move_as_there_are_rows(self, codes: int, batch: int, seed: int) -> None:
        """No code that lives, the deadest first, each to a row of its own that is valid."""
        counts = torch.rand(codes, generator=seeded(seed)) ** 4
        data = torch.randn(batch, 3, generator=seeded(seed))
        valid = torch.rand(batch, generator=seeded(seed)) < 0.7
        found = revive(counts, data, valid, 0.5, generator=seeded(seed))
        dead = counts < 0.5 * counts.mean()
        assert not (found.marked & ~dead).any()
        assert int(found.marked.sum()) == min(int(dead.sum()), int(valid.sum()))
        if found.marked.any():
            assert counts[found.marked].max() <= min(counts[dead & ~found.marked].tolist(), default=1)
            assert among(found.codes[found.marked], data[valid]).all()
            assert len(found.codes[found.marked].unique(dim=0)) == int(found.marked.sum())

    def test_dead_codes_move_to_different_rows(self) -> None:
        counts = torch.tensor([4.0, 0.01, 3.0, 0.0, 0.29, 4.7])
        data = rows(0)
        found = revive(counts, data, None, 0.1, generator=seeded())
        assert found.marked.tolist() == [False, True, False, True, False, False], "the mean is 2"
        assert among(found.codes, data).all() and len(found.codes.unique(dim=0)) == 6

    def test_with_few_rows_the_deadest_codes_come_first(self) -> None:
        counts = torch.tensor([9.0, 0.03, 0.01, 0.02, 9.0])
        found = revive(counts, rows(0)[:2], None, 0.1, generator=seeded())
        assert found.marked.tolist() == [False, False, True, True, False]
        assert not revive(counts, rows(0)[:0], None, 0.1, generator=seeded()).marked.any()

    def test_invalid_and_broken_rows_are_not_taken(self) -> None:
        data = rows(0)
        data[3] = torch.nan
        valid = torch.arange(24) < 5
        for seed in range(5):
            found = revive(torch.tensor([0.0] * 7 + [9.0]), data, valid, 0.1, generator=seeded(seed))
            assert int(found.marked.sum()) == 4, "four rows are valid and whole"
            assert among(found.codes[found.marked], data[:5]).all()

    def test_an_unused_codebook_has_no_dead_codes(self) -> None:
        assert not revive(torch.zeros(5), rows(0), None, 0.1, generator=seeded()).marked.any()

    def test_draws_are_repeatable(self) -> None:
        counts = torch.tensor([0.0, 0.0, 5.0])
        first, again = (revive(counts, rows(0), None, 0.1, generator=seeded(3)).codes for _ in range(2))
        assert torch.equal(first, again)


class TestRevivalInTraining:
    def test_small_batches_of_large_codebooks_keep_most_codes(self) -> None:
        """Every code has work to do, a quarter of a latent a step.

        vector-quantize-pytorch 1.32 calls a code dead below 2 hits a step, as EnCodec does: with these data,
        decay 0.8 and threshold_ema_dead_code=2, 61 % of its codes have been replaced after three steps, 96 %
        after ten.
        """
        torch.manual_seed(0)
        data = torch.randn(1024, 8)
        quantizer = EMAVectorQuantizer(1024, 8, decay=0.8, revival=Revival(every=1))
        quantizer.codebook.copy_(data)
        quantizer.sums.copy_(data)
        replaced = []
        for step in range(20):
            before = quantizer.codebook.clone()
            batch = data[torch.randint(1024, (256,), generator=seeded(step))]
            quantizer(batch + 0.01 * torch.randn(256, 8, generator=seeded(step)))
            replaced.append(int(((quantizer.codebook - before).norm(dim=1) > 0.5).sum()))
        assert sum(replaced[:10]) == 0, "three hits missed in a row are no death"
        assert max(replaced) < 0.05 * 1024, replaced

    @pytest.mark.parametrize("learned", [False, True])
    def test_codes_that_nobody_uses_come_back_into_use(self, learned: bool) -> None:
        torch.manual_seed(0)
        revival = Revival(every=2)
        quantizer = (
            VectorQuantizer(32, 4, revival=revival) if learned else EMAVectorQuantizer(32, 4, revival=revival)
        )
        with torch.no_grad():
            quantizer.codebook[1:] = 1e3  # all latents meet in code 0
            if isinstance(quantizer, EMAVectorQuantizer):
                quantizer.sums.copy_(quantizer.codebook)
        for step in range(150):
            quantized = quantizer(torch.randn(256, 4, generator=seeded(step)), generator=seeded(step))
        assert quantized.usage is not None and int((quantized.usage > 0).sum()) >= 30

    def test_a_revived_ema_code_stays_where_it_was_put(self) -> None:
        """Sums and counts move with it. If the codebook alone did (espnet #6284), the next average would put
        the code back."""
        quantizer = ema(revival=Revival(every=1))
        with torch.no_grad():
            quantizer.counts[2] = 1e-3
            quantizer.codebook[2] = quantizer.sums[2] = 1e3
        data = rows(0)
        quantizer(data)
        assert torch.cdist(quantizer.codebook[2:3], data).min() < 0.5
        assert quantizer.counts[2] > 0.5

    def test_the_cadence(self) -> None:
        quantizer = VectorQuantizer(8, 4, revival=Revival(every=3))
        for step in range(1, 7):
            with torch.no_grad():
                quantizer.codebook[5] = 1e3
                quantizer.counts[5] = 0
            before = quantizer.codebook.detach().clone()
            quantizer(rows(step))
            moved = (quantizer.codebook != before).any(dim=1)
            assert moved.tolist() == [code == 5 and step % 3 == 0 for code in range(8)]

    def test_a_training_forward_of_learned_codes_is_their_decode(self) -> None:
        """Codes move before they are searched."""
        quantizer = VectorQuantizer(8, 4, start=KMeansStart(), revival=Revival(every=1))
        for step in range(3):
            quantized = quantizer(rows(step))
            assert torch.equal(quantized.latents, quantizer.decode(quantized.values))

    def test_two_ranks_share_rows_and_agree(self) -> None:
        first, second = results()["revival"]
        assert all(torch.equal(first[name], second[name]) for name in first)
        moved = (first["codebook"] - first["before"]).abs().amax(dim=1) > 0.01
        assert moved.tolist() == [True] * 4 + [False] * 4
        data = rows(0)
        nearest = torch.cdist(first["codebook"][:4], data).min(dim=1)
        assert nearest.values.max() < 1e-3
        assert (nearest.indices < 15).any() and (nearest.indices >= 15).any(), "both ranks gave rows"


class TestKMeansStart:
    def test_clusters_over_several_batches(self) -> None:
        """Each batch shows half of the clusters; after the second the codebook has them all."""
        centres = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, 0.0], [0.0, -9.0]])
        torch.manual_seed(0)
        quantizer = VectorQuantizer(4, 2, start=KMeansStart(batches=2, rounds=20))
        for half in (centres[:2], centres[2:]):
            assert not quantizer.started
            quantizer(half.repeat(50, 1) + 0.1 * torch.randn(100, 2), generator=seeded(2))
        assert quantizer.started
        assert torch.cdist(centres, quantizer.codebook).min(dim=1).values.max() < 0.1
        after = quantizer.codebook.detach().clone()
        quantizer(torch.randn(100, 2))
        assert torch.equal(quantizer.codebook, after)

    def test_a_checkpoint_that_has_started_is_not_started_again(self) -> None:
        quantizer, other = (VectorQuantizer(8, 4, start=KMeansStart()) for _ in range(2))
        quantizer(rows(0))
        other.load_state_dict(quantizer.state_dict())
        other(rows(1))
        assert torch.equal(other.codebook, quantizer.codebook)

    @pytest.mark.parametrize(
        "copied",
        [lambda it: it, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))],
        ids=["itself", "deepcopied", "pickled"],
    )
    @pytest.mark.parametrize("assign", [False, True])
    @pytest.mark.parametrize("begun", [1, 2])
    @pytest.mark.parametrize("make", [VectorQuantizer, EMAVectorQuantizer])
    def test_a_loaded_state_decides_anew_whether_to_start(
        self,
        make: type[VectorQuantizer | EMAVectorQuantizer],
        begun: int,
        assign: bool,
        copied: Callable[[CodebookQuantizer], CodebookQuantizer],
    ) -> None:
        """Loaded in the middle of a start of two batches or after it, in a part of a model, in a copy."""

        def trained(batches: int) -> CodebookQuantizer:
            quantizer = make(4, 4, start=KMeansStart(batches=2))
            for seed in range(batches):
                quantizer(rows(seed), generator=seeded(seed))
            return quantizer

        def loaded(source: CodebookQuantizer) -> CodebookQuantizer:
            target = copied(trained(begun))
            nn.Sequential(target).load_state_dict(nn.Sequential(source).state_dict(), assign=assign)
            return target

        finished = loaded(trained(2))
        before = finished.codebook.detach().clone()
        finished.encode(rows(2))
        quantized = finished(rows(2), generator=seeded(2))
        assert torch.equal(quantized.values, nearest_code(rows(2), before)), "no code moved before the search"

        fresh = loaded(trained(0))
        for seed in range(2):
            assert not fresh.started
            fresh(rows(seed), generator=seeded(seed))
        assert fresh.started and torch.equal(fresh.codebook, trained(2).codebook)

    def test_codes_of_length_one_for_a_search_by_direction(self) -> None:
        quantizer = VectorQuantizer(8, 4, l2=True, normalise_lookup=True, start=KMeansStart())
        quantizer(rows(0) * torch.rand(24, 1))
        torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(8))

    def test_padding_starts_no_code(self) -> None:
        quantizer = VectorQuantizer(4, 4, start=KMeansStart())
        data = torch.cat([rows(0), torch.full((8, 4), 1e4)])
        quantizer(data, valid=data[:, 0] < 1e3)
        assert quantizer.codebook.abs().max() < 10

    def test_rows_are_limited_and_fewer_rows_than_codes_will_do(self) -> None:
        starting = StartingRows(KMeansStart(batches=2, rows_per_code=3), 4)
        for _ in range(2):
            codes = starting.fit(rows(0), spherical=False, generator=seeded())
            assert codes is not None and codes.shape == (4, 4)
        assert [len(batch) for batch in starting.batches] == [6, 6] and starting.is_complete
        few = StartingRows(KMeansStart(), 40).fit(rows(0), spherical=False, generator=seeded())
        assert few is not None and few.shape == (40, 4) and among(rows(0), few).all()
        assert StartingRows(KMeansStart(), 4).fit(rows(0)[:0], spherical=False, generator=seeded()) is None

    def test_two_ranks_start_as_one_process(self) -> None:
        whole = ema(start=KMeansStart(batches=2))
        for seed in range(2):
            whole(rows(seed), generator=seeded(7))
        first, second = results()["start"]
        for name, tensor in state(whole).items():
            torch.testing.assert_close(first[name], tensor)
            assert torch.equal(first[name], second[name])

    def test_ranks_with_different_chance_have_the_same_codes(self) -> None:
        first, second = results()["learned_start"]
        assert set(first) == {"codebook", "counts", "started"}
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"every": 0}])
def test_wrong_revivals_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        Revival(**wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["batches", "rounds", "rows_per_code"])
def test_wrong_starts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        KMeansStart(**{name: 0})
