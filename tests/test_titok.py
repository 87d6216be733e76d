"""TiTok and One-D-Piece: the verbs, mixed lengths, training, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenzoo.image.maskgit import PixelDecoder, PixelDecoderConfig, ResidualBlock
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.titok import TiTok, TiTokConfig
from tokenzoo.zoo.length_policy import LengthPolicy
from tokenzoo.zoo.tokenizer import NoDecoder
from tokenzoo.zoo.tokens import Tokens
from tokenzoo.zoo.transformer import TransformerSize

SIZE = TransformerSize(width=32, layers=2, heads=2)
NESTED = TiTokConfig(
    num_tokens=12,
    latent_dim=6,
    encoder=SIZE,
    decoder=SIZE,
    image_size=32,
    preprocess=ImagePreprocess(size=32),
    encoder_patch_size=8,
    decoder_patch_size=8,
    num_codes=50,
    pixel_codes=40,
    pixel_decoder=PixelDecoderConfig(channels=32, multipliers=(1, 1, 2, 1), blocks=1, latent_dim=16),
    nested=True,
)
PAINTING = replace(NESTED, nested=False, legacy=False, l2=False, pixel_decoder=None)
CONTINUOUS = replace(PAINTING, quantizer="gaussian", num_codes=None)
STAGE_1 = replace(NESTED, nested=False, pixel_decoder=None)
CONFIGS = {"nested": NESTED, "painting": PAINTING, "continuous": CONTINUOUS, "stage-1": STAGE_1}
LENGTHS = (12, 1, 5, 5, 11)


def make(config: TiTokConfig) -> TiTok:
    """A random model whose outputs depend visibly on every token."""
    torch.manual_seed(0)
    model = TiTok(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "quantizer" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model.eval()


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
def test_config_goes_to_plain_values_and_back(name: str) -> None:
    config = CONFIGS[name]
    assert TiTokConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_tokens": 0}, "num_tokens=0"),
        ({"num_codes": None}, "num_codes=0"),
        ({"quantizer": "gaussian"}, "expected None"),
        ({"quantizer": "lfq"}, "expected 'vq' or 'gaussian'"),
        ({"encoder_patch_size": 5}, "expected a multiple"),
        ({"decoder_patch_size": 16}, "enlarges 8 times"),
        ({"legacy": False}, "legacy 'vq' models only"),
        ({"image_size": 64}, "preprocess.size=32"),
        ({"commitment_weight": -1.0}, "commitment_weight=-1.0"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(NESTED, **change)


def test_impossible_pixel_decoders_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        PixelDecoderConfig(channels=48)
    with pytest.raises(ValueError, match="multipliers=0"):
        PixelDecoderConfig(multipliers=())


@pytest.mark.parametrize("name", ["nested", "painting", "continuous"])
def test_verbs(name: str) -> None:
    model = make(CONFIGS[name])
    tokens = model.encode(images())
    assert tokens.values.shape[:2] == (5, 12) and tokens.lengths.tolist() == [12] * 5
    assert tokens.extents.tolist() == [[32, 32]] * 5
    decoded = model.decode(tokens)
    assert decoded.shape == (5, 3, 32, 32) and decoded.dtype == torch.float32
    assert float(decoded.min()) >= 0 and float(decoded.max()) <= 1
    raw = model.decode_latents(model.dequantize(tokens))
    assert torch.equal(raw.clamp(0, 1), decoded)
    assert torch.equal(model.encode(images()).values, tokens.values)
    assert torch.equal(model(images()).signal, raw)
    assert raw.requires_grad, "decode_latents must carry gradients"


def test_prefixes_change_the_picture() -> None:
    model = make(NESTED)
    tokens = model.encode(images(1))
    pictures = [model.decode(tokens.keep(count)) for count in (1, 4, 12)]
    assert float((pictures[0] - pictures[1]).abs().max()) > 1e-3
    assert float((pictures[1] - pictures[2]).abs().max()) > 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_mixed_lengths_decode_as_singles_do(dtype: torch.dtype, tolerance: float) -> None:
    """In float64 nothing but rounding is left; in float32 the norms of the pixel decoder magnify it."""
    model = make(NESTED).to(dtype)
    tokens = model.encode(images())
    mixed = Tokens.cat([tokens.unbind()[item].keep(length) for item, length in enumerate(LENGTHS)])
    assert mixed.lengths.tolist() == list(LENGTHS)
    together = model.decode_latents(model.dequantize(mixed))
    assert together.dtype == dtype
    for item, single in enumerate(mixed.unbind()):
        alone = model.decode_latents(model.dequantize(single))
        torch.testing.assert_close(together[item : item + 1], alone, atol=tolerance, rtol=0)


def test_padding_is_read_by_nobody() -> None:
    model = make(NESTED)
    ids = model.encode(images()).ids
    lengths = torch.tensor(LENGTHS)
    padding = torch.arange(12) >= lengths[:, None]
    facts, extents = model.facts, model.default_extents(lengths)
    decoded = [
        model.decode(Tokens(torch.where(padding, filler, ids), lengths, extents, facts)) for filler in (0, 49)
    ]
    assert torch.equal(*decoded)


def test_equal_lengths_are_cut_and_not_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(NESTED)
    seen: list[Any] = []
    model.decoder.register_forward_pre_hook(lambda module, given: seen.append(given))
    model.decode(model.encode(images()).keep(4))
    model.decode(model.stamp([[1, 2, 3], [4]]))
    (cut, unmasked), (padded, lengths) = seen
    assert cut.shape[1] == 4 and unmasked is None
    assert padded.shape[1] == 3 and lengths.tolist() == [3, 1]


def test_training_path_drops_the_tail() -> None:
    model = make(NESTED).train()
    lengths = LengthPolicy(12, per="sample").sample(5, generator=torch.Generator().manual_seed(0))
    given = images()
    result = model(given, lengths=lengths)
    assert result.signal.shape == given.shape and result.quantized.values.shape == (5, 12)
    cuts = [model.encode(given).unbind()[item].keep(int(length)) for item, length in enumerate(lengths)]
    expected = model.decode_latents(model.dequantize(Tokens.cat(cuts)))
    torch.testing.assert_close(result.signal, expected, atol=5e-6, rtol=1e-5)
    (result.signal.square().mean() + result.quantized.loss).backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not unused
    assert model.training, "encode must leave the mode as it was"


def test_continuous_draws_as_the_official_code() -> None:
    model = make(CONTINUOUS)
    moments = model.encode_latents(images()).values
    mean, logvar = moments.chunk(2, dim=-1)
    noise = torch.randn(5, 6, 1, 12, generator=torch.Generator().manual_seed(3)).squeeze(2).transpose(1, 2)
    drawn = model.encode(images(), generator=torch.Generator().manual_seed(3)).values
    assert torch.equal(drawn, mean + torch.exp(0.5 * logvar) * noise)
    assert torch.equal(model.encode(images()).values, mean)
    assert model.facts.draws_noise and not model.facts.is_discrete


def test_stage_1_encodes_and_has_no_pixels() -> None:
    model = make(STAGE_1)
    tokens = model.encode(images(2))
    assert not model.facts.has_decoder
    assert model(images(2)).signal.shape == (2, 40, 4, 4)
    with pytest.raises(NoDecoder, match="no decoder"):
        model.decode(tokens)


def test_codebook_embeddings_are_what_the_decoder_reads() -> None:
    (embeddings,) = make(NESTED).codebook_embeddings()
    assert embeddings.shape == (50, 6)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(50))
    assert make(CONTINUOUS).codebook_embeddings() == ()


def test_wrong_lengths_are_refused() -> None:
    fixed, nested = make(PAINTING), make(NESTED)
    with pytest.raises(ValueError, match=r"lengths \[3, 12\]: titok decodes 12 tokens"):
        fixed(images(2), lengths=torch.tensor([3, 12]))
    with pytest.raises(ValueError, match="13 tokens: one-d-piece decodes at most 12"):
        nested(images(2), lengths=torch.tensor([13, 1]))
    for model in (fixed, nested):
        lengths = torch.tensor([13])
        ids = torch.zeros(1, 13, dtype=torch.int64)
        with pytest.raises(ValueError, match="13 tokens"):
            model.decode(Tokens(ids, lengths, model.default_extents(lengths), model.facts))
    with pytest.raises(ValueError, match="no captions"):
        nested(images(2), captions=["a", "b"])
    with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
        nested(torch.rand(1, 3, 40, 32))


def test_half_precision_decodes_in_range() -> None:
    model = make(NESTED).to(torch.bfloat16)
    decoded = model.decode(model.encode(images(2)))
    assert decoded.dtype == torch.float32 and bool(torch.isfinite(decoded).all())


def test_shortcut_reads_the_blocks_own_output() -> None:
    """Kept for compatibility: where the width changes, the input itself does not reach the output."""
    block = ResidualBlock(32, 64)
    assert block.nin_shortcut is not None and block.nin_shortcut.weight.shape == (64, 64, 1, 1)
    x = torch.randn(1, 32, 4, 4)
    with torch.no_grad():
        block.conv2.weight.zero_()
        assert bool((block(x) == 0).all())
        same = ResidualBlock(32, 32)
        same.conv2.weight.zero_()
        assert torch.equal(same(x), x)


def test_pixel_decoder_enlarges() -> None:
    config = PixelDecoderConfig(channels=32, multipliers=(1, 2, 1), blocks=1, latent_dim=8)
    assert PixelDecoder(config)(torch.randn(1, 8, 3, 5)).shape == (1, 3, 12, 20)
    assert config.upscaling == 4


def test_parts_export_with_free_batch_and_length() -> None:
    model = make(NESTED)
    batch, count = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("count", min=2, max=12)
    with torch.no_grad():
        latents = model.quantizer(model.encoder(images())).latents
        encoder = torch.export.export(model.encoder, (images(),), dynamic_shapes=({0: batch},)).module()
        decoder = torch.export.export(
            model.decoder, (latents, torch.tensor(LENGTHS)), dynamic_shapes=({0: batch, 1: count}, {0: batch})
        ).module()
        torch.testing.assert_close(encoder(images(3)), model.encoder(images(3)))
        shorter = (latents[:3, :7], torch.tensor([7, 3, 2]))
        torch.testing.assert_close(decoder(*shorter), model.decoder(*shorter))
