"""The joint vocabulary as a tokenizer.json with a name for every id, for tools that know nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .vocabulary import Block

if TYPE_CHECKING:
    from .interleave import JointTokenizer

_DEFINITION = "tokenizer.json"


def token_names(block: Block) -> list[str]:
    """The names of a block in the order of its ids: <|image_begin|>, <|image_end|>, <|image_0_00000|>, the
    codebook and the id in it."""
    name = block.medium.name
    markers = [f"<|{name}_begin|>", f"<|{name}_end|>"]
    return markers + [
        f"<|{name}_{codebook}_{own:05d}|>"
        for codebook, ids in enumerate(block.ranges)
        for own in range(len(ids))
    ]


def export_named(joint: JointTokenizer, folder: str | os.PathLike[str], *, limit: int = 16384) -> None:
    """Write a folder that `transformers.AutoTokenizer` opens; every id of a medium is a special token there.

    limit  most names; more must be asked for

    It costs: 16,384 names make the file 2 MB larger and its loading 1.5 s slower, and a text that spells a
    name becomes that id. The default, offsets alone, does not. ValueError above the limit, and for a text
    tokenizer that no tokenizer.json describes.
    """
    names = [name for block in joint.vocabulary.blocks for name in token_names(block)]
    if len(names) > limit:
        raise ValueError(
            f"{len(names)} names, more than {limit}: each costs time at every load; keep to numeric ids, or "
            f"insist with limit={len(names)}"
        )
    files = joint.text.files()
    if _DEFINITION not in files:
        raise ValueError(
            f"{joint.text.facts.name} is not described by a {_DEFINITION}: named tokens need one, ids do not"
        )
    definition = json.loads(files[_DEFINITION])
    known = _known(definition)
    if clash := known & set(names):
        raise ValueError(f"{min(clash)} is a token of text already: give the medium another name")
    first = joint.vocabulary.text_size
    if len(known) != first:
        # tokenizers numbers added tokens by counting; a hole would move every name.
        raise ValueError(
            f"{joint.text.facts.name} has {len(known)} tokens for {first} ids: holes cannot be kept"
        )
    definition["added_tokens"] += [_added(first + place, name) for place, name in enumerate(names)]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(definition, ensure_ascii=False, separators=(",", ":")).encode()
    for name, content in {**files, _DEFINITION: raw}.items():
        (target / name).write_bytes(content)


def _known(definition: dict[str, Any]) -> set[str]:
    vocab = definition["model"]["vocab"]
    listed = vocab if isinstance(vocab, dict) else (entry for entry, _ in vocab)
    return {*listed, *(token["content"] for token in definition["added_tokens"])}


def _added(place: int, name: str) -> dict[str, Any]:
    return {
        "id": place,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
