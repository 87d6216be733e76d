"""Parity with the official code: every fixture folder under --golden must load and give its numbers."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tokenzoo.checkpoints import convert_titok
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.weights import load_strict
from tokenzoo.image.titok import TiTok, TiTokConfig
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.tokens import Tokens

# Systems whose family is not here yet, by the `system` of meta.json or else its `repo`.
NOT_YET = frozenset(
    {
        "Aria-K-Alethia/BigCodec",
        "ZhangXInFD/SpeechTokenizer",
        "alit-vqgan",
        "descriptinc/descript-audio-codec",
        "facebookresearch/encodec",
        "flextok",
        "hubertsiuzdak/snac",
        "ibq",
        "jishengpeng/WavTokenizer",
        "karl-vae",
        "karl-vqgan",
        "llamagen-vq",
        "open-magvit2",
        "retok",
        "tatitok-vae",
        "tatitok-vq",
        "tokenbridge",
        "xingchensong/S3Tokenizer",
        "zhenye234/X-Codec-2.0",
    }
)


@dataclass(frozen=True, eq=False)
class Fixture:
    """One folder of /golden/: what the official code was, was given, and gave."""

    name: str
    system: str
    config: dict[str, Any]
    meta: dict[str, Any]
    tensors: dict[str, Tensor]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]

    def assert_close(self, name: str, got: Tensor) -> None:
        """Ids must be identical, floats within the tolerance that meta.json states."""
        expected = self.expected[name]
        assert got.shape == expected.shape, f"{name}: {tuple(got.shape)}, recorded {tuple(expected.shape)}"
        if not expected.is_floating_point():
            wrong = int((got != expected).sum())
            assert wrong == 0, f"{name}: {wrong} of {expected.numel()} ids differ"
            return
        stated = re.search(r"atol (\S+) / rtol (\S+)", self.meta["suggested_tolerance"])
        assert stated, f"{self.name}: tolerance {self.meta['suggested_tolerance']!r} is not understood"
        atol, rtol = float(stated[1]), float(stated[2])
        torch.testing.assert_close(got, expected, atol=atol, rtol=rtol, msg=lambda text: f"{name}: {text}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`fixture_folder` is every folder found, `supported_folder` those that a runner serves."""
    wanted = {"fixture_folder", "supported_folder"} & set(metafunc.fixturenames)
    if not wanted:
        return
    given = metafunc.config.getoption("--golden")
    roots = given or [Path(__file__).parent / "golden"]
    folders = sorted(meta.parent for root in roots for meta in Path(root).resolve().glob("*/meta.json"))
    if given and not folders:
        raise pytest.UsageError(f"--golden {', '.join(map(str, given))}: no folder with a meta.json in it")
    if "supported_folder" in wanted:
        folders = [folder for folder in folders if system_of(folder) in RUNNERS]
    metafunc.parametrize(wanted.pop(), folders, ids=[folder.name for folder in folders])


def system_of(folder: Path) -> str:
    """What the fixture proves; the audio fixtures name their repository only."""
    meta = json.loads((folder / "meta.json").read_text())
    return meta.get("system") or meta["repo"].split()[0]


def read_fixture(folder: Path) -> Fixture:
    return Fixture(
        name=folder.name,
        system=system_of(folder),
        config=json.loads((folder / "config.json").read_text()),
        meta=json.loads((folder / "meta.json").read_text()),
        tensors={name: _float32(tensor) for name, tensor in load_file(folder / "model.safetensors").items()},
        inputs=load_file(folder / "inputs.safetensors"),
        expected=load_file(folder / "expected.safetensors"),
    )


def test_golden(fixture_folder: Path) -> None:
    system = system_of(fixture_folder)
    if system in NOT_YET:
        pytest.skip(f"{system} is on the NOT_YET list: its family is still to be written")
    assert system in RUNNERS, (
        f"{fixture_folder}: no runner for system {system!r}; write one, or add it to NOT_YET"
    )
    fixture = read_fixture(fixture_folder)
    with torch.no_grad():
        computed = RUNNERS[fixture.system](fixture)
    unchecked = sorted(set(fixture.expected) - set(computed))
    assert not unchecked, f"{fixture.name} records {', '.join(unchecked)}, which the runner does not compute"
    for name in fixture.expected:
        fixture.assert_close(name, computed[name])


def test_altered_checkpoint_is_refused(supported_folder: Path) -> None:
    """One tensor removed, reshaped or added: the error names it, whichever it is."""
    fixture = read_fixture(supported_folder)
    model = TiTok(titok_config(fixture.config))
    for name, tensor in fixture.tensors.items():
        removed = {other: kept for other, kept in fixture.tensors.items() if other != name}
        reshaped = fixture.tensors | {name: tensor.unsqueeze(0)}
        for altered, problem in ((removed, "missing (1)"), (reshaped, "wrong shape (1)")):
            with pytest.raises(CheckpointError) as caught:
                load_titok(model, fixture.config, altered)
            assert f"{problem}: {convert_titok.convert_names(fixture.tensors)[name]}" in str(caught.value)
    for name in ("discriminator.weight", "encoder.transformer.99.ln_1.weight"):
        with pytest.raises(CheckpointError) as caught:
            load_titok(model, fixture.config, fixture.tensors | {name: torch.zeros(3)})
        assert f"unexpected (1): {convert_titok.convert_names([name])[name]}" in str(caught.value)


