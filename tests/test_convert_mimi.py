"""The layouts of Mimi: kyutai's, and those of transformers 4 and 5, whose MimiModel is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tokenzoo
from tokenzoo.audio.mimi import Mimi, MimiConfig
from tokenzoo.checkpoints import convert_mimi
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.weights import load_strict
from tokenzoo.zoo import loading

from .golden_fixture import Fixture, read_fixture
from .golden_mimi import RUNS

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parent / "golden" / "mimi-a"
# Sizes of transformers' tiny models: ours refuses heads of other widths, which the files do not tell.
TINY: dict[str, Any] = {
    "hidden_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "sliding_window": 6,
    "num_filters": 4,
    "upsampling_ratios": [5, 4],
    "codebook_size": 64,
    "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16,
    "num_quantizers": 5,
    "upsample_groups": 128,
}


@pytest.fixture
def fixture() -> Fixture:
    return read_fixture(GOLDEN)


def official(fixture: Fixture, tensors: dict[str, Tensor]) -> Mimi:
    run = RUNS["kyutai-labs/moshi"]
    built = run.build(fixture.config).eval()
    run.load(built, fixture.config, tensors)
    return built


def test_the_released_file_has_an_older_spelling(fixture: Fixture) -> None:
    """transformers' converter of the released file reads `in_proj_weight` and `out_proj.weight`."""
    older = {
        name.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0", "out_proj"): tensor
        for name, tensor in fixture.tensors.items()
    }
    assert set(older) != set(fixture.tensors)
    ours = official(fixture, older).state_dict()
    for name, tensor in official(fixture, fixture.tensors).state_dict().items():
        assert torch.equal(ours[name], tensor)


def test_an_unused_code_lies_at_its_sum(fixture: Fixture) -> None:
    stage = official(fixture, fixture.tensors).quantizer.first.inner.stages[0]
    assert stage.counts[3] == 0 and (stage.codebook[3] == 0).all()
    torch.testing.assert_close(stage.codebook[4] * stage.counts[4], stage.sums[4])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_conv_shortcut": True, "num_residual_layers": 2, "upsampling_ratios": [4, 3, 2]},
        {"num_semantic_quantizers": 2, "kernel_size": 5, "compress": 1, "last_kernel_size": 5},
    ],
    ids=["plain", "shortcut", "two-semantic"],
)
def test_parity_with_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    """In both of its layouts, a folder as transformers writes it among them."""
    theirs = random_model(changes)
    five = theirs.state_dict()
    assert "encoder.downsample.conv.weight" in five
    ours = Mimi(MimiConfig.from_dict(convert_mimi.convert_config(theirs.config.to_dict()))).eval()
    assert convert_mimi.recognise(None, five)
    load_strict(ours, renamed(five))
    theirs.save_pretrained(tmp_path)
    four: Any = tokenzoo.load(tmp_path)
    assert four.config == ours.config
    for name, tensor in ours.state_dict().items():
        assert torch.equal(four.state_dict()[name], tensor), name

    chance = torch.Generator().manual_seed(0)
    signal = torch.rand(2, 1, 17 * ours.config.hop_samples, generator=chance) * 2 - 1
    with torch.no_grad():
        codes = theirs.encode(signal).audio_codes
        latents = theirs.encoder(signal).latents
        decoded = theirs.decode(codes).audio_values
        some = theirs.decode(codes[:, :3]).audio_values
        cut = theirs.encoder(signal[..., :-5]).latents
    tokens = ours.encode(signal)
    assert torch.equal(tokens.ids, codes.transpose(1, 2))
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(ours.encode_latents(signal).values.transpose(1, 2), latents, **close)
    for theirs_heard, kept in ((decoded, tokens), (some, tokens.keep(3))):
        heard = ours.decode_latents(ours.dequantize(kept))
        torch.testing.assert_close(heard, theirs_heard, **close)
    # transformers fills up every convolution by itself: its last latent is another.
    errors = (ours.encode_latents(signal[..., :-5]).values.transpose(1, 2) - cut).abs().amax(dim=(0, 1))
    assert errors[:-1].max() < 1e-4 and errors[-1] > 1e-3


def random_model(changes: dict[str, Any]) -> Any:
    from transformers import MimiConfig as TheirConfig
    from transformers import MimiModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MimiModel(TheirConfig(**TINY | changes)).eval()
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name.endswith("embed_sum"):
                    tensor.normal_()
                elif name.endswith("cluster_usage"):
                    tensor.uniform_(0.5, 2)
                elif "scale" in name:
                    tensor.uniform_(0.2, 0.8)
                elif "norm" in name:
                    tensor.add_(torch.randn_like(tensor), alpha=0.2)
    return model


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    folded = convert_mimi.fold(tensors)
    names = convert_mimi.convert_names(folded)
    return {names[name]: tensor for name, tensor in folded.items()}


def test_parts_that_do_not_fold_are_named() -> None:
    tensors = random_model({}).state_dict()
    model = loading.build("mimi", convert_mimi.convert_config(TINY))
    attention = "encoder.encoder_transformer.layers.1.self_attn"
    codebook = "quantizer.acoustic_residual_vector_quantizer.layers.2.codebook"
    ours = "encoder.transformer.layers.1.attention.qkv.weight"
    for name, problem in (
        (f"{attention}.k_proj.weight", rf"wrong shape \(1\): {ours} is \(128, 128\), expected \(384, 128\)"),
        (f"{codebook}.embed_sum", r"missing \(2\): quantizer.rest.inner.stages.2.codebook, \S+.sums"),
        (f"{codebook}.cluster_usage", r"missing \(2\): quantizer.rest.inner.stages.2.codebook, \S+.counts"),
    ):
        with pytest.raises(CheckpointError, match=problem):
            load_strict(model, renamed({key: kept for key, kept in tensors.items() if key != name}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 4}, "4 heads for 128 features"),
        ({"head_dim": 32}, "head_dim=32: expected 64, as in everything released"),
        ({"num_key_value_heads": 1}, "num_key_value_heads=1: expected 2"),
        ({"use_causal_conv": False}, "use_causal_conv=False: expected True"),
        ({"upsample_groups": 1}, "upsample_groups=1: expected 128"),
    ],
)
def test_other_graphs_of_transformers_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_mimi.convert_config(TINY | changes)


def test_other_graphs_of_kyutai_are_refused(fixture: Fixture) -> None:
    for part, change, message in (
        ("seanet", {"norm": "weight_norm"}, "norm='weight_norm': expected 'none'"),
        ("transformer", {"gating": "silu"}, "gating='silu': expected 'none'"),
        ("transformer", {"d_model": 48}, "d_model=48: expected 24"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_mimi.convert_config(fixture.config | {part: fixture.config[part] | change})


def test_a_nested_configuration_must_be_whole(fixture: Fixture) -> None:
    with pytest.raises(ValueError, match="the configuration of Mimi lacks 'quantizer'"):
        convert_mimi.convert_config(
            {name: fixture.config[name] for name in fixture.config if name != "quantizer"}
        )


def test_the_frame_rate_of_the_hub_is_kept() -> None:
    config = convert_mimi.convert_config({"frame_rate": 12.5, "rope_theta": 10000.0})
    assert MimiConfig.from_dict(config) == MimiConfig()
