"""Named tensors: reading and writing safetensors, fitting them to a module, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .error import CheckpointError, listed

WEIGHTS_FILE = "model.safetensors"
SAMPLES_PER_TENSOR = 256
# What a config says about itself, not about the numbers: relicensed weights are the same tokenizer.
DESCRIPTIVE_KEYS = frozenset({"licence", "provenance"})
_COMPILED_PREFIX = "_orig_mod."


def read_metadata(path: Path, *, source: object = None, revision: str | None = None) -> dict[str, str]:
    """The free text in the header of a safetensors file, {} if it has none; CheckpointError if corrupt."""
    with _opened(path, source, revision) as file:
        return dict(file.metadata() or {})


def read_weights(path: Path, *, source: object = None, revision: str | None = None) -> dict[str, Tensor]:
    """Every tensor of a safetensors file by name, on the CPU and as stored.

    The library checks the header against the size of the file before anything is read, and the tensors are
    mapped, not loaded: a page is read when it is used, so `load_strict` refuses a shape before it costs
    memory. Names that the writer dropped because they share memory with another come back, and the prefix
    that torch.compile leaves in names is removed. A corrupt or truncated file raises CheckpointError.
    """
    with _opened(path, source, revision) as file:
        metadata = file.metadata() or {}
        names: list[str] = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    for alias, kept in metadata.items():
        if kept in tensors and alias not in tensors:
            tensors[alias] = tensors[kept]
    return without_compiled_prefix(tensors, source=source, revision=revision, file=path.name)


def without_compiled_prefix(
    tensors: Mapping[str, Tensor],
    *,
    source: object = None,
    revision: str | None = None,
    file: str | None = None,
) -> dict[str, Tensor]:
    """The same tensors without the `_orig_mod.` that torch.compile writes into names."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.replace(_COMPILED_PREFIX, "")
        if short in plain:
            raise CheckpointError(
                f"two tensors are called {short!r} once {_COMPILED_PREFIX!r} is removed",
                source=source,
                revision=revision,
                file=file,
                remedy="save the module once, compiled or not",
            )
        plain[short] = tensor
    return plain