def _float32(tensor: Tensor) -> Tensor:
    """Fixtures store fp16-representable weights as F16; the official code ran in float32."""
    return tensor.float() if tensor.is_floating_point() else tensor


def titok_config(official: Mapping[str, Any]) -> TiTokConfig:
    """Through the converter, with the numbers that the fixture shrinks and the official source hard-codes."""
    shrunk = official.get("fixture_overrides", {})
    sizes = dict(convert_titok.SIZES)
    for name, size in shrunk.get("model_size_table", {}).items():
        sizes[name] = {"width": size["width"], "layers": size["num_layers"], "heads": size["num_heads"]}
    pixels = dict(convert_titok.PIXEL_DECODER)
    if "pixel_decoder" in shrunk:
        small = shrunk["pixel_decoder"]
        pixels = {
            "channels": small["hidden_channels"],
            "multipliers": small["channel_mult"],
            "blocks": small["num_res_blocks"],
            "latent_dim": small["z_channels"],
        }
    return TiTokConfig.from_dict(convert_titok.convert_config(official, sizes=sizes, pixel_decoder=pixels))


def load_titok(model: TiTok, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Strictly, as `tokenzoo.load` does with a folder in the official layout."""
    assert convert_titok.recognise(config, tensors)
    names = convert_titok.convert_names(tensors)
    load_strict(model, {names[name]: tensor for name, tensor in tensors.items()})


def _official(latents: Tensor) -> Tensor:
    """(B, N, D) in the official layout (B, D, 1, N)."""
    return latents.transpose(1, 2).unsqueeze(2)


def run_titok(fixture: Fixture) -> dict[str, Tensor]:
    model = TiTok(titok_config(fixture.config)).eval()
    load_titok(model, fixture.config, fixture.tensors)
    images = fixture.inputs["images"]
    latents = model.encode_latents(images)
    computed = {"encoder_latents": _official(latents.values)}
    if not model.facts.is_discrete:
        return computed | _run_posterior(model, latents, fixture)

    heads: list[Any] = []
    model.decoder.head.register_forward_hook(lambda module, inputs, output: heads.append(output))
    trained = model(images)
    tokens = model.encode(images)
    assert torch.equal(trained.quantized.values, tokens.ids)
    assert torch.equal(trained.quantized.latents, model.quantizer.decode(tokens.ids))
    computed["tokens"] = tokens.ids.unsqueeze(1)
    computed["quantized"] = _official(trained.quantized.latents)
    computed["quantized_from_tokens"] = _official(model.quantizer.decode(tokens.ids))
    computed["vit_decoder_out"] = heads[0]
    computed["recon_forward"] = trained.signal
    computed["recon_tokens"] = model.decode_latents(model.dequantize(tokens))
    return computed | _run_prefixes(model, tokens, fixture)


def _run_prefixes(model: TiTok, tokens: Tokens, fixture: Fixture) -> dict[str, Tensor]:
    """Every recorded length, and all of them at once in one batch of mixed lengths."""
    lengths = sorted(
        int(n[1]) for name in fixture.expected if (n := re.fullmatch(r"recon_tokens_len(\d+)", name))
    )
    cuts = [tokens.keep(length) for length in lengths]
    computed = {
        f"recon_tokens_len{length}": model.decode_latents(model.dequantize(cut))
        for length, cut in zip(lengths, cuts, strict=True)
    }
    if len(lengths) > 1:
        mixed = model.decode_latents(model.dequantize(Tokens.cat(cuts)))
        for index, length in enumerate(lengths):
            items = mixed[index * len(tokens) : (index + 1) * len(tokens)]
            fixture.assert_close(f"recon_tokens_len{length}", items)
    return computed


def _run_posterior(model: TiTok, latents: Tokens, fixture: Fixture) -> dict[str, Tensor]:
    posterior = model.quantizer
    assert isinstance(posterior, GaussianPosterior)
    mean, logvar = posterior.moments(latents.values)
    sample = _official(mean) + torch.exp(0.5 * _official(logvar)) * fixture.inputs["posterior_noise"]
    ours = sample.squeeze(2).transpose(1, 2)
    tokens = model.encode(fixture.inputs["images"])
    return {
        "posterior_mean": _official(mean),
        "posterior_logvar": _official(logvar),
        "posterior_mode": _official(tokens.values),
        "posterior_sample": sample,
        "kl": posterior.kl(latents.values),
        "recon_from_mode": model.decode_latents(tokens),
        "recon_from_sample": model.decode_latents(model.stamp(ours)),
    }


Runner = Callable[[Fixture], dict[str, Tensor]]
RUNNERS: dict[str, Runner] = dict.fromkeys(
    ("titok-s1", "titok-s2", "titok-vq8k", "titok-vae", "one-d-piece"), run_titok
)
