"""Checkpoints on the Hugging Face Hub, by its client alone: resolve once, fetch at that sha, push.

The client is imported inside the functions. HF_ENDPOINT is read at each call; the client's other settings
(HF_HOME, HF_HUB_OFFLINE, HF_TOKEN) are its own.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from .card import name_repo, pinned_revision
from .error import CheckpointError
from .files import CARD_FILE, CONFIG_FILE, Checkpoint, missing_weights, read_config, read_folder
from .onnx import Onnx
from .pickles import PICKLE_SUFFIXES, Pickle
from .weights import WEIGHTS_FILE, read_metadata

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DEFAULT_REVISION = "main"
RESOLVE_TIMEOUT_SECONDS = 20.0
# A folder may hold anything, so a push takes what belongs to a checkpoint and nothing else.
_TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
_GALLERY = ("*.png", "*.jpg", "*.wav", "*.flac")
PUSHED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, *_TEXT_FILES, "LICENSE*", "measured.json", *_GALLERY)
_GO_ONLINE = "load it once online, or unset HF_HUB_OFFLINE and local_files_only"
_SHA = re.compile("[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[\w][\w./+-]*", re.ASCII)


@dataclass(frozen=True)
class HubId:
    """A repository "owner/name" and the branch, tag or sha asked for, None for its main branch."""

    repo: str
    revision: str | None = None


def parse_id(text: str, revision: str | None = None) -> HubId:
    """Read "owner/name" or "owner/name@revision"; a revision in both places must be the same one."""
    repo, at, inline = text.partition("@")
    if revision is not None and at and inline != revision:
        raise CheckpointError(
            f"two revisions, {inline!r} and {revision!r}",
            source=repo,
            remedy="give it once, after @ or as revision=",
        )
    wanted = inline if at else revision
    if not _REPO.fullmatch(repo) or len(repo) > 96:
        raise CheckpointError("not a Hub id", source=text, remedy="write owner/name, or owner/name@revision")
    if wanted is not None and not _REVISION.fullmatch(wanted):
        raise CheckpointError(
            f"not a revision: {wanted!r}", source=repo, remedy="give a branch, a tag or a commit sha"
        )
    return HubId(repo, wanted)


def resolve(
    repo: str, revision: str | None = None, *, token: str | None = None, local_files_only: bool = False
) -> str:
    """The sha of a branch or tag (by default main); a sha is returned as it is, without a request.

    Offline, and with a warning when the Hub cannot be reached, it is the sha that the cache last saw there.
    """
    wanted = revision or DEFAULT_REVISION
    if _SHA.fullmatch(wanted):
        return wanted
    reference = _reference_file(repo, wanted)
    cached = reference.read_text().strip() if reference.is_file() else None
    if cached is not None and (local_files_only or _is_offline()):
        return cached
    if local_files_only:
        reason = "not in the cache, and the Hub may not be asked"
        raise CheckpointError(reason, source=repo, revision=wanted, remedy=_GO_ONLINE)
    try:
        with _translated(repo, wanted, None):
            sha = _api(token).model_info(repo, revision=wanted, timeout=RESOLVE_TIMEOUT_SECONDS).sha
    except HubUnreachable as error:
        if cached is None:
            raise
        warnings.warn(f"{error}; using the copy cached at {cached}", stacklevel=2)
        return cached
    if sha is None or not _SHA.fullmatch(sha):
        raise CheckpointError(
            f"the Hub answered with no commit ({sha!r})",
            source=repo,
            revision=wanted,
            remedy="is HF_ENDPOINT a Hub?",
        )
    _remember(reference, sha)
    return sha


def fetch(
    repo: str, sha: str, files: Sequence[str], *, token: str | None = None, local_files_only: bool = False
) -> list[Path]:
    """The paths of files at one commit, in order: downloaded, or found in the cache without a request."""
    paths: list[Path] = []
    for file in files:
        with _translated(repo, sha, file):
            paths.append(
                Path(_api(token).hf_hub_download(repo, file, revision=sha, local_files_only=local_files_only))
            )
    return paths


def fetch_folder(
    repo: str, revision: str | None = None, *, token: str | None = None, local_files_only: bool = False
) -> Path:
    """The folder with all of a repository at one commit, but for pickles and code."""
    given = parse_id(repo, revision)
    sha = resolve(given.repo, given.revision, token=token, local_files_only=local_files_only)
    refused = [f"*{suffix}" for suffix in (*PICKLE_SUFFIXES, ".py")]
    with _translated(given.repo, sha, None):
        folder = _api(token).snapshot_download(
            given.repo, revision=sha, ignore_patterns=refused, local_files_only=local_files_only
        )
    return Path(folder)


def read_repo(
    repo: str,
    revision: str | None = None,
    *,
    config_file: str | None = CONFIG_FILE,
    weights: str | Pickle | Onnx = WEIGHTS_FILE,
    extra_files: Sequence[str] = (),
    token: str | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Everything in a repository that a tokenizer needs, all of it at one commit.

    Config first, so that a repository that is no checkpoint fails before gigabytes are fetched. The arguments
    are those of `read_folder`; extra_files are fetched into `Checkpoint.folder` too.
    """
    sha = resolve(repo, revision, token=token, local_files_only=local_files_only)
    weights_file = weights if isinstance(weights, str) else weights.file
    first = [] if config_file is None else [config_file]
    paths = fetch(repo, sha, [*first, *extra_files], token=token, local_files_only=local_files_only)
    if config_file is not None:
        read_config(paths[0], source=repo, revision=sha)
    try:
        paths += fetch(repo, sha, [weights_file], token=token, local_files_only=local_files_only)
    except FileNotInRepo as error:
        present = _listing(repo, sha, token)
        raise missing_weights(weights_file, present, source=repo, revision=sha) from error.__cause__
    depth = weights_file.count("/")
    folder = paths[-1].parents[depth]
    return read_folder(folder, source=repo, revision=sha, config_file=config_file, weights=weights)


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a checkpoint folder; the sha of the commit that holds it all. Nothing new makes no commit.

    private   used only when the repository is created, which happens if need be

    Two commits: a card that names the commit of the weights cannot be part of it, and follows. Only files
    that belong to a checkpoint go.
    """
    if parse_id(repo).revision is not None:
        raise CheckpointError("a push goes to the main branch", source=repo, remedy="leave @revision out")
    path = Path(folder).expanduser()
    config = read_config(path / CONFIG_FILE)
    read_metadata(path / WEIGHTS_FILE)
    contents: dict[str, Path | bytes] = {
        entry.name: entry
        for entry in sorted(path.iterdir())
        if entry.is_file() and any(fnmatch(entry.name, pattern) for pattern in PUSHED_FILES)
    }
    card = contents.pop(CARD_FILE, None)
    subject = message or f"Upload {config.get('tokenizer_type', 'tokenizer')} with tokenzoo"
    with _translated(repo, None, None):
        api = _api(token)
        api.create_repo(repo, private=private, exist_ok=True)
        before = api.model_info(repo).sha
        sha = _commit(api, repo, contents, subject)
        if not isinstance(card, Path):
            return sha
        told = card.read_text(encoding="utf-8")
        if sha == before:  # nothing new but perhaps the card: what it names still stands
            named = _named_by(api, repo, sha)
            if named is not None and name_repo(told, repo, named[0]) == named[1]:
                return sha
        card_of = {CARD_FILE: name_repo(told, repo, sha).encode()}
        return _commit(api, repo, card_of, f"Card of {sha[:8]}")


def _commit(api: HfApi, repo: str, contents: Mapping[str, Path | bytes], subject: str) -> str:
    """The sha of the one commit that holds these files, which may be there already."""
    from huggingface_hub import CommitOperationAdd

    # Not upload_folder, which may spread the files over several commits.
    added = [CommitOperationAdd(name, content) for name, content in contents.items()]
    return api.create_commit(repo, added, commit_message=subject).oid


def _named_by(api: HfApi, repo: str, sha: str) -> tuple[str, str] | None:
    """The commit that the card of a commit names, and the card; None without."""
    from huggingface_hub import errors

    try:
        card = Path(api.hf_hub_download(repo, CARD_FILE, revision=sha)).read_text(encoding="utf-8")
    except errors.EntryNotFoundError:
        return None
    named = pinned_revision(card, repo)
    return None if named is None else (named, card)


class HubUnreachable(CheckpointError):
    """The Hub did not answer, as opposed to answering no."""


class FileNotInRepo(CheckpointError):
    """The commit exists and holds no such file."""


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return HfApi(endpoint=endpoint or None, token=token, library_name="tokenzoo")


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _listing(repo: str, sha: str, token: str | None) -> list[str]:
    with _translated(repo, sha, None):
        return _api(token).list_repo_files(repo, revision=sha)


def _reference_file(repo: str, revision: str) -> Path:
    """Where the Hub's cache notes the sha of a branch, as its documentation of the cache layout says."""
    from huggingface_hub import constants

    parse_id(repo, revision)
    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "refs", revision)


