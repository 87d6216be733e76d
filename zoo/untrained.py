"""The architecture of an official model without its weights: to try what runs, where none are at hand."""

from __future__ import annotations

from typing import Any

from . import catalogue
from .loading import read_yaml
from .tokenizer import Tokenizer

# Ends the names of such tokenizers.
UNTRAINED = "-untrained"


def untrained(name: str, *, seed: int = 0, device: str = "cpu", dtype: Any = None) -> Tokenizer:
    """A tokenizer of full size with random weights; its pictures and ids mean nothing.

    name    a catalogue name that has a configuration; `tokenzoo list` shows the names
    seed    of the weights, which are the same for one seed, name and version of torch
    dtype   floating dtype of the weights, default float32

    It is called NAME-untrained and has no fingerprint: tokens of it are not those of the official model.
    Raises ValueError for a name without a configuration.
    """
    import torch

    row = catalogue.find(name)
    if row is None or row.config is None:
        known = ", ".join(each.name for each in catalogue.rows() if each.config is not None)
        raise ValueError(f"{name!r} has no configuration to build from; known: {known}")
    tokenizer_type, values = read_yaml(row.config)
    family: Any = catalogue.family(tokenizer_type)
    config = family.config_type.from_dict(values)
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype or torch.float32)  # half of the memory where half is asked for
        try:
            tokenizer = family(config)
        finally:
            torch.set_default_dtype(before)
    tokenizer.mock_companions()
    tokenizer.identify(name=f"{row.name}{UNTRAINED}", revision=None, fingerprint=None, licence=None)
    return tokenizer.eval().to(device, dtype)
