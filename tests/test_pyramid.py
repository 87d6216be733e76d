"""The residual pyramid: exact search, prefixes, and a start that already works."""

import copy
import threading

import pytest
import torch

import tokenzoo
from tokenzoo.image.metrics import psnr
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.pyramid import PyramidConfig, PyramidTokenizer
from tokenzoo.image.pyramid_quantizer import PyramidStage, StageQuantizer, spread_order
from tokenzoo.zoo.tokens import Tokens

CONFIG = PyramidConfig(
    image_size=32,
    patch_size=8,
    channels=12,
    stages=(
        PyramidStage(grid=1, steps=2, channels=4, dim=8),
        PyramidStage(grid=2, steps=2, channels=8, dim=8),
        PyramidStage(grid=4, steps=1, channels=12, dim=6, tree=True),
    ),
    codes=16,
    width=16,
    depth=2,
    preprocess=ImagePreprocess(size=32, interpolation="lanczos"),
)
TOKENS = 2 + 8 + 16


def photographs(count: int, seed: int = 0) -> torch.Tensor:
    """(B, 3, 32, 32) in [0, 1], smooth as photographs are."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, 32, mode="bicubic", antialias=False).clamp(0, 1)


@pytest.fixture(scope="module")
def tokenizer() -> PyramidTokenizer:
    torch.manual_seed(0)
    fitted = PyramidTokenizer(CONFIG)
    fitted.initialise(photographs(400))
    # A correction that is not zero, so that the decoder has a say in what follows.
    torch.nn.init.normal_(fitted.decoder.head.weight, std=0.01)
    for block in fitted.decoder.blocks:
        torch.nn.init.normal_(block.down.weight, std=0.05)
    return fitted.eval()


def test_the_start_is_a_codec_that_gains_with_every_stage():
    fitted = PyramidTokenizer(CONFIG)
    fitted.initialise(photographs(400))
    images = photographs(32, seed=1)
    tokens = fitted.encode(images)
    assert tokens.ids.shape == (32, TOKENS)
    scores = [float(psnr(fitted.decode(tokens.keep(n)), images).mean()) for n in (1, 2, 6, 10, 18, 26)]
    assert scores == sorted(scores)
    assert scores[0] > 11 and scores[-1] > scores[0] + 4


def test_bayer_order_by_hand():
    assert spread_order(1) == (0,)
    assert spread_order(2) == (0, 3, 1, 2)
    assert sorted(spread_order(8)) == list(range(64))
    # The first quarter of a finer grid is the coarser one, spread out: one cell in each 2 x 2 block.
    first = [(cell // 8 // 2, cell % 8 // 2) for cell in spread_order(8)[:16]]
    assert len(set(first)) == 16


@pytest.mark.parametrize("tree", [False, True])
def test_search_finds_the_best_pair_when_the_beam_holds_every_first_code(tree):
    stage = StageQuantizer(PyramidStage(grid=1, steps=1, channels=2, dim=3, tree=tree), side=2, codes=4)
    generator = torch.Generator().manual_seed(0)
    for parameter in stage.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    rows = torch.randn(200, 3, generator=generator)
    with torch.no_grad():
        every = stage.vectors(0, torch.arange(16))
        expected = torch.cdist(rows.double(), every.double()).argmin(1)
        assert torch.equal(stage.search(0, rows), expected)


def test_cells_and_back():
    stage = StageQuantizer(PyramidStage(grid=4, steps=1, channels=3, dim=2), side=8, codes=4)
    latents = torch.randn(2, 64, 3)
    cells = stage.cells(latents)
    assert cells.shape == (2, 16, 12)
    assert torch.equal(stage.uncells(cells), latents)
    # The second token is the cell of the Bayer order's second place: (row 2, column 2) of 4.
    corner = latents.view(2, 8, 8, 3)[:, 4:6, 4:6]
    assert torch.equal(cells[:, 1], corner.permute(0, 3, 1, 2).flatten(1))


def test_coverage_counts_the_tokens_that_describe_a_place(tokenizer):
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    latents = tokenizer.quantizer.decode(ids, torch.tensor([2 + 4 + 1]))
    coverage = latents[0, :, CONFIG.channels :].view(4, 4, 3)
    assert torch.equal(coverage[..., 0], torch.ones(4, 4))
    halves = torch.full((4, 4), 0.5)
    halves[:2, :2] = 1.0
    assert torch.equal(coverage[..., 1], halves)
    assert torch.equal(coverage[..., 2], torch.zeros(4, 4))


def test_mixed_lengths_decode_as_singles(tokenizer):
    singles = [
        tokens.keep(n)
        for tokens, n in zip(tokenizer.encode(photographs(4)).unbind(), (1, 7, 20, 26), strict=True)
    ]
    together = tokenizer.decode(Tokens.cat(singles))
    for image, single in zip(together, singles, strict=True):
        assert torch.allclose(image, tokenizer.decode(single)[0], atol=1e-6)


def test_training_forward_equals_decode_and_reaches_every_part(tokenizer):
    images, lengths = photographs(3), torch.tensor([1, 12, 26])
    painted = tokenizer(images, lengths=lengths)
    tokens = tokenizer.encode(images)
    assert torch.equal(painted.quantized.values, tokens.ids)
    cut = Tokens.cat([t.keep(int(n)) for t, n in zip(tokens.unbind(), lengths, strict=True)])
    assert torch.allclose(painted.signal.clamp(0, 1), tokenizer.decode(cut), atol=1e-6)
    assert torch.equal(painted.quantized.latents, tokenizer.quantizer.decode(tokens.ids, lengths))
    gradients = torch.autograd.grad(
        painted.signal.square().mean() + painted.quantized.loss, list(tokenizer.parameters())
    )
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)


def test_latents_pass_without_quantizing(tokenizer):
    images = photographs(2)
    latents = tokenizer.encode_latents(images)
    assert latents.values.shape == (2, 16, CONFIG.channels + 3)
    whole = psnr(tokenizer.decode_latents(latents).detach().clamp(0, 1), images)
    assert (whole > psnr(tokenizer.decode(tokenizer.encode(images)), images)).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image_size": 30}, "image_size=30: expected a multiple of patch_size=8"),
        ({"preprocess": ImagePreprocess(size=64)}, "preprocess makes 64 pixels: expected image_size=32"),
        ({"stages": ()}, "0 stages"),
        ({"stages": (PyramidStage(8, 1, 4, 2),)}, "expected a grid that divides 4"),
        ({"stages": (PyramidStage(4, 1, 4, 9),)}, "a cell has fewer than dim=9 values"),
        ({"codes": 10**6}, r"codes=1000000: expected 1 \.\.\. 4096"),
    ],
)
def test_impossible_configurations_say_why(change, text):
    with pytest.raises(ValueError, match=text):
        PyramidConfig(**{**vars(CONFIG), **change})


def test_no_embedding_table_is_pretended(tokenizer):
    with pytest.raises(NotImplementedError, match="an id means something else in each stage"):
        tokenizer.codebook_embeddings()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_dtype_of_the_weights_encodes_and_decodes(tokenizer, dtype):
    images = photographs(4, seed=3)
    tokens, cast = tokenizer.encode(images), copy.deepcopy(tokenizer).to(dtype)
    if dtype == torch.float64:
        assert cast.encode(images).identical(tokens)
    else:
        assert cast.encode(images).ids.shape == tokens.ids.shape
    decoded = cast.decode(tokens)
    assert decoded.dtype == torch.float32
    assert (decoded - tokenizer.decode(tokens)).abs().max() < 0.05


def test_no_images_are_no_tokens(tokenizer, tmp_path):
    tokens = tokenizer.encode(torch.zeros(0, 3, 32, 32))
    assert tokens.ids.shape == (0, TOKENS)
    tokens.keep(3).save(tmp_path / "none.tok")
    for empty in (tokens, tokens.keep(3), Tokens.load(tmp_path / "none.tok")):
        assert tokenizer.decode(empty).shape == (0, 3, 32, 32)
    some = tokenizer.encode(photographs(2))
    assert Tokens.cat([tokens, some]).identical(some)


def test_two_threads_encode_in_eval_mode_and_the_last_one_restores(tokenizer, monkeypatch):
    second, first_out = threading.Event(), threading.Event()
    modes: list[bool] = []

    def forward(images: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() is threading.main_thread():
            second.wait(5)  # until the other one is inside, too
        else:
            second.set()
            first_out.wait(5)
            modes.append(tokenizer.decoder.training)
        return type(tokenizer.encoder).forward(tokenizer.encoder, images)

    monkeypatch.setattr(tokenizer.encoder, "forward", forward)
    tokenizer.train()
    other = threading.Thread(target=tokenizer.encode, args=(photographs(1),))
    other.start()
    tokenizer.encode(photographs(1))
    first_out.set()
    other.join()
    assert modes == [False]
    assert all(module.training for module in tokenizer.modules())
    tokenizer.eval()


def test_a_tokenizer_trained_in_place_loses_its_fingerprint(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    trained = tokenzoo.load(tmp_path)
    old, images = trained.facts.fingerprint, photographs(2)
    with torch.no_grad():
        trained.train()(images)
    trained.eval()(images)
    assert trained.facts.fingerprint == old
    trained.train()(images).signal.sum().backward()
    assert trained.facts.fingerprint is None and trained.encode(images).facts.fingerprint is None
    torch.optim.SGD(trained.parameters(), lr=0.1).step()
    trained.save_pretrained(tmp_path)
    assert tokenzoo.load(tmp_path).facts.fingerprint not in (None, old)
