"""The server: what goes in comes out as in Python, and what is wrong is the client's error, and his alone."""

import base64
import concurrent.futures
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import tokenzoo
from tokenzoo.image.image_files import ImageFiles
from tokenzoo.zoo import serve
from tokenzoo.zoo.cli import main
from tokenzoo.zoo.serve import DecodeApi, EncodeApi, Refusal

from .toys import build_toy

START_SECONDS = 120  # of three processes that import torch, on a machine that does other things too


def through(api: Any, *requests: Any) -> list[Any]:
    """What LitServe's batching loop does with an API."""
    outputs = api.unbatch(api.predict(api.batch([api.decode_request(each) for each in requests])))
    return [api.encode_response(output) for output in outputs]


def api_of(kind: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(serve, "load", lambda name, revision, device: tokenizer)
    api = kind("any", revision=None, path="/any", max_batch_size=8, batch_timeout=0.01)
    api.setup("cpu")
    return api


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def message_of(response: Any) -> str:
    assert response.status_code == 400
    return json.loads(response.body)["detail"]


def test_a_sound_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = build_toy("toy-codec")
    files = []
    for samples in (40, 22):
        stored = io.BytesIO()
        soundfile.write(stored, np.linspace(-0.5, 0.5, samples), 16000, format="WAV")
        files.append({"file": base64_of(stored.getvalue())})
    encoded = through(api_of(EncodeApi, codec, monkeypatch), *files)
    assert [len(each["ids"]) for each in encoded] == [10, 6] and encoded[1]["extent"] == [22]
    again = [{"ids": each["ids"], "extent": each["extent"]} for each in encoded]
    again.append({"ids": [ids[:2] for ids in encoded[0]["ids"]]})
    decoded = through(api_of(DecodeApi, codec, monkeypatch), *again)
    for answer, request in zip(decoded, again, strict=True):
        sound, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(answer["file"])))
        tokens = codec.stamp([request["ids"]], extents=[request.get("extent", [40])])
        expected = codec.decode(tokens)[0, 0].clamp(-1, 1)
        assert rate_hz == 16000
        torch.testing.assert_close(torch.from_numpy(sound).float(), expected, atol=1e-4, rtol=0)


def test_a_text_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    text = tokenzoo.load("bytes")
    (encoded,) = through(api_of(EncodeApi, text, monkeypatch), {"text": "naïve 東京"})
    assert bytes(encoded["ids"]).decode() == "naïve 東京"
    (decoded,) = through(api_of(DecodeApi, text, monkeypatch), {"ids": encoded["ids"]})
    assert decoded == {"text": "naïve 東京"}


def test_lengths_asked_for_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    text = tokenzoo.load("pyramid-128")
    photo = base64_of(ImageFiles().samples()[0].read_bytes())
    requests = [{"file": photo, "keep": keep} for keep in (4, 8, None)]
    encoded = through(api_of(EncodeApi, text, monkeypatch), *requests)
    assert [len(each["ids"]) for each in encoded] == [4, 8, 376]
    assert encoded[0]["ids"] == encoded[2]["ids"][:4]


def test_one_that_fails_late_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    api = api_of(EncodeApi, build_toy("toy-grid"), monkeypatch)

    def picture(side: int) -> dict[str, str]:
        stored = io.BytesIO()
        Image.new("RGB", (side, side), (255, 255, 255)).save(stored, "PNG")
        return {"file": base64_of(stored.getvalue())}

    good, bad, other = through(api, picture(8), picture(7), picture(4))
    assert good["ids"] == [15] * 4 and other["ids"] == [15]
    assert message_of(bad) == "extent (7, 7): toy-grid takes multiples of 4"


