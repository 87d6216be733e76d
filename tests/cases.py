"""Who is held to the contract, and what they are given: shared by the test_contract files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import tokenzoo
from tokenzoo import Facts, NeuralTokenizer, NoDecoder, Tokenizer, Tokens
from tokenzoo.text.plain import PlainConfig
from tokenzoo.zoo import catalogue

from .test_titok import CONFIGS, make
from .text_samples import REWRITTEN, small
from .toys import TOYS, build_toy

LOADABLE = {row.name: row.facts for row in catalogue.rows() if row.repo is row.download is None}
# Official families whose weights are not here, small and random.
SMALL = {f"small-titok-{kind}": CONFIGS[kind] for kind in ("nested", "painting", "continuous")}
# A byte-level BPE trained on this repository.
SMALL_TEXT = "small-text"
FACTS: dict[str, Facts] = {
    **LOADABLE,
    **{name: config.facts() for name, config in SMALL.items()},
    **{name: toy.config_type().facts() for name, toy in TOYS.items()},
    SMALL_TEXT: replace(PlainConfig(1200, is_lossless=True).facts(), name=SMALL_TEXT),
    **{name: make().stated for name, make in REWRITTEN.items()},
}
NAMES = list(FACTS)
# Text is bytes and vocabularies, but for the toys that learn words.
NEURAL = [name for name in NAMES if name in TOYS or FACTS[name].modality != "text"]
NESTED_TOKENS = [name for name in NAMES if FACTS[name].nested == "tokens"]
DECODING = [name for name in NAMES if FACTS[name].has_decoder]
# Those that find their own number of tokens are asked by the tests of their family.
POOLING = [name for name in NAMES if FACTS[name].makes_fewer and not FACTS[name].is_adaptive]
WORDS = ["the cat sat", "on", "", "the mat; the mat sat", b"\xff on \x00"]

_loaded: dict[str, Tokenizer] = {}


def tokenizer_of(name: str) -> Tokenizer:
    """The tokenizer of that name, loaded or built once."""
    if name not in _loaded:
        if name in SMALL:
            _loaded[name] = make(SMALL[name])
        elif name == SMALL_TEXT:
            _loaded[name] = small()
        elif name in REWRITTEN:
            _loaded[name] = REWRITTEN[name]()
        else:
            _loaded[name] = build_toy(name) if name in TOYS else tokenzoo.load(name)
    return _loaded[name]


def items_of(tokenizer: Tokenizer, seed: int = 0) -> list[Any]:
    """Preprocessed items of as many sizes as the tokenizer takes, some of one size."""
    chance = Generator().manual_seed(seed)
    modality = tokenizer.facts.modality
    if modality == "text":
        return [tokenizer.preprocess(text) for text in WORDS]
    if modality == "audio":
        facts, least = tokenizer.facts, getattr(tokenizer, "min_samples", 1)
        hop = round((facts.sample_rate_hz or 1) / (facts.token_rate_hz or 1))
        sizes = [max(size, least) for size in (2 * hop, 2 * hop + 1, 2 * hop, 1, 7 * hop + 2)]
        return [torch.rand(facts.channels or 1, size, generator=chance) * 2 - 1 for size in sizes]
    side = getattr(tokenizer.preprocess, "size", None)
    sizes = [(side, side)] * 3 if side else [(8, 8), (4, 12), (8, 8), (12, 8)]
    return [torch.rand(3, *size, generator=chance) for size in sizes]


def equal_items(tokenizer: Tokenizer) -> Any:
    """A stacked batch, or texts."""
    items = items_of(tokenizer)
    return torch.stack([items[0], items[2]]) if isinstance(items[0], Tensor) else items


def same(left: Any, right: Any, tolerance: float = 1e-5) -> bool:
    if not isinstance(left, Tensor):
        return left == right
    return (
        left.shape == right.shape
        and left.dtype == right.dtype
        and torch.allclose(left, right, atol=tolerance)
    )


def decode(tokenizer: Tokenizer, tokens: Tokens, **keywords: Any) -> Any:
    """The signal; of a tokenizer that only encodes the values, once it has said so."""
    if tokenizer.facts.has_decoder:
        return tokenizer.decode(tokens, **keywords)
    with pytest.raises(NoDecoder, match=f"{tokenizer.facts.name} only encodes: it has no decoder"):
        tokenizer.decode(tokens, **keywords)
    return tokens.values


def close_tokens(left: Tokens, right: Tokens) -> bool:
    """Identical ids; floats of the same items within rounding."""
    if left.is_discrete:
        return left.identical(right)
    near = replace(right, values=left.values) if left.values.shape == right.values.shape else right
    return left.identical(near) and torch.allclose(left.values, right.values, atol=1e-5)


def stacked(tokenizer: NeuralTokenizer) -> Tensor:
    """A batch as the parts of the model see it."""
    signal = equal_items(tokenizer)
    if isinstance(signal, Tensor):
        return signal
    rows = [tokenizer.item_tensor(text) for text in (b"on the mat", b"sat  a cat")]
    return torch.stack(rows)


def check_parts(tokenizer: NeuralTokenizer) -> None:
    """Parts have the agreed names, and no method shares one."""
    parts = {name for name, _ in tokenizer.named_children()}
    assert {"encoder", "quantizer"} <= parts
    assert "decoder" in parts or not tokenizer.facts.has_decoder
    assert not parts & set(dir(type(tokenizer)))
