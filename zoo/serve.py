"""A tokenizer behind HTTP, by LitServe: POST /encode and POST /decode, requests batched as they come.

`tokenzoo serve NAME --port 8000`. What a client sends wrong comes back as a 400 with the message that Python
would have shown, to that client alone: LitServe would answer 500, or fail the whole batch.
"""

from __future__ import annotations

import base64
import binascii
import signal
import socket
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .facts import Facts
from .loading import load
from .media import medium
from .optional import require
from .tokenizer import Tokenizer

_litserve = require("litserve", "serve")
_fastapi = require("fastapi", "serve")
_responses = require("fastapi.responses", "serve")
LitAPI = _litserve.LitAPI

# What an input that is no good may raise; a defect of ours is not among them, and stays a 500.
_BAD_INPUT = (ValueError, TypeError, OSError, EOFError, NotImplementedError)
# An image of 4000 x 4000 pixels as JPEG has some 8 MB.
MAX_REQUEST_BYTES = 32 * 2**20
# Of sound, in or out: hours of silence are a small file, and a short list of ids.
MAX_REQUEST_SECONDS = 600


@dataclass(frozen=True)
class Refusal:
    """Takes the place of an item in its batch. status: of HTTP; 500 where the client need not be at fault."""

    message: str
    status: int = 400


class _TokenizerApi(LitAPI):
    """What both endpoints share; a worker of each loads the tokenizer by itself."""

    tokenizer: Tokenizer

    def __init__(
        self, name: str, *, revision: str | None, path: str, max_batch_size: int, batch_timeout: float
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout, api_path=path)
        self.name, self.revision = name, revision

    def setup(self, device: str) -> None:
        self.tokenizer = load(self.name, revision=self.revision, device=device)

    # No annotations on these two: LitServe hands them to FastAPI, which would check bodies against them.
    def decode_request(self, request):
        """An item, or why it is none."""
        try:
            if not isinstance(request, dict):
                raise ValueError(f"the request is a {type(request).__name__}: expected a JSON object")
            return self.item(request)
        except _BAD_INPUT as error:
            return Refusal(str(error))

    def predict(self, batch: Any) -> Any:
        """Results and refusals in the order of the requests; a single request comes without a list."""
        items = batch if isinstance(batch, list) else [batch]
        good = [index for index, item in enumerate(items) if not isinstance(item, Refusal)]
        results = list(items)
        for index, result in zip(good, self._run_each([items[index] for index in good]), strict=True):
            results[index] = result
        return results if isinstance(batch, list) else results[0]

    def _run_each(self, items: list[Any]) -> Sequence[Any]:
        """All at once; one by one when that fails, so that one item does not spoil the others."""
        try:
            return self.run(items) if items else []
        except _BAD_INPUT as error:
            if len(items) == 1:
                return [Refusal(str(error))]
        except RuntimeError as error:  # of torch, e.g. for want of memory; what stays is the server's log
            if len(items) == 1:
                traceback.print_exc()
                return [Refusal(str(error), status=500)]
        return [result for item in items for result in self._run_each([item])]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output):
        if isinstance(output, Refusal):
            # Returned, not raised: LitServe hands an exception to every request of the batch.
            return _refuse(output.message, output.status)
        return self.answer(output)

    def item(self, request: dict[str, Any]) -> Any:
        raise NotImplementedError

    def run(self, items: list[Any]) -> Sequence[Any]:
        raise NotImplementedError

    def answer(self, result: Any) -> dict[str, Any]:
        raise NotImplementedError


class EncodeApi(_TokenizerApi):
    """{"file": base64 of a picture or sound} or {"text": "..."} -> {"ids", "extent", "tokenizer", ...}."""

    def item(self, request: dict[str, Any]) -> Any:
        facts = self.tokenizer.facts
        _check_keys(request, {"text"} if facts.modality == "text" else {"file"}, {"keep"})
        keep = request.get("keep")
        if keep is not None:
            keep = facts.check_keep(keep)
        if facts.modality == "text":
            return self.tokenizer.preprocess(_text(request["text"])), keep
        content = _bytes(request["file"])
        item = _through_file(
            content, lambda path: self.tokenizer.preprocess(medium(facts.modality).read(path))
        )
        _check_seconds(item.shape[-1], facts)
        return item, keep

    def run(self, items: list[Any]) -> Sequence[Any]:
        if len({keep for _, keep in items}) > 1:
            return [result for item in items for result in self.run([item])]
        return self.tokenizer.encode([item for item, _ in items], keep=items[0][1]).unbind()

    def answer(self, result: Any) -> dict[str, Any]:
        return {
            _key_of(self.tokenizer): result.values[0].tolist(),
            "extent": result.extents[0].tolist(),
            "tokenizer": result.facts.name,
            "fingerprint": result.facts.fingerprint,
        }


