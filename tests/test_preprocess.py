"""Pictures of every kind become one float tensor, sized as the official models size it."""

import io
import pickle
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenzoo.image import preprocess
from tokenzoo.image.preprocess import ImagePreprocess, ImageReadError, read_image, to_image

AS_IS = ImagePreprocess(size=None)
# Degrees of clockwise rotation and whether the picture is mirrored, as EXIF stores it.
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return levels[..., 0] if channels == 1 else levels


def planes(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("orientation", [1, *TURNED])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    # Blocks of 16 pixels of flat colour survive JPEG.
    upright = Image.fromarray(np.kron(noise(2, 3), np.ones((16, 16, 1), np.uint8)))
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = upright
    if orientation in TURNED:
        stored = upright.transpose(inverse.get(orientation, TURNED[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{kind.lower()}"
    stored.save(path, kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    for picture in (path, Image.open(path)):
        signal = AS_IS(picture)
        assert signal.shape == (3, 32, 48)
        assert (signal - planes(upright)).abs().max() < (0.02 if kind == "JPEG" else 1e-7)


def test_transparency_shows_the_background() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (200, 100, 0, 255)
    rgba[1, 1] = (0, 0, 0, 128)
    signal = AS_IS(Image.fromarray(rgba))
    assert signal[:, 0, 0].tolist() == pytest.approx([200 / 255, 100 / 255, 0])
    assert signal[:, 0, 1].tolist() == [1, 1, 1]
    assert signal[:, 1, 1].tolist() == pytest.approx([127 / 255] * 3)
    red = ImagePreprocess(size=None, background=(255, 0, 0))
    assert red(Image.fromarray(rgba))[:, 0, 1].tolist() == [1, 0, 0]
    floats = AS_IS(torch.from_numpy(rgba).permute(2, 0, 1) / 255)
    assert torch.allclose(floats, signal, atol=1 / 255)
    assert torch.equal(AS_IS(rgba), signal)


def test_grey_with_alpha_and_palette_with_transparency(tmp_path: Path) -> None:
    grey = Image.merge("LA", [Image.new("L", (2, 1), 51), Image.fromarray(np.array([[255, 0]], np.uint8))])
    assert AS_IS(grey)[:, 0].flatten().tolist() == pytest.approx([0.2, 1] * 3)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert AS_IS(palette)[:, 0].T.tolist() == [[1, 0, 0], [0, 1, 0]]
    path = tmp_path / "p.png"
    palette.save(path, transparency=1)
    assert AS_IS(path)[:, 0].T.tolist() == [[1, 0, 0], [1, 1, 1]]
    animation = tmp_path / "p.gif"
    palette.save(animation, save_all=True, append_images=[Image.new("P", (2, 1))])
    assert AS_IS(animation)[:, 0].T.tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "PA"])
def test_other_modes_are_converted_as_pillow_does(mode: str) -> None:
    source = Image.fromarray(noise(5, 7))
    image = source.convert("RGBA").convert(mode) if mode == "RGBa" else source.convert(mode)
    assert torch.equal(AS_IS(image), planes(image.convert("RGBA").convert("RGB")))


def test_sixteen_bits_do_not_pass_through_eight(tmp_path: Path) -> None:
    levels = np.array([[0, 1, 257], [40000, 65534, 65535]], np.uint16)
    expected = torch.from_numpy(levels.astype(np.float32) / 65535)
    path = tmp_path / "deep.png"
    Image.fromarray(levels).save(path)
    tiff = tmp_path / "deep.tiff"
    Image.fromarray(levels).save(tiff)
    tensor = torch.from_numpy(levels.astype(np.int32)).to(torch.uint16)
    wide = Image.fromarray(levels.astype(np.int32))
    for picture in (path, tiff, levels, levels[..., None], tensor, Image.fromarray(levels), wide):
        signal = AS_IS(picture)
        assert signal.dtype == torch.float32
        assert torch.equal(signal, expected.expand(3, 2, 3))
    with pytest.raises(ValueError, match=r"picture holds 0 \.\.\. 65536: expected 16-bit values"):
        AS_IS(Image.fromarray(np.array([[0, 65536]], np.int32)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_and_tensors_of_bytes(channels: int) -> None:
    array = noise(6, 5, channels)
    expected = AS_IS(Image.fromarray(array))
    tensor = torch.from_numpy(array.reshape(6, 5, channels)).permute(2, 0, 1)
    read_only = array.copy()
    read_only.flags.writeable = False
    for picture in (array, array.reshape(6, 5, channels), tensor, read_only, array[:, ::-1][:, ::-1]):
        assert torch.equal(AS_IS(picture), expected)
    assert expected.shape == (3, 6, 5) and expected.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_the_right_size_pass_unchanged(dtype: torch.dtype) -> None:
    signal = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(ImagePreprocess(size=8)(signal), signal.float())
    assert torch.equal(AS_IS(signal[:1]), signal[:1].float().expand(3, 8, 8))
    assert torch.equal(AS_IS(signal[0]), signal[:1].float().expand(3, 8, 8))
    if dtype != torch.bfloat16:
        assert torch.equal(AS_IS(signal.permute(1, 2, 0).numpy()), signal.float())


def test_floats_are_resized_as_bytes_are() -> None:
    smooth = np.linspace(0, 255, 70 * 90).reshape(70, 90, 1).repeat(3, axis=2).astype(np.uint8)
    eight = ImagePreprocess(size=32)
    assert (eight(smooth) - eight(smooth / np.float32(255))).abs().max() <= 1.01 / 255
    overshoot = np.zeros((9, 9), np.float32)
    overshoot[4] = 1
    signal = ImagePreprocess(size=18)(overshoot)
    assert signal.min() == 0 and signal.max() <= 1


SIZES = [(256, 256), (300, 301), (301, 300), (257, 511), (37, 53), (640, 427), (97, 1000), (17, 16), (64, 63)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_parity_with_torchvision(width: int, height: int, interpolation: str) -> None:
    from torchvision import transforms

    mode = transforms.InterpolationMode(interpolation)
    image = Image.fromarray(noise(height, width))
    for size in (64, 63):
        official = transforms.Compose(
            [
                transforms.Resize(size, interpolation=mode, antialias=True),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
            ]
        )
        ours = ImagePreprocess(size=size, interpolation=interpolation)  # pyright: ignore[reportArgumentType]
        assert torch.equal(ours(image), official(image))
    squash = transforms.Compose([transforms.Resize((48, 48), interpolation=mode), transforms.ToTensor()])
    ours = ImagePreprocess(size=48, resize="squash", interpolation=interpolation)  # pyright: ignore
    assert torch.equal(ours(image), squash(image))


def test_shorter_edge_cuts_the_centre_and_squash_does_not() -> None:
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = 255
    assert ImagePreprocess(size=10)(stripes).min() == 1
    squashed = ImagePreprocess(size=10, resize="squash", interpolation="box")(stripes)
    assert squashed[0, 0].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1, 1, 1 / 3, 0, 0, 0], abs=0.34)
    assert ImagePreprocess(size=4, interpolation="lanczos")(stripes).shape == (3, 4, 4)


def test_halving_averages_two_by_two_and_cuts_off() -> None:
    picture = np.random.default_rng(0).random((40, 48, 3), dtype=np.float32)
    means = picture.reshape(10, 4, 12, 4, 3).mean(axis=(1, 3))
    got = ImagePreprocess(size=10, resize="halving")(picture)
    np.testing.assert_allclose(got.numpy(), means[:, 1:11].transpose(2, 0, 1), atol=1e-6)
    # Of 3 columns too many ADM leaves 1 on the left, torchvision 2.
    strip = picture[:10, :13]
    halved = ImagePreprocess(size=10, resize="halving")(strip)
    assert torch.equal(halved, torch.from_numpy(strip[:, 1:11]).permute(2, 0, 1))
    assert not torch.equal(halved, ImagePreprocess(size=10)(strip))


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (10_000, 10_000)).save(path)
    with pytest.raises(ImageReadError, match=r"bomb\.png: cannot be read .* \(100000000 pixels\) exceeds"):
        AS_IS(path)
    monkeypatch.setattr(preprocess, "MAX_PIXELS", 99)
    with pytest.raises(ImageReadError, match="picture has 10 x 10 pixels: more than 99 are refused"):
        AS_IS(noise(10, 10))
    with pytest.raises(ImageReadError, match="resized picture has 2 x 80 pixels"):
        ImagePreprocess(size=2)(noise(40, 1, 1))


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("these are words")
    with pytest.raises(ImageReadError, match=r"text\.png: not a picture of a known format \(PNG, JPEG,"):
        AS_IS(text)
    with pytest.raises(ImageReadError, match=r"none\.png: no such file"):
        AS_IS(str(tmp_path / "none.png"))
    with pytest.raises(ImageReadError, match="is a folder, expected a picture"):
        AS_IS(tmp_path)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ImageReadError, match=r"empty\.jpg: not a picture"):
        AS_IS(empty)
    script = tmp_path / "script.eps"
    Image.new("RGB", (4, 4)).save(script)
    with pytest.raises(ImageReadError, match="not a picture of a known format"):
        AS_IS(script)


def test_truncated_jpeg(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(buffer.getvalue()[:1500])
    with pytest.raises(ImageReadError, match=r"cut\.jpg: cannot be read as a picture \(.*truncated"):
        read_image(path)
    with (
        Image.open(path) as image,
        pytest.raises(ImageReadError, match=r"picture cannot be loaded \(.*trunc"),
    ):
        AS_IS(image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, kind: str) -> None:
    if kind == "AVIF" and kind not in preprocess._formats():
        pytest.skip("this Pillow reads no AVIF")
    chance = random.Random(kind)
    buffer = io.BytesIO()
    Image.fromarray(noise(24, 20)).save(buffer, kind)
    path = tmp_path / "damaged"
    for _ in range(60):
        damaged = bytearray(buffer.getvalue())
        for _ in range(chance.choice([1, 3])):
            damaged[chance.randrange(min(len(damaged), chance.choice([64, 10_000])))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                assert read_image(path).size[0] > 0
        except ImageReadError as error:
            assert str(path) in str(error)


def test_wrong_values_say_what_is_expected() -> None:
    with pytest.raises(
        ValueError, match=r"picture holds 0 \.\.\. 255: floats are expected in \[0, 1\]; divide"
    ):
        AS_IS(np.array([[0.0, 255.0]], np.float32))
    with pytest.raises(ValueError, match="picture holds NaN or infinity"):
        AS_IS(torch.full((3, 4, 4), float("nan")))
    with pytest.raises(ValueError, match="NaN or infinity"):
        AS_IS(Image.fromarray(np.full((2, 2), np.inf, np.float32)))
    for picture in (np.zeros((4, 4, 3), np.int64), torch.zeros(3, 4, 4, dtype=torch.int64)):
        with pytest.raises(TypeError, match="picture is int64: expected uint8, uint16 or floats"):
            AS_IS(picture)
    with pytest.raises(TypeError, match="picture is bool"):
        AS_IS(np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match=r"picture has shape \(3, 8, 8\): expected \(H, W\)"):
        AS_IS(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="one picture at a time"):
        AS_IS(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"picture has shape \(0, 4, 3\)"):
        AS_IS(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(TypeError, match="picture is a list: expected a path, PIL image, array or tensor"):
        AS_IS([[0.0]])


def test_wrong_settings_say_what_is_expected() -> None:
    with pytest.raises(ValueError, match=r"size=0: expected 1 \.\.\. 8192 pixels, or None"):
        ImagePreprocess(size=0)
    with pytest.raises(ValueError, match="resize='fit'"):
        ImagePreprocess(resize="fit")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="interpolation='nearest'"):
        ImagePreprocess(interpolation="nearest")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"background=\(256, 0, 0\)"):
        ImagePreprocess(background=(256, 0, 0))


def test_workers_can_carry_it() -> None:
    original = ImagePreprocess(size=16, resize="squash")
    copy = pickle.loads(pickle.dumps(original))
    assert copy == original and hash(copy) == hash(original)


def test_to_image_rounds_and_clamps() -> None:
    signal = torch.tensor([-0.5, 0.2, 0.5, 1.7]).reshape(1, 1, 4).expand(3, 1, 4)
    assert np.asarray(to_image(signal))[0, :, 0].tolist() == [0, 51, 128, 255]
    levels = noise(5, 6)
    assert np.array_equal(np.asarray(to_image(AS_IS(levels))), levels)
