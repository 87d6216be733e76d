"""Translation of official FlexTok configurations, hydra trees that are read as data."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tokenzoo.checkpoints.convert_flextok import (
    SIGNATURE,
    convert_config,
    convert_names,
    official_name,
    recognise,
)
from tokenzoo.image.flextok import FlexTokConfig

GOLDEN = Path(__file__).parent / "golden"
OFFICIAL: dict[str, Any] = json.loads((GOLDEN / "manifests" / "flextok-d12-d12.json").read_text())["config"]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The official tree with one entry changed, or removed by ..."""
    config = deepcopy(OFFICIAL)
    *parents, name = path.split(".")
    branch = config
    for parent in parents:
        branch = branch[parent]
    if value is ...:
        del branch[name]
    else:
        branch[name] = value
    return config


def test_sizes() -> None:
    config = FlexTokConfig.from_dict(convert_config(OFFICIAL))
    assert (config.encoder.width, config.encoder.layers, config.encoder.heads) == (768, 12, 12)
    assert config.num_tokens == 256 and config.facts().codebook_sizes == (64000,)
    assert config.image_size == 256 and config.vae.latent_dim == 16 and config.time_scale == 1000


def test_absent_arguments_have_the_official_defaults() -> None:
    decoder = "decoder.module_dict.dec"
    assert convert_config(changed("vae.sample_posterior", ...))["sample_posterior"] is True
    assert not convert_config(changed(f"{decoder}_seq_packer.per_subseq_embs", ...))["separate_modulation"]
    assert convert_config(changed(f"{decoder}_time_embedder.max_timestep", ...))["time_scale"] == 1
    assert convert_config(changed(f"{decoder}_latent_dropout.dropout_prob", ...))["null_share"] == 0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("encoder", ..., "is None: expected"),
        ("encoder.module_dict.enc_seq_packer.mask_mode", "full", "'full': expected 'causal_last'"),
        ("encoder.module_dict.enc_register_module._target_", "os.system", "_target_ is 'os.system'"),
        ("encoder.module_dict.enc_register_module.n_max", ..., "configuration without .*n_max"),
        ("encoder.module_dict.enc_posemb_module.max_sizes", [16, 8], r"max_sizes is \[16, 8\]: expected two"),
        ("encoder.module_dict.enc_to_latents.use_mup_readout", True, "readout is True: expected False"),
        ("decoder.module_dict.dec_latent_dropout._target_", "nullcond.ZeroNullCond", "LearnedNullCond"),
        ("decoder.module_dict.dec_transformer.mlp_ratio", 2.0, "mlp_ratio is 2.0: expected 4.0"),
        ("decoder.module_dict.dec_time_embedder.max_timestep", 0, "is 0: expected a number above 0"),
        ("vae.scaling_factor", None, "vae.scaling_factor is None: expected a number above 0"),
    ],
)
def test_what_is_not_built_here_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_config(changed(path, value))


def test_recognise() -> None:
    names = set(SIGNATURE) | {"vae.vae.encoder.conv_in.weight"}
    assert recognise(OFFICIAL, names) and recognise({}, names) and recognise(None, names)
    some = sorted(SIGNATURE)
    assert recognise(OFFICIAL, names - {some[0]}), "one may be missing: the strict load says which"
    assert not recognise(OFFICIAL, names - set(some[:2]))
    assert not recognise({"model": {"vq_model": {}}}, names)


def test_unknown_names_pass_unchanged() -> None:
    assert convert_names(["repa.head.weight"]) == {"repa.head.weight": "repa.head.weight"}
    ours = "decoder.blocks.3.modulation.bias"
    official = "decoder.module_dict.dec_transformer.blocks.3.adaLN_modulation.1.bias"
    assert convert_names([official]) == {official: ours} and official_name(ours) == official
