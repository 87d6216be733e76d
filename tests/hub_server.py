"""A stand-in for the Hugging Face Hub, enough of it for the real client: repositories of commits, in memory.

It follows what huggingface_hub 2.4 was seen to ask for with xet off. It does not prove authentication,
server-side checks of the card, xet, or rate limits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass
class Repository:
    """Every commit's files by sha, oldest first, and the sha each branch stands at."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    is_gated: bool = False

    def sha_of(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        sha = hashlib.sha1(f"{id(self)} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha


class HubServer:
    """Runs on a free port of 127.0.0.1 while it is used as a context manager.

    requests   what clients asked, as (method, path)
    on_answer  called after each answer with (method, path): a test can push between two requests
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.on_answer: Callable[[str, str], None] | None = None
        self.blobs: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def commit(self, repo: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit that changes these files of a repository, made if need be; its sha."""
        repository = self.repositories.setdefault(repo, Repository())
        return repository.commit({**self.files(repo, branch), **files}, branch)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What a commit holds, {} before the first."""
        repository = self.repositories[repo]
        return repository.commits.get(repository.sha_of(revision) or "", {})

    def asked(self, method: str, part: str) -> int:
        """How many requests of this method had `part` in their path."""
        return sum(seen == method and part in path for seen, path in self.requests)


class _Refusal(Exception):
    """An error answer: status and the Hub's error code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


def _handler_of(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        state = hub

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HubServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the tests read `HubServer.requests` instead."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, path))
        try:
            body = self._read_body()
            for method, pattern, respond in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    respond(self, body, *match.groups())
                    break
            else:
                raise _Refusal(404, "RepoNotFound")
        except _Refusal as refusal:
            self._send(refusal.status, b"", {"X-Error-Code": refusal.code, "X-Error-Message": refusal.code})
        if self.state.on_answer is not None:
            self.state.on_answer(self.command, path)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _repository(self, repo: str) -> Repository:
        if repo not in self.state.repositories:
            raise _Refusal(404, "RepoNotFound")
        return self.state.repositories[repo]

    def _sha(self, repo: str, revision: str) -> str:
        sha = self._repository(repo).sha_of(revision)
        if sha is None:
            raise _Refusal(404, "RevisionNotFound")
        return sha

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        exists = repo in self.state.repositories
        repository = self.state.repositories.setdefault(repo, Repository())
        if not exists:
            repository.commit({})
        self._send_json({"url": f"{self.state.endpoint}/{repo}"}, 409 if exists else 200)

    def validate_card(self, body: bytes) -> None:
        self._send_json({"warnings": [], "errors": []})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        present = self._repository(repo).commits[self._sha(repo, revision)]
        answer = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            oid = _oid(path, present[path]) if path in present else None
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": answer})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        self._repository(repo)
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.state.blobs:
                answer["actions"] = {
                    "upload": {"href": f"{self.state.endpoint}/_lfs/{wanted['oid']}", "header": {}}
                }
            objects.append(answer)
        self._send_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refusal(400, "BadDigest")
        self.state.blobs[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        files = dict(self._repository(repo).commits[self._sha(repo, revision)])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.state.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        sha = self._repository(repo).commit(files, revision)
        self._send_json(
            {"success": True, "commitOid": sha, "commitUrl": f"{self.state.endpoint}/{repo}/commit/{sha}"}
        )

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        sha = self._sha(repo, revision)
        siblings = [{"rfilename": path} for path in self._repository(repo).commits[sha]]
        self._send_json(
            {"id": repo, "sha": sha, "siblings": siblings, "private": False, "gated": False, "tags": []}
        )

    def tree(self, body: bytes, repo: str, revision: str) -> None:
        entries = []
        for path, content in self._repository(repo).commits[self._sha(repo, revision)].items():
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": _git_oid(content),
            }
            if path.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"oid": _oid(path, content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self._send_json(entries)

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        if self._repository(repo).is_gated:
            raise _Refusal(403, "GatedRepo")
        sha = self._sha(repo, revision)
        content = self._repository(repo).commits[sha].get(path)
        if content is None:
            headers = {
                "X-Error-Code": "EntryNotFound",
                "X-Error-Message": "EntryNotFound",
                "X-Repo-Commit": sha,
            }
            return self._send(404, b"", headers)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(path, content)}"', "Accept-Ranges": "bytes"}
        if path.endswith(LFS_SUFFIXES):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(200, content, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], headers)


_Respond = Callable[..., None]
_NAME = r"([^/]+/[^/]+)"
_ROUTES: tuple[tuple[tuple[str, ...], str, _Respond], ...] = (
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate_card),
    (("POST",), rf"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), "/_lfs/([0-9a-f]{64})", _Handler.lfs_put),
    (("POST",), rf"/api/models/{_NAME}/commit/(.+)", _Handler.commit),
    (("GET",), rf"/api/models/{_NAME}/revision/(.+)", _Handler.info),
    (("GET",), rf"/api/models/{_NAME}/tree/(.+)", _Handler.tree),
    (("GET",), rf"/api/models/{_NAME}", _Handler.info),
    (("GET", "HEAD"), rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
)


def _oid(path: str, content: bytes) -> str:
    """What the Hub calls this content: sha256 of a large file, git's blob id of a small one."""
    return hashlib.sha256(content).hexdigest() if path.endswith(LFS_SUFFIXES) else _git_oid(content)


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
