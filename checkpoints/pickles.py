"""Pickled weights, read without running anything they hold, once: after that a safetensors copy is read.

Only a file that a catalogue row or `tokenzoo convert` names comes here; see `Pickle`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from .error import CheckpointError, listed
from .weights import read_weights, without_compiled_prefix, write_weights

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".th", ".dev")
# Where training scripts put the state dict; a file with two of them needs `Pickle.part`.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "generator", "ema", "ema_state_dict", "module")
# A pickled dict can hold itself, or the same dict many times over: what no state dict comes near.
MAX_DEPTH = 16
MAX_NAMES = 1_000_000
# What reading a damaged or hostile pickle has been seen to raise.
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Pickle:
    """A pickled file that a catalogue row vouches for.

    file     its name in the repository or folder
    part     the dotted keys that lead to the state dict, e.g. "ema"; None finds the usual wrappers; "" is the
             whole file, a dict of state dicts whose keys stand before their names
    allowed  dotted names of classes that may occur beside the weights, e.g. "argparse.Namespace". They are
             never imported: an inert object stands in for each.
    """

    file: str
    part: str | None = None
    allowed: tuple[str, ...] = ()


def read_pickle(
    path: Path, spec: Pickle | None = None, *, source: object = None, revision: str | None = None
) -> dict[str, Tensor]:
    """The state dict in a pickle, by name, on the CPU and as stored.

    The file is unpickled with `weights_only=True`, which builds tensors and plain containers and calls
    nothing else. The result is cached as safetensors under the sha256 of the pickle, so the next call does
    not unpickle; for a file of the Hub's cache it does not even read it. A pickle that wants anything else,
    is damaged, or has no state dict, raises CheckpointError.
    """
    path = Path(path)
    spec = Pickle(path.name) if spec is None else spec
    place = {"source": path.parent if source is None else source, "revision": revision, "file": path.name}
    if not path.is_file():
        raise CheckpointError(
            "no such file", **place, remedy="check the name, or download the checkpoint again"
        )
    cached = _cached_copy(path, spec)
    if cached.is_file():
        try:
            return read_weights(cached)
        except CheckpointError:
            cached.unlink(missing_ok=True)  # a damaged copy: make it again
    found = _state_dict(_unpickled(path, spec, place), spec, place)
    tensors = _without_module_prefix(without_compiled_prefix(found, **place))
    keep_copy(cached, tensors)
    return tensors


def cache_folder() -> Path:
    """Where converted pickles are kept: $HF_HOME/tokenzoo, or tokenzoo in the user's cache folder."""
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "tokenzoo"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tokenzoo"


def _cached_copy(path: Path, spec: Pickle) -> Path:
    """Where the safetensors copy of this pickle belongs, there or not."""
    part = "" if spec.part is None else "-" + hashlib.sha256(spec.part.encode()).hexdigest()[:16]
    return cache_folder() / "pickles" / f"{file_digest(path)}{part}.safetensors"


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    blob = path.resolve()
    # The Hub's cache names a large file's blob by its sha256, so that a copy is found without reading 2 GB.
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpickled(path: Path, spec: Pickle, place: Mapping[str, Any]) -> object:
    """What the file holds, tensors and plain containers only."""
    stand_ins: list[Any] = [(type(name.rpartition(".")[2], (_Inert,), {}), name) for name in spec.allowed]
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.serialization.safe_globals(stand_ins))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            warnings.filterwarnings("ignore", message="'torch.load' received a zip file that looks like")
            return torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            reason = f"the pickle wants {wanted[1]}, no tensor and no plain container; nothing was run"
            remedy = "do not load it unless you trust its author; ask for a safetensors file"
        else:
            reason = f"not a readable pickle of weights, or one that is code ({_first_sentence(error)})"
            remedy = "download it again, or ask for a safetensors file"
        raise CheckpointError(reason, **place, remedy=remedy) from error


