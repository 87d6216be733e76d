"""tokenizer.json, the file of the library `tokenizers`: read as plain data, checked, in our terms."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .byte_letters import bytes_of
from .pretokenizers import recognise
from .vocab import MAX_PIECES, TextVocab

# The largest in use (Gemma's) has 33 MB.
MAX_BYTES = 128 * 2**20
_SPACE = "▁"
# Steps that cut text and lose none of it.
_KEEPING = ("Split", "Digits", "Punctuation", "UnicodeScripts", "ByteLevel")


def read_definition(path: Path) -> bytes:
    """The bytes of a tokenizer.json; ValueError naming the file when it is too large."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path.name}: {size} bytes, expected at most {MAX_BYTES}")
    return path.read_bytes()


def parse_definition(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`, once it is clear that it describes a tokenizer; ValueError when not."""
    try:
        definition = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from error
    model = definition.get("model") if isinstance(definition, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict | list) or not vocab:
        raise ValueError('describes no tokenizer: expected an object with "model" and a "vocab" in it')
    return definition


def vocab_of(definition: Mapping[str, Any]) -> TextVocab:
    """The vocabulary that a tokenizer.json describes; ValueError when it contradicts itself."""
    try:
        return _vocab_of(definition)
    except (TypeError, KeyError, IndexError, AttributeError, UnicodeEncodeError) as error:
        raise ValueError(f"the vocabulary is ill-formed ({type(error).__name__}: {error})") from error


def _vocab_of(definition: Mapping[str, Any]) -> TextVocab:
    model, vocab = definition["model"], definition["model"]["vocab"]
    ids: dict[str, int] = vocab
    if isinstance(vocab, list):
        if not all(isinstance(entry, list) and len(entry) == 2 for entry in vocab):
            raise TypeError("a list of pieces holds something else than a piece and its score")
        ids = {entry: place for place, (entry, _) in enumerate(vocab)}
    added = definition.get("added_tokens") or []
    places = [*ids.values(), *(entry["id"] for entry in added)]
    for place in places:
        if type(place) is not int or not 0 <= place < MAX_PIECES:
            raise ValueError(f"id {place!r} in the vocabulary: expected 0 ... {MAX_PIECES - 1}")
    names = {place: entry for entry, place in ids.items()}
    if len(names) < len(ids):
        twice = next(entry for entry, place in ids.items() if names[place] != entry)
        raise ValueError(f"two pieces have one id, {ids[twice]}: {twice!r} and {names[ids[twice]]!r}")
    for entry in added:
        name, place = entry["content"], entry["id"]
        if ids.get(name, place) != place or names.get(place, name) != name:
            other = names.get(place, f"{name} of id {ids.get(name)}")
            raise ValueError(f"added token {name!r} of id {place} contradicts the piece {other!r}")
    pieces = [b""] * (1 + max(places))
    read = _piece_reader(definition)
    for entry, place in ids.items():
        pieces[place] = read(entry)
    for entry in added:
        pieces[entry["id"]] = entry["content"].encode()
    scores: tuple[float, ...] = ()
    if isinstance(vocab, list):
        listed = [float(score) for _, score in vocab]
        scores = (*listed, *[min(listed)] * (len(pieces) - len(listed)))
    every = {entry["content"]: entry["id"] for entry in added} | ids
    unknown = model.get("unk_id") if scores else every.get(model.get("unk_token"))
    merges = tuple(_merges(model, ids))
    specials = {entry["content"]: entry["id"] for entry in added if entry.get("special")}
    # Some are ordinary pieces too, such as the "!" that CLIP pads with: text yields those.
    ordinary = set(specials.values()) & {place for merge in merges for place in merge}
    if is_byte_level(definition):
        ordinary |= {place for place in specials.values() if len(pieces[place]) == 1}
    return TextVocab(
        pieces=tuple(pieces),
        merges=merges,
        scores=scores,
        specials={name: place for name, place in specials.items() if place not in ordinary},
        fallback=_fallback(model, ids),
        unknown=unknown,
    )


def _merges(model: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[tuple[int, int, int]]:
    prefix = len(model.get("continuing_subword_prefix") or "")
    for merge in model.get("merges") or []:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2:
            raise TypeError(f"merge {merge!r}: expected two pieces")
        left, right = parts
        product = left + right[prefix:]
        if left not in ids or right not in ids or product not in ids:
            missing = next(entry for entry in (left, right, product) if entry not in ids)
            raise ValueError(f"the merge of {left!r} and {right!r} needs {missing!r}, which is no piece")
        yield ids[left], ids[right], ids[product]


def _fallback(model: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[int, ...]:
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    has_all = model.get("byte_fallback") and all(name in ids for name in names)
    return tuple(ids[name] for name in names) if has_all else ()


def _piece_reader(definition: Mapping[str, Any]) -> Callable[[str], bytes]:
    """From an entry of the vocabulary to what it decodes to, by the conventions of its model."""
    model = definition["model"]
    if is_byte_level(definition):
        return lambda entry: _or_itself(bytes_of(entry), entry)
    if model.get("type") == "WordPiece":
        mark = model.get("continuing_subword_prefix", "##")
        return lambda entry: (
            entry.removeprefix(mark).encode() if entry.startswith(mark) else f" {entry}".encode()
        )
    spaced = any(_SPACE in json.dumps(definition.get(part), ensure_ascii=False) for part in _STEPS)
    fallback = bool(model.get("byte_fallback"))
    suffix = model.get("end_of_word_suffix") or ""

    def read(entry: str) -> bytes:
        if fallback and len(entry) == 6 and entry.startswith("<0x"):
            return bytes.fromhex(entry[3:5])
        if suffix and entry.endswith(suffix):
            entry = f"{entry.removesuffix(suffix)} "
        return (entry.replace(_SPACE, " ") if spaced else entry).encode()

    return read


_STEPS = ("normalizer", "pre_tokenizer", "decoder")


def _or_itself(found: bytes | None, entry: str) -> bytes:
    return entry.encode() if found is None else found


def steps(part: Any, inner: str) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as a flat list: sequences are opened."""
    if not isinstance(part, dict):
        return []
    held = part.get(inner)
    if part.get("type") != "Sequence" or not isinstance(held, list):
        return [part]
    return [step for each in held for step in steps(each, inner)]


def is_byte_level(definition: Mapping[str, Any]) -> bool:
    """Whether pieces are written in the letters of bytes."""
    cut = steps(definition.get("pre_tokenizer"), "pretokenizers")
    shown = steps(definition.get("decoder"), "decoders")
    return any(step.get("type") == "ByteLevel" for step in (*cut, *shown))


def is_lossless(definition: Mapping[str, Any], vocab: TextVocab) -> bool:
    """Whether every text comes back from its ids, byte for byte: nothing normalizes, cuts drop nothing, and
    every byte is a piece."""
    model = definition["model"]
    cut = steps(definition.get("pre_tokenizer"), "pretokenizers")
    keeps = recognise(definition.get("pre_tokenizer")) is not None or all(
        step.get("type") in _KEEPING and step.get("behavior") != "Removed" for step in cut
    )
    prefixed = any(step.get("type") == "ByteLevel" and step.get("add_prefix_space", True) for step in cut)
    stripped = any(
        entry.get("lstrip") or entry.get("rstrip")
        for entry in definition.get("added_tokens") or []
        if not entry.get("special")
    )
    return (
        model.get("type") in ("BPE", "Unigram")
        and not definition.get("normalizer")
        and is_byte_level(definition)
        and bool(cut)
        and cut[-1].get("type") == "ByteLevel"
        and keeps
        and not prefixed
        and not stripped
        and not model.get("dropout")
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and vocab.covers_bytes
    )


def drops_first_space(definition: Mapping[str, Any]) -> bool:
    """Whether the model puts a space before the text, which decoding takes off again."""
    if definition["model"].get("type") == "WordPiece":
        return True
    for step in steps(definition.get("decoder"), "decoders"):
        if step.get("type") == "Strip" and step.get("start"):
            return True
        if step.get("type") == "Metaspace":
            # Before `prepend_scheme` there was a switch.
            scheme = step.get("prepend_scheme")
            return scheme != "never" if scheme else bool(step.get("add_prefix_space", True))
    return False