class DecodeApi(_TokenizerApi):
    """{"ids" (or "values"): [...], "extent": [...] (optional)} -> {"file": base64 of PNG or WAV} or text."""

    def item(self, request: dict[str, Any]) -> Any:
        key, extent = _key_of(self.tokenizer), request.get("extent")
        _check_keys(request, {key}, {"extent", "tokenizer", "fingerprint"})
        facts = self.tokenizer.facts
        if request.get("fingerprint", facts.fingerprint) != facts.fingerprint:
            raise ValueError(f"these ids were made by other weights than this server's {facts.name}")
        tokens = self.tokenizer.stamp([request[key]], extents=None if extent is None else [extent])
        _check_seconds(int(tokens.extents.max()), self.tokenizer.facts)
        return tokens

    def run(self, items: list[Any]) -> Sequence[Any]:
        if len({tuple(tokens.values.shape[2:]) for tokens in items}) > 1:
            return [result for item in items for result in self.run([item])]
        tokens = type(items[0]).cat(items)
        signal = self.tokenizer.decode(tokens)
        return signal if isinstance(signal, list) else list(tokens.crop(signal))

    def answer(self, result: Any) -> dict[str, Any]:
        facts = self.tokenizer.facts
        if facts.modality == "text":
            return {"text": result if isinstance(result, str) else result.decode(errors="replace")}
        files = medium(facts.modality)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "item").with_suffix(files.output_suffix)
            files.write(result.cpu(), path, facts)
            return {"file": base64.b64encode(path.read_bytes()).decode()}


def server(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    max_batch_size: int = 8,
    batch_timeout: float = 0.01,
) -> Any:
    """A `litserve.LitServer` of both endpoints; `run(port=)` blocks.

    max_batch_size, batch_timeout  a batch goes when it is full, or so many seconds after its first request
    """
    shared = {"revision": revision, "max_batch_size": max_batch_size, "batch_timeout": batch_timeout}
    apis = [EncodeApi(name, path="/encode", **shared), DecodeApi(name, path="/decode", **shared)]
    # LitServe takes cpu, cuda or mps apart from the index of the device.
    kind, _, index = device.partition(":")
    made = _litserve.LitServer(apis, accelerator=kind, devices=[int(index)] if index else 1)
    made.app.middleware("http")(_refuse_early)
    return made


async def _refuse_early(request: Any, following: Callable[[Any], Any]) -> Any:
    """A body that is no JSON object or too long, which LitServe would answer with 500."""
    if request.method == "POST":
        size = request.headers.get("content-length", "")
        if not size.isdecimal() or int(size) > MAX_REQUEST_BYTES:
            return _refuse(f"a body of {size or 'unstated'} bytes: expected at most {MAX_REQUEST_BYTES}")
        try:
            await request.json()
        except (ValueError, RecursionError) as error:
            return _refuse(f"the request is no JSON ({error})")
        # It is JSON, whatever the client calls it; LitServe goes by the name.
        others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
        request.scope["headers"] = [*others, (b"content-type", b"application/json")]
    return await following(request)


def serve(options: Namespace) -> int:
    """`tokenzoo serve`. A plain `kill` ends it as Ctrl-C does, workers included."""
    _check_free(options.host, options.port)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _stop)
    server(
        options.name,
        revision=options.revision,
        device=options.device,
        max_batch_size=options.batch_size,
    ).run(host=options.host, port=options.port, generate_client_file=False)
    return 0


def _stop(*_: object) -> None:
    """Ends the server once: a second signal would break off the end of its workers."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _check_free(host: str, port: int) -> None:
    """OSError where somebody else listens, before any worker starts."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(f"cannot listen on port {port} of {host} ({error}): give another --port") from error


def _refuse(message: str, status: int = 400) -> Any:
    return _responses.JSONResponse({"detail": message}, status_code=status)


def _key_of(tokenizer: Tokenizer) -> str:
    return "ids" if tokenizer.facts.is_discrete else "values"


def _check_keys(request: dict[str, Any], needed: set[str], allowed: set[str]) -> None:
    if missing := needed - set(request):
        raise ValueError(f"the request lacks {', '.join(sorted(missing))}")
    if unknown := set(request) - needed - allowed:
        raise ValueError(
            f"the request has {', '.join(sorted(unknown))}: known are {', '.join(sorted(needed | allowed))}"
        )


def _check_seconds(samples: int, facts: Facts) -> None:
    """ValueError for too long a sound; other media have no seconds."""
    if facts.modality == "audio" and facts.sample_rate_hz:
        seconds = samples / facts.sample_rate_hz
        if seconds > MAX_REQUEST_SECONDS:
            raise ValueError(
                f"{seconds:.0f} seconds of sound: expected at most {MAX_REQUEST_SECONDS}; send it in parts"
            )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is a {type(value).__name__}: expected a string")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f"file is not base64 ({error})") from error


def _through_file(content: bytes, read: Callable[[Path], Any]) -> Any:
    """The readers of files take paths, and tell the format by the content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "request")
        path.write_bytes(content)
        try:
            return read(path)
        except _BAD_INPUT as error:
            raise ValueError(str(error).replace(str(path), "file")) from error