def write_weights(path: Path, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None) -> None:
    """Write a safetensors file in place; `write_folder` is the safe way to save a checkpoint.

    dtype   what floats are stored as; None keeps theirs. A value that this would turn infinite is an error.

    A tensor that is the very same memory under two names is stored once, and the header names the other, as
    `safetensors.torch.save_model` does; `read_weights` gives both back. Views that merely overlap are copied.
    """
    stored: dict[str, Tensor] = {}
    metadata = {"format": "pt"}
    first_name: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            where = "on the meta device" if tensor.is_meta else tensor.layout
            raise CheckpointError(
                f"tensor {name} is {where}: it has no plain values",
                file=path.name,
                remedy="load weights into the module, or make the tensor dense, before saving",
            )
        memory = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and memory in first_name:
            metadata[name] = first_name[memory]
            continue
        first_name[memory] = name
        stored[name] = _storable(name, tensor, dtype, path.name)
    # safetensors makes the file readable by its owner alone; a new file's own mode follows the umask.
    path.touch()
    mode = path.stat().st_mode
    save_file(stored, path, metadata=metadata)
    path.chmod(mode)


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: object = None,
    revision: str | None = None,
    file: str | None = WEIGHTS_FILE,
    dtype: torch.dtype = torch.float32,
    stored_name: Callable[[str], str] | None = None,
) -> None:
    """Give `module` these weights, all of them and nothing else.

    dtype        what float tensors become, however stored; integers and booleans keep the module's dtype
    stored_name  what the file calls a tensor of the module, for errors, where a converter renamed them

    The parameters are replaced, not filled, so a module built on the meta device works (its tensors land on
    the CPU; those of a real module stay on their device) and an optimizer must be made afterwards. The
    weights are copied: later changes to the file do not reach them. Tied parameters stay tied.

    A missing or unexpected name, another shape, a float where an integer belongs, or a table left on the meta
    device because it is not in the state dict, raises CheckpointError, which lists the names.
    """
    expected = module.state_dict()
    place = {"source": source, "revision": revision, "file": file}
    problems = _misfits(expected, tensors, stored_name or str)
    if problems:
        raise CheckpointError(
            f"the weights do not fit {type(module).__name__}: {'; '.join(problems)}",
            **place,
            remedy="use the configuration it was saved with, or the converter of its layout",
        )
    ties = _tied_names(module)
    fitted = {name: _fitted(tensors[name], expected[name], dtype) for name in expected}
    module.load_state_dict(fitted, strict=True, assign=True)
    for first, other in ties:
        owner, _, attribute = other.rpartition(".")
        setattr(module.get_submodule(owner), attribute, module.get_parameter(first))
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if left:
        raise CheckpointError(
            f"{type(module).__name__} keeps tensors that its state dict does not have: {listed(left)}",
            **place,
            remedy="compute such tables in a cached function, or make them persistent buffers",
        )


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hex digest (64 characters) that tells one tokenizer from another.

    It covers the config as canonical JSON, without its licence and provenance, and of every tensor the name,
    the shape and 256 evenly spaced elements (all, if there are fewer) as little-endian fp32, or int64 for
    integers. Take it from the tokenizer's own config and converted tensors, before any cast: then a
    checkpoint keeps its fingerprint when it is saved and loaded again. Storing as fp16 keeps it only if every
    sampled value is representable in fp16; otherwise the weights, and perhaps the ids, are different ones.
    """
    digest = hashlib.sha256()
    told = {key: value for key, value in config.items() if key not in DESCRIPTIVE_KEYS}
    digest.update(json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        count = min(tensor.numel(), SAMPLES_PER_TENSOR)
        places = [i * (tensor.numel() - 1) // max(count - 1, 1) for i in range(count)]
        sample = tensor.reshape(-1)[torch.tensor(places, dtype=torch.int64, device=tensor.device)]
        kind = torch.float32 if tensor.is_floating_point() else torch.int64
        values = sample.to("cpu", kind).numpy()
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _opened(path: Path, source: object, revision: str | None) -> Any:
    """safe_open, with its errors as CheckpointError."""
    place = {"source": path.parent if source is None else source, "revision": revision, "file": path.name}
    if not path.is_file():
        raise CheckpointError(
            "no such file", **place, remedy="check the name, or save or download the checkpoint again"
        )
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"not a readable safetensors file, corrupt or truncated ({error})",
            **place,
            remedy="save or download it again",
        ) from error


def _storable(name: str, tensor: Tensor, dtype: torch.dtype | None, file: str) -> Tensor:
    """A dense CPU tensor that owns its memory, floats cast to `dtype`."""
    plain = tensor.detach().to("cpu")
    if dtype is not None and plain.is_floating_point():
        cast = plain.to(dtype)
        if bool((cast.isinf() & ~plain.isinf()).any()):
            raise CheckpointError(
                f"tensor {name} has values up to {plain.abs().max().item():.3g}, too large for {dtype}",
                file=file,
                remedy="store the weights as float32",
            )
        plain = cast
    owns_all = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size()
    return plain.contiguous() if owns_all else plain.contiguous().clone()


def _misfits(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], stored_name: Callable[[str], str]
) -> list[str]:
    """What keeps `tensors` from filling `expected`, a phrase a kind, [] when they fit."""
    missing = [stored_name(name) for name in expected if name not in tensors]
    unexpected = [stored_name(name) for name in tensors if name not in expected]
    shared = [(stored_name(name), expected[name], tensors[name]) for name in expected if name in tensors]
    shapes = [
        f"{name} is {tuple(stored.shape)}, expected {tuple(want.shape)}"
        for name, want, stored in shared
        if stored.shape != want.shape
    ]
    kinds = [
        f"{name} is {stored.dtype}, expected {want.dtype}"
        for name, want, stored in shared
        if stored.is_floating_point() != want.is_floating_point() or stored.is_complex() != want.is_complex()
    ]
    found = [("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes), ("wrong kind", kinds)]
    return [f"{title} ({len(names)}): {listed(names)}" for title, names in found if names]


def _fitted(stored: Tensor, want: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of `stored` in the dtype and on the device where the module keeps it."""
    device = stored.device if want.is_meta else want.device
    return stored.to(device, dtype if stored.is_floating_point() else want.dtype, copy=True)


def _tied_names(module: nn.Module) -> list[tuple[str, str]]:
    """(first name, other name) of every parameter that the module holds under several names."""
    first_name: dict[int, str] = {}
    ties: list[tuple[str, str]] = []
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in first_name:
            ties.append((first_name[id(parameter)], name))
        else:
            first_name[id(parameter)] = name
    return ties