class _Inert:
    """Stands in for a class that is not imported: takes whatever it is given and does nothing."""

    def __new__(cls, *_arguments: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _state_dict(content: object, spec: Pickle, place: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors at `spec.part`, or inside the one usual wrapper there is."""
    part = content
    for key in spec.part.split(".") if spec.part else []:
        if not isinstance(part, Mapping) or key not in part:
            raise CheckpointError(
                f"the pickle has no part {spec.part!r}, only {_keys(part)}",
                **place,
                remedy="name one of these",
            )
        part = part[key]
    if spec.part is None:
        part = _unwrapped(part, place)
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    for count, (name, value) in enumerate(_leaves(part, place)):
        if count == MAX_NAMES:
            raise _nested_too_far(place)
        if isinstance(value, Tensor):
            _check_plain(name, value, place)
            tensors[name] = value.detach()
        else:
            others.append(name)
    if others or not tensors:
        what = (
            f"values that are not tensors: {listed(others)}"
            if others
            else f"no state dict, only {_keys(content)}"
        )
        raise CheckpointError(
            f"the pickle has {what}", **place, remedy="name the part that is the state dict"
        )
    return tensors


def _unwrapped(part: object, place: Mapping[str, Any]) -> object:
    """What the usual wrappers hold, one inside another."""
    for _ in range(MAX_DEPTH):
        inside = [key for key in WRAPPERS if isinstance(part, Mapping) and isinstance(part.get(key), Mapping)]
        if len(inside) > 1:
            raise CheckpointError(
                f"the pickle has several parts that may be the weights: {', '.join(inside)}",
                **place,
                remedy="name the part to read",
            )
        if not isinstance(part, Mapping) or not inside:
            return part
        part = part[inside[0]]
    raise _nested_too_far(place)


def _leaves(
    part: object, place: Mapping[str, Any], prefix: str = "", depth: int = 1
) -> Iterator[tuple[str, object]]:
    """Whatever nested dicts hold that is no filled dict, under dotted names; nothing if `part` is none."""
    if depth > MAX_DEPTH:
        raise _nested_too_far(place)
    for key, value in part.items() if isinstance(part, Mapping) else ():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, place, f"{name}.", depth + 1)
        else:
            yield name, value


def _nested_too_far(place: Mapping[str, Any]) -> CheckpointError:
    return CheckpointError(
        f"the pickle holds itself, or nests dicts more than {MAX_DEPTH} deep, or {MAX_NAMES} names",
        **place,
        remedy="name the part that is the state dict, or ask for a safetensors file",
    )


def _check_plain(name: str, tensor: Tensor, place: Mapping[str, Any]) -> None:
    """CheckpointError for a tensor without values of its own: a small file may expand one to terabytes."""
    if tensor.is_meta:
        what = "on the meta device"
    elif tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        what = f"sparse, nested or quantized ({tensor.layout}, {tensor.dtype})"
    elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        what = f"{tuple(tensor.shape)} with strides {tensor.stride()}, which overlap"
    else:
        return
    raise CheckpointError(
        f"tensor {name} is {what}: it does not have a value at every place",
        **place,
        remedy="save it again as a dense, contiguous tensor, or ask for a safetensors file",
    )


def _without_module_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the `module.` that DistributedDataParallel puts before every one of them."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def keep_copy(cached: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a copy as safetensors under another name, then rename; without a writable cache there is none."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=cached.stem[:16], suffix=".partial", dir=cached.parent)
        os.close(handle)
        try:
            write_weights(Path(name), tensors)
            os.replace(name, cached)
        finally:
            Path(name).unlink(missing_ok=True)
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: a dtype that safetensors lacks
        warnings.warn(
            f"cannot keep a safetensors copy in {cached.parent} ({error}): reading the original every time",
            stacklevel=3,
        )


def _keys(content: object) -> str:
    return listed([str(key) for key in content]) if isinstance(content, Mapping) else type(content).__name__


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0][:200] or type(error).__name__
