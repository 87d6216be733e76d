"""The tokenizer that ships: small enough, better with every token, as good as its card says."""

from pathlib import Path

import pytest
import torch

import tokenzoo
from tokenzoo.image.metrics import psnr
from tokenzoo.image.preprocess import ImagePreprocess, read_image

PACKAGE = Path(tokenzoo.__file__).parent
SAMPLES = sorted((PACKAGE / "image" / "samples").glob("*.jpg"))
FOLDER = PACKAGE / "checkpoints" / "bundled" / "pyramid-128"


@pytest.fixture(scope="module")
def tokenizer() -> tokenzoo.Tokenizer:
    return tokenzoo.load("pyramid-128")


@pytest.fixture(scope="module")
def photographs(tokenizer: tokenzoo.Tokenizer) -> torch.Tensor:
    return torch.stack([tokenizer.preprocess(path) for path in SAMPLES])


def test_it_weighs_little_and_says_what_it_is(tokenizer: tokenzoo.Tokenizer) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12e6
    assert tokenizer.facts.max_tokens is not None and tokenizer.facts.max_tokens <= 384
    assert tokenizer.facts.bits_per_token == 16
    card = (FOLDER / "README.md").read_text()
    assert str(tokenizer.facts.fingerprint) in card
    assert all(word in card for word in ("pyramid_128.yaml", "## Data", "## Licence", "GPL-2+"))
    assert "tabler" not in (FOLDER / "provenance.json").read_text()


def test_the_samples_are_as_good_as_measured_and_better_with_every_doubling(
    tokenizer: tokenzoo.Tokenizer, photographs: torch.Tensor
) -> None:
    tokens = tokenizer.encode(photographs)
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 376]
    means = [float(psnr(tokenizer.decode(tokens.keep(n)), photographs).mean()) for n in counts]
    assert means == sorted(means)
    measured = dict(zip(counts, means, strict=True))
    assert [measured[n] for n in (8, 32, 128, 376)] == pytest.approx([16.74, 19.35, 22.77, 25.74], abs=0.03)


@pytest.mark.parametrize(("side", "tokens"), [(4, 16), (8, 64), (11, 121), (16, 256)])
def test_a_thumbnail_of_as_many_pixels_is_worse(
    tokenizer: tokenzoo.Tokenizer, photographs: torch.Tensor, side: int, tokens: int
) -> None:
    from PIL import Image

    def there_and_back(path: Path) -> torch.Tensor:
        original = ImagePreprocess(size=128, interpolation="lanczos")(read_image(path))
        picture = Image.fromarray((original * 255).round().byte().permute(1, 2, 0).numpy())
        small = picture.resize((side, side), Image.Resampling.LANCZOS)
        return tokenizer.preprocess(small.resize((128, 128), Image.Resampling.BICUBIC))

    thumbnails = torch.stack([there_and_back(path) for path in SAMPLES])
    ours = tokenizer.decode(tokenizer.encode(photographs).keep(tokens))
    assert (psnr(ours, photographs) > psnr(thumbnails, photographs) + 0.5).all()