def test_a_defect_of_ours_is_not_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    api = api_of(DecodeApi, build_toy("toy-grid"), monkeypatch)
    monkeypatch.setattr(api.tokenizer, "decode", lambda tokens: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        through(api, {"ids": [1]})


def test_no_ids_are_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    api = api_of(DecodeApi, build_toy("toy-codec"), monkeypatch)
    empty, sound = through(api, {"ids": []}, {"ids": [[1, 2, 3]]})
    files = [io.BytesIO(base64.b64decode(each["file"])) for each in (empty, sound)]
    assert [soundfile.info(file).frames for file in files] == [0, 4]


def test_what_torch_refuses_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    api = api_of(DecodeApi, build_toy("toy-codec"), monkeypatch)
    decode = api.tokenizer.decode

    def failing(tokens: Any) -> Any:
        if int(tokens.lengths.max()) > 1:
            raise RuntimeError("out of memory")
        return decode(tokens)

    monkeypatch.setattr(api.tokenizer, "decode", failing)
    good, bad = through(api, {"ids": [[1, 2, 3]]}, {"ids": [[1, 2, 3]] * 2})
    assert "file" in good and bad.status_code == 500


def test_long_sounds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MAX_REQUEST_SECONDS", 0.001)
    stored, codec = io.BytesIO(), build_toy("toy-codec")
    soundfile.write(stored, np.zeros(40), 16000, format="WAV")
    (encoded,) = through(api_of(EncodeApi, codec, monkeypatch), {"file": base64_of(stored.getvalue())})
    (decoded,) = through(api_of(DecodeApi, codec, monkeypatch), {"ids": [[1, 2, 3]] * 10})
    assert all("seconds of sound: expected at most 0.001" in message_of(each) for each in (encoded, decoded))


@pytest.mark.parametrize(
    ("kind", "request_", "message"),
    [
        (EncodeApi, {}, "the request lacks file"),
        (EncodeApi, [1], "the request is a list: expected a JSON object"),
        (EncodeApi, {"file": "", "kep": 1}, "the request has kep: known are file, keep"),
        (EncodeApi, {"file": "zz"}, "file is not base64"),
        (EncodeApi, {"file": 3}, "text is a int: expected a string"),
        (EncodeApi, {"file": base64_of(b"hello")}, "file: not a picture of a known format"),
        (EncodeApi, {"file": "", "keep": 0}, "keep=0: expected an integer of at least 1"),
        (DecodeApi, {"ids": [99]}, "id 99 at (0, 0): toy-grid takes 0 ... 15 there"),
        (DecodeApi, {"ids": "abc"}, "expected numbers"),
        (DecodeApi, {"ids": None}, "expected numbers"),
        (DecodeApi, {"ids": [1, 2], "extent": [4, 4]}, "2 tokens for an extent of 4 x 4"),
    ],
)
def test_bad_input_is_told_why(
    kind: Any, request_: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = api_of(kind, build_toy("toy-grid"), monkeypatch)
    assert isinstance(api.decode_request(request_), Refusal)
    (response,) = through(api, request_)
    assert message in message_of(response)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`tokenzoo serve pyramid-128` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tokenzoo.zoo.cli", "serve", "pyramid-128", "--port", str(port)]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=log.parent, start_new_session=True
        )
        try:
            _await(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            for _ in range(2):  # the second must not break off what the first began
                process.terminate()
                time.sleep(0.1)
            try:
                process.wait(20)
                assert _ends(process.pid), "a plain kill leaves workers"
            finally:
                if not _ends(process.pid, seconds=0):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _ends(group: int, seconds: float = 10) -> bool:
    """Whether every process of the group is gone by then."""
    end = time.monotonic() + seconds
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)


def _await(url: str, process: subprocess.Popen, log: Path) -> None:
    """Until every worker has loaded its tokenizer."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"no server after {START_SECONDS} s: {log.read_text()}")


def post(url: str, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_over_http(address: str) -> None:
    photo = ImageFiles().samples()[0]
    file = base64_of(photo.read_bytes())
    tokenizer = tokenzoo.load("pyramid-128")
    expected = tokenizer.encode([tokenizer.preprocess(photo)], keep=8)

    # All at once, so that they share batches: the bad one is refused by itself.
    bodies = [{"file": file, "keep": 8}, {"file": "zz"}, {"file": file, "keep": 8}, {"file": file, "keep": 4}]
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: post(f"{address}/encode", body), bodies))
    assert [status for status, _ in answers] == [200, 400, 200, 200]
    assert (
        answers[0][1]
        == answers[2][1]
        == {
            "ids": expected.ids[0].tolist(),
            "extent": [128, 128],
            "tokenizer": "pyramid-128",
            "fingerprint": tokenizer.facts.fingerprint,
        }
    )
    assert answers[1][1]["detail"].startswith("file is not base64")

    status, decoded = post(f"{address}/decode", {"ids": answers[0][1]["ids"]})
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(decoded["file"]))))
    whole = (tokenizer.decode(expected)[0] * 255).permute(1, 2, 0).numpy()
    assert status == 200 and np.abs(pixels - whole).max() <= 1

    assert post(f"{address}/decode", {"ids": [70000]})[0] == 400
    form = "application/x-www-form-urlencoded"  # what curl and urllib say unless told
    assert post(f"{address}/encode", bodies[0], form) == answers[0]
    status, told = post(f"{address}/encode", b"{")
    assert status == 400 and told["detail"].startswith("the request is no JSON")


def test_a_port_that_is_taken_is_said_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "bytes", "--host", "127.0.0.1", "--port", str(port)]) == 1
    assert f"cannot listen on port {port} of 127.0.0.1" in capsys.readouterr().err
