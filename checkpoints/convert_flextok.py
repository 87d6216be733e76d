"""Official FlexTok repositories: their configuration and tensor names in ours.

Their config.json is a tree of class paths for hydra, with the arguments of each class. It is read, never
instantiated. Knows names only. Source of the layout: apple/ml-flextok 87d00cc.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "flextok"

# The autoencoder's shape, which the official code hard-codes (flextok/vae_wrapper.py).
VAE: Mapping[str, Any] = {"channels": (128, 256, 512, 512), "blocks": 2, "groups": 32}

_ENCODER, _DECODER = "encoder.module_dict.enc", "decoder.module_dict.dec"

# Official name | ours. A name without a row is passed on, for the strict load to refuse.
RENAMES: Renames = (
    ("vae.vae.**", "vae.model.**"),
    (f"{_ENCODER}_patch_emb.patch_proj.*", "encoder.patches.projection.*"),
    (f"{_ENCODER}_posemb_module.posembs", "encoder.patches.positions"),
    (f"{_ENCODER}_register_module.registers", "encoder.registers"),
    (f"{_ENCODER}_to_latents.proj.*", "encoder.head.*"),
    (f"{_DECODER}_from_latents.proj.*", "decoder.latent_embed.*"),
    (f"{_DECODER}_registers_posemb_module.posembs", "decoder.register_positions"),
    (f"{_DECODER}_nested_dropout.dropout_mask_token", "decoder.mask_token"),
    (f"{_DECODER}_latent_dropout.nullcond", "decoder.null_token"),
    (f"{_DECODER}_noise_patch_emb.patch_proj.*", "decoder.patches.projection.*"),
    (f"{_DECODER}_patches_posemb_module.posembs", "decoder.patches.positions"),
    (f"{_DECODER}_time_embedder.mlp.*.*", "decoder.time.mlp.*.*"),
    (f"{_DECODER}_to_patches.adaLN_modulation.1.*", "decoder.head_modulation.*"),
    (f"{_DECODER}_to_patches.proj.*", "decoder.head.*"),
    *(
        (f"{part}_transformer.blocks.*.{theirs}.*", f"{part.partition('.')[0]}.blocks.*.{ours}.*")
        for part in (_ENCODER, _DECODER)
        for theirs, ours in (
            ("attn.wq", "attention.query"),
            ("attn.wk", "attention.key"),
            ("attn.wv", "attention.value"),
            ("attn.proj", "attention.out"),
            ("mlp.fc1", "mlp.gate"),
            ("mlp.fc2", "mlp.down"),
            ("mlp.fc3", "mlp.up"),
            ("adaLN_modulation.1", "modulation"),
        )
    ),
)

# Names that every FlexTok has; one may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "vae.vae.quant_conv.weight",
        f"{_ENCODER}_register_module.registers",
        f"{_DECODER}_nested_dropout.dropout_mask_token",
        f"{_DECODER}_from_latents.proj.weight",
    }
)

# What is built here in one way only: path in the tree | what it says, or leaves out where None is listed.
FIXED: Mapping[str, tuple[Any, ...]] = {
    f"{_ENCODER}_posemb_module.posemb_type": ("sincos", None),
    f"{_ENCODER}_posemb_module.posemb_scaling": ("absolute", None),
    f"{_ENCODER}_register_module._target_": ("flextok.model.preprocessors.registers.Registers1D",),
    f"{_ENCODER}_register_module.ordering_mode": ("nested", None),
    f"{_ENCODER}_seq_packer.mask_mode": ("causal_last",),
    f"{_ENCODER}_to_latents.use_mup_readout": (False,),
    # One axis has nothing to be multiplied with: sum and product are the same table.
    f"{_DECODER}_registers_posemb_module.posemb_type": ("learnable_sum", "learnable_prod"),
    f"{_DECODER}_latent_dropout._target_": ("flextok.model.preprocessors.nullcond.LearnedNullCond",),
    f"{_DECODER}_latent_dropout.replace_with_single_token": (False, None),
    f"{_DECODER}_patches_posemb_module.posemb_type": ("sincos", None),
    f"{_DECODER}_patches_posemb_module.posemb_scaling": ("absolute", None),
    f"{_DECODER}_seq_packer.mask_mode": ("full", None),
    f"{_DECODER}_to_patches.use_mup_readout": (False,),
    **{
        f"{part}_transformer.{setting}": (value, None)
        for part in (_ENCODER, _DECODER)
        for setting, value in (("mlp_ratio", 4.0), ("gated_mlp", True), ("qk_norm", True))
    },
}


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether a folder holds an official FlexTok."""
    if len(SIGNATURE.difference(tensor_names)) > 1:
        return False
    return not config or _read(config, f"{_ENCODER}_register_module", None) is not None