def _remember(reference: Path, sha: str) -> None:
    """Note the sha for offline use; a cache that cannot be written only loses that."""
    try:
        reference.parent.mkdir(parents=True, exist_ok=True)
        partial = reference.with_name(f"{reference.name}.{os.getpid()}.partial")
        partial.write_text(sha)
        partial.replace(reference)
    except OSError as error:
        warnings.warn(
            f"cannot note {sha} in {reference} ({error}): it will not be found offline", stacklevel=3
        )


@contextmanager
def _translated(repo: str, revision: str | None, file: str | None) -> Iterator[None]:
    """Whatever the client raises becomes one CheckpointError that says where and what to do."""
    from huggingface_hub import errors

    # An error of httpx or httpx2, as the client's version has it.
    transport_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except CheckpointError:
        raise
    except (transport_error, errors.EntryNotFoundError, OSError, ValueError, RuntimeError) as error:
        raise _explained(error, repo, revision, file) from error


def _explained(error: BaseException, repo: str, revision: str | None, file: str | None) -> CheckpointError:
    """The same error, with the reason and the remedy in words."""
    from huggingface_hub import errors

    def told(reason: str, remedy: str, kind: type[CheckpointError] = CheckpointError) -> CheckpointError:
        return kind(reason, source=repo, revision=revision, file=file, remedy=remedy)

    endpoint = _api(None).endpoint
    page = f"{endpoint}/{repo}"
    text = " ".join(str(error).split())
    if isinstance(error, errors.OfflineModeIsEnabled) or (
        isinstance(error, errors.LocalEntryNotFoundError) and (_is_offline() or not error.__cause__)
    ):
        return told("not in the cache, and the Hub may not be asked", _GO_ONLINE)
    if isinstance(error, errors.GatedRepoError):
        return told("access must be granted first", f"accept its terms at {page}, then run `hf auth login`")
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = f"look for {page}; for a private one run `hf auth login` or set HF_TOKEN"
        return told("no such repository, or it is private", remedy)
    if isinstance(error, errors.RevisionNotFoundError):
        return told("no such revision", f"see its branches and commits at {page}/commits/main")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return told("no such file in the repository", f"see its files at {page}/tree/main", FileNotInRepo)
    if isinstance(error, errors.LocalTokenNotFoundError):
        return told("the Hub wants to know who you are", "run `hf auth login` or set HF_TOKEN")
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return told(f"the Hub refused ({text})", "check that your token may do this")
    if isinstance(error, ValueError):
        return told(f"the Hub's client refused ({text})", "check the name and the files")
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return told(f"could not be kept on this disk ({text})", "free some space, or set HF_HOME elsewhere")
    cause = error.__cause__ or error
    reason = f"the Hub at {endpoint} did not deliver ({type(cause).__name__}: {' '.join(str(cause).split())})"
    return told(reason, "check the connection and HF_ENDPOINT, then try again", HubUnreachable)