def convert_config(config: Mapping[str, Any], *, vae: Mapping[str, Any] = VAE) -> dict[str, Any]:
    """Our configuration, as plain values, of an official config.json.

    config  the whole tree; absent arguments have the defaults of the official classes
    vae     shape of the autoencoder but for its latent channels

    Raises ValueError naming the path where a setting is missing, or asks for what is not built here.
    """
    for path, known in FIXED.items():
        found = _read(config, path, None)
        if found not in known:
            raise ValueError(f"{path} is {found!r}: expected {' or '.join(map(repr, known))}")
    patch_size = _square(config, f"{_ENCODER}_patch_emb.patch_sizes")
    grid = _square(config, f"{_ENCODER}_posemb_module.max_sizes")
    image_size = grid * patch_size * 2 ** (len(vae["channels"]) - 1)
    return {
        "encoder": _size(config, f"{_ENCODER}_transformer"),
        "decoder": _size(config, f"{_DECODER}_transformer"),
        "num_tokens": _read(config, f"{_ENCODER}_register_module.n_max"),
        "levels": _read(config, "regularizer.levels"),
        "image_size": image_size,
        "preprocess": {"size": image_size, "resize": "shorter_edge", "interpolation": "bilinear"},
        "vae": {**vae, "latent_dim": _read(config, "vae.latent_channels", 16)},
        "vae_scale": _number(config, "vae.scaling_factor"),
        "sample_posterior": _read(config, "vae.sample_posterior", True),
        "patch_size": patch_size,
        "position_grid": grid,
        "separate_modulation": _read(config, f"{_DECODER}_seq_packer.per_subseq_embs", False),
        "time_waves": _number(config, f"{_DECODER}_time_embedder.frequency_embedding_size", 256) // 2,
        "time_scale": 1000 / _number(config, f"{_DECODER}_time_embedder.max_timestep", 1000.0),
        "null_share": _read(config, f"{_DECODER}_latent_dropout.dropout_prob", 0.0),
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; none is dropped, and one nobody knows keeps its name."""
    return {name: rename(name, RENAMES) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))


def _size(config: Mapping[str, Any], path: str) -> dict[str, int]:
    width, head = _number(config, f"{path}.dim", 768), _number(config, f"{path}.head_dim", 64)
    return {"width": width, "layers": _read(config, f"{path}.depth", 12), "heads": width // head}


def _square(config: Mapping[str, Any], path: str) -> int:
    """The side of a size given along two axes, or as one number."""
    sides = _read(config, path)
    if isinstance(sides, list) and len(sides) == 2 and sides[0] == sides[1] and type(sides[0]) is int:
        return sides[0]
    raise ValueError(f"{path} is {sides!r}: expected two equal whole numbers")


def _number(config: Mapping[str, Any], path: str, *default: Any) -> Any:
    """More than 0. The scale of the autoencoder, if null, stands in another repository that is not read."""
    value = _read(config, path, *default)
    if type(value) not in (int, float) or not value > 0:
        raise ValueError(f"{path} is {value!r}: expected a number above 0")
    return value


def _read(config: Mapping[str, Any], path: str, *default: Any) -> Any:
    """The value at a dotted path."""
    value: Any = config
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            if default:
                return default[0]
            raise ValueError(f"configuration without {path}: expected the official config.json")
        value = value[part]
    return value
