"""The work behind the command line: many files through one tokenizer, the bad ones reported and skipped."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.error import CheckpointError
from . import catalogue, tokfile
from .keywords import parse_keywords
from .media import Medium, medium
from .report import Report, comparison_table, print_table
from .untrained import UNTRAINED

if TYPE_CHECKING:
    from .tokenizer import Tokenizer
    from .tokens import Tokens

DEFAULT_KEEPS = (8, 32, 128)
DEFAULT_CODEBOOKS = (2, 4, 8)
# What a bad file may raise; a defect of ours is not among them.
_BAD_INPUT = (ValueError, TypeError, OSError, EOFError, UnicodeDecodeError, MemoryError)


class UsageError(Exception):
    """The command itself is wrong: exit code 2."""


def describe(name: str, revision: str | None = None) -> dict[str, Any]:
    """What is known of a tokenizer (nothing is downloaded for a catalogue name) or of a `.tok` file."""
    path = Path(name)
    if path.suffix == ".tok" and not path.is_dir():
        record = tokfile.read_record(path)
        shape = {
            "items": len(record.lengths),
            "lengths": record.lengths.tolist(),
            "extents": record.extents.tolist(),
            "token_bytes": _token_bytes(record),
            "file_bytes": path.stat().st_size,
        }
        return {"file": name, **_described(record.facts), **_depth(record), **shape}
    row = catalogue.find(name)
    if row is not None:
        paper = None if row.paper is None else f"https://arxiv.org/abs/{row.paper}"
        source = None if row.repo or row.download else "in this package"
        extra = {"source": source, "repo": row.repo, "download": row.download}
        extra |= {"paper": paper, "notice": row.notice}
        return _described(row.facts) | {key: value for key, value in extra.items() if value}
    from .loading import load

    with _as_usage():
        tokenizer = load(name, revision=revision)
    return _described(tokenizer.facts) | getattr(tokenizer, "details", {})


def _depth(record: tokfile.TokRecord) -> dict[str, Any]:
    """How many codebooks are stored, which may be fewer than the tokenizer has, and their bit rate."""
    if not record.facts.is_discrete or record.values.ndim != 3:
        return {}
    depth = record.values.shape[-1]
    rate = record.facts.bitrate_bps(depth) if record.facts.nested == "codebooks" else None
    return {"codebooks": depth} | ({} if rate is None else {"kbps": round(rate / 1000, 4)})


def _token_bytes(record: tokfile.TokRecord) -> int:
    """What the packed tokens take, without header, lengths, extents and checksum."""
    count, last = int(record.lengths.sum()), record.values.shape[-1]
    if not record.facts.is_discrete:
        return 4 * last * count
    codebooks = last if record.values.ndim == 3 else 1
    return tokfile.payload_bytes(count, record.facts.codebook_sizes[:codebooks])


def _described(facts: Any) -> dict[str, Any]:
    described = facts.to_dict()
    if facts.is_discrete:
        described |= {"vocab_size": facts.vocab_size, "bits_per_token": round(facts.bits_per_token, 4)}
    if facts.bitrate_bps() is not None:
        described |= {"kbps": round(facts.bitrate_bps() / 1000, 4)}
    return described


def convert(options: Namespace) -> int:
    """A checkpoint of any known layout to a folder of ours; returns the exit code."""
    import torch

    from .loading import load, load_file, save

    path = Path(options.source)
    if path.is_file() and options.like is None:
        raise UsageError(f"{path} is a bare weights file: say which model it is with --like NAME")
    if options.like is not None and not path.is_file():
        raise UsageError(f"--like {options.like} goes with a weights file, and {path} is none")
    if options.like is not None:
        tokenizer = load_file(path, options.like)
    else:
        tokenizer = load(options.source, revision=options.revision)
    save(tokenizer, options.out, dtype=getattr(torch, options.dtype))
    print(f"{tokenizer.facts.name} written to {options.out}")
    return 0


def push(options: Namespace) -> int:
    """A folder to the Hub, with the figures that lie in it or are taken now; returns the exit code."""
    from ..checkpoints.card_measures import MEASURED_FILE
    from .loading import load
    from .measured import Measured

    tokenizer, earlier = load(options.folder), options.folder / MEASURED_FILE
    measured = None
    if options.measure is not None:
        from .evaluation import evaluate

        measured = evaluate(tokenizer, options.measure, limit=options.limit)
    elif earlier.is_file():
        measured = Measured.load(earlier)
    sha = tokenizer.push_to_hub(
        options.repo, private=options.private, message=options.message, measured=measured
    )
    print(f"{options.repo}@{sha}")
    return 0


def modality_of(name: str) -> str:
    """Of a tokenizer: without loading it where the catalogue knows."""
    row = catalogue.find(name)
    if row is not None:
        return row.facts.modality
    from .loading import load

    with _as_usage():
        return load(name).facts.modality


def encode_files(options: Namespace) -> int:
    """Every input to one `.tok` file; returns the exit code."""
    tokenizer = _load(options, options.tokenizer)
    files = medium(tokenizer.facts.modality)
    found = _find(files, options.inputs)
    if options.until is not None and (options.keep or options.kbps or options.set):
        raise UsageError("--until finds the length by itself: leave --keep, --kbps and --set out")
    shorten = passes = None
    if options.until is not None:
        shorten, passes = _shortener(options.until, tokenizer)
    with _as_usage():
        keep = _keep(options, tokenizer.facts)
        keywords = parse_keywords(tokenizer, "encode", options.set)
    outputs = _output_names([relative for _, relative in found], ".tok")
    _check_out(options.out)
    report = Report(options.json)

    def run(batch: list[tuple[int, Any]]) -> None:
        items = [item for _, item in batch]
        told: dict[str, Any] = keywords
        if isinstance(caption := keywords.get("captions"), str):  # one for all, on the command line
            told = keywords | {"captions": [caption] * len(items)}
        tokens = shorten(items) if shorten else tokenizer.encode(items, keep=keep, **told)
        for (index, item), single in zip(batch, tokens.unbind(), strict=True):
            target = options.out / outputs[index]
            if passes and not passes(single, item):
                count = int(single.lengths[0])
                print(f"{found[index][0]} misses {options.until} with all {count} tokens", file=sys.stderr)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                single.save(target)
                size = target.stat().st_size
            except OSError as error:  # a name too long, a folder that is not ours: the rest goes on
                report.failed(found[index][0], error)
            else:
                report.done(found[index][0], target, tokens=int(single.lengths[0]), bytes=size)

    _in_batches([path for path, _ in found], partial(_item, tokenizer, files), run, options, report)
    return report.finish("encoded")


def decode_files(options: Namespace) -> int:
    """Every `.tok` file back to a file of its medium; returns the exit code."""
    from .tokens import Tokens

    if options.restamp and options.tokenizer is None:
        raise UsageError("--restamp: say by which tokenizer with --tokenizer")
    found = find_tok(options.inputs)
    _check_out(options.out)
    report = Report(options.json)
    loaded: dict[tuple[str, str | None], Tokenizer] = {}
    if options.tokenizer is not None:  # one that does not load, and what it does not take, fails once
        loaded[options.tokenizer, None] = tokenizer = _load(options, options.tokenizer)
        with _as_usage():
            parse_keywords(tokenizer, "decode", options.set)
    taken: dict[Path, int] = {}
    for path, relative in _progress(found, "decode"):
        try:
            tokens = Tokens.load(path)
            tokenizer = _tokenizer_of(tokens, options, loaded)
            in_training = (options.tokenizer or options.untrained) and tokens.facts.fingerprint is None
            if in_training or options.restamp:
                if tokens.facts.name != tokenizer.facts.name:
                    print(
                        f"{path} was made by {tokens.facts.name}; {tokenizer.facts.name} decodes it as you "
                        "ask: what comes out may mean nothing",
                        file=sys.stderr,
                    )
                tokens = _restamped(tokenizer, tokens)
            if options.keep is not None:
                tokens = tokens.keep(options.keep)
            files = medium(tokenizer.facts.modality)
            keywords = parse_keywords(tokenizer, "decode", options.set)
            items = tokens.crop(tokenizer.decode(tokens, **keywords))
            for index, item in enumerate(items):
                name = (
                    relative.with_suffix("")
                    if len(items) == 1
                    else relative.with_name(f"{relative.stem}-{index}")
                )
                target = _fresh(options.out / f"{name}{files.output_suffix}", taken)
                if target.exists() and not options.overwrite:
                    raise ValueError(f"{target} is there already: give another --out, or --overwrite")
                target.parent.mkdir(parents=True, exist_ok=True)
                files.write(item, target, tokenizer.facts)
                report.done(path, target, tokens=int(tokens.lengths[index]))
        except _BAD_INPUT as error:
            report.failed(path, error)
    return report.finish("decoded")


def reconstruct_files(options: Namespace) -> int:
    """There and back at several lengths: a table on stdout, files in `--out`; returns the exit code."""
    tokenizer = _load(options, options.tokenizer)
    facts = tokenizer.facts
    files = medium(facts.modality)
    inputs = options.inputs or files.samples()
    if not inputs:
        raise UsageError(f"no files given, and no {facts.modality} samples ship with the package")
    keeps = _keeps(options.keep, facts)
    found = _find(files, inputs)
    _check_out(options.out)
    # All in one folder: x/y.jpg and x_y.jpg become two names, too.
    flat = [Path("_".join(relative.parts)) for _, relative in found]
    names = [str(name.with_suffix("")) for name in _output_names(flat, ".tok")]
    report = Report(options.json)
    kept_names: list[str] = []
    items: list[Any] = []
    for (path, _), name in zip(found, names, strict=True):
        try:
            items.append(_item(tokenizer, files, path))
            kept_names.append(name)
        except _BAD_INPUT as error:
            report.failed(path, error)
    if not items:
        return report.finish("reconstructed")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = files.compare(tokenizer, kept_names, items, keeps, options.out)
    if options.json:
        print(json.dumps([vars(row) for row in rows], indent=2))
    else:
        print_table(comparison_table(rows))
        print(f"\n{facts.name}; files written to {options.out}/; bytes are those of the packed tokens alone")
    return report.exit_code


def _load(options: Namespace, name: str, revision: str | None = None) -> Tokenizer:
    import torch

    from .loading import load

    revision = options.revision or revision
    try:
        torch.device(options.device)
    except RuntimeError as error:
        raise UsageError(f"--device {options.device}: {str(error).splitlines()[0]}") from error
    dtype = getattr(torch, options.dtype)
    with _as_usage():
        if options.untrained:
            from .untrained import untrained

            tokenizer = untrained(name, device=options.device, dtype=dtype)
            print(f"{name}: random weights, so what comes out means nothing", file=sys.stderr)
            return tokenizer
        return load(name, revision=revision, device=options.device, dtype=dtype)


@contextmanager
def _as_usage() -> Iterator[None]:
    """A name or a value that the command got wrong; what is wrong with a checkpoint is another matter."""
    try:
        yield
    except CheckpointError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def _tokenizer_of(
    tokens: Tokens, options: Namespace, loaded: dict[tuple[str, str | None], Tokenizer]
) -> Tokenizer:
    """The tokenizer that the command names, or that the file does."""
    name = options.tokenizer or tokens.facts.name
    if options.tokenizer is None and name.endswith(UNTRAINED):
        if not options.untrained:
            raise ValueError(f"made by {name!r}, with random weights: add --untrained to decode it so")
        name = name.removesuffix(UNTRAINED)
    if options.tokenizer is None and catalogue.find(name) is None:
        raise ValueError(
            f"made by {name!r}, which is no catalogue name; name its folder or Hub id with --tokenizer"
        )
    key = (name, None if options.tokenizer else tokens.facts.revision)
    if key not in loaded:
        loaded[key] = _load(options, *key)
    return loaded[key]


def _restamped(tokenizer: Tokenizer, tokens: Tokens) -> Tokens:
    """Tokens of a tokenizer in training have no fingerprint; naming one on the command line insists."""
    return tokenizer.stamp(
        tokens.values,
        lengths=tokens.lengths,
        extents=tokens.extents,
        positions=tokens.positions,
        scales=tokens.scales,
        durations=tokens.durations,
        captions=tokens.captions,
    )


def _keep(options: Namespace, facts: Any) -> int | None:
    """What --keep says, or --kbps in codebooks."""
    if options.kbps is None:
        return None if options.keep is None else facts.check_keep(options.keep)
    if options.keep is not None:
        raise UsageError("--keep and --kbps both say how much to keep: leave one out")
    return facts.keep_for_bitrate(1000 * options.kbps)


def _keeps(asked: list[int] | None, facts: Any) -> list[int | None]:
    """Lengths to show, the full one (None) last."""
    if facts.nested is None and not facts.makes_fewer:
        if asked:
            raise UsageError(
                f"--keep {','.join(map(str, asked))}: {facts.name} has one length: leave --keep out"
            )
        return [None]
    by_codebooks = facts.nested == "codebooks"
    limit = len(facts.codebook_sizes) if by_codebooks else facts.max_tokens or max(DEFAULT_KEEPS) + 1
    usual = facts.keeps or DEFAULT_CODEBOOKS if by_codebooks else DEFAULT_KEEPS
    counts = dict.fromkeys(asked or ()) or [
        count for count in usual if count < limit and (not facts.keeps or count in facts.keeps)
    ]
    return [*(facts.check_keep(count) for count in counts if count < limit), None]


def _shortener(
    target: str, tokenizer: Tokenizer
) -> tuple[Callable[[list[Any]], Tokens], Callable[[Tokens, Any], bool]]:
    """`psnr>=25` as a function from items to their shortest tokens that reach it, and whether one does."""
    import torch

    from .shorten import shorten

    score_name, _, text = target.partition(">=")
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    known = score_name.strip() in ("psnr", "ssim") and tokenizer.facts.modality == "image"
    if math.isnan(level) or not known:
        raise UsageError(f"--until {target!r}: expected psnr>=NUMBER or ssim>=NUMBER, for images")
    import importlib

    metrics = importlib.import_module("..image.metrics", __package__)
    score = getattr(metrics, score_name.strip())

    def passes(tokens: Tokens, item: Any) -> bool:
        # A shorter one was decoded already, and passed.
        if int(tokens.lengths[0]) < tokenizer.num_tokens(item.shape[1:]):
            return True
        decoded = tokenizer.decode(tokens)
        return bool(score(decoded, item[None].to(decoded)) >= level)

    return lambda items: shorten(tokenizer, torch.stack(items), score, level), passes


def _check_out(folder: Path) -> None:
    """Before the work, not after it."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file: give a folder")


def _find(files: Medium, inputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    found = files.find(inputs)
    if not found:
        raise ValueError(
            f"no files in {', '.join(map(str, inputs))}: looked for {', '.join(files.suffixes)}; "
            "--tokenizer NAME is how to say what kind of files these are"
        )
    return found


def find_tok(inputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """`.tok` files, and those inside folders, each with its place below the folder; ValueError if none."""
    found: list[tuple[Path, Path]] = []
    for given in inputs:
        inside = sorted(given.rglob("*.tok")) if given.is_dir() else [given]
        found += [(path, path.relative_to(given) if given.is_dir() else Path(path.name)) for path in inside]
    if not found:
        raise ValueError(f"no .tok files in {', '.join(map(str, inputs))}")
    return found


def _output_names(relatives: Sequence[Path], suffix: str) -> list[Path]:
    """One output a file: photo.jpg becomes photo.tok, or photo.jpg.tok where two would share the name."""
    short = [relative.with_suffix(suffix) for relative in relatives]
    names: list[Path] = []
    taken: dict[Path, int] = {}
    for relative, name in zip(relatives, short, strict=True):
        whole = name if short.count(name) == 1 else relative.with_name(relative.name + suffix)
        names.append(_fresh(whole, taken))
    return names


def _fresh(path: Path, taken: dict[Path, int]) -> Path:
    """`path`, or `path` with a number when this job has used it already."""
    taken[path] = taken.get(path, 0) + 1
    return path if taken[path] == 1 else _fresh(path.with_stem(f"{path.stem}-{taken[path]}"), taken)


def _item(tokenizer: Tokenizer, files: Medium, path: Path) -> Any:
    """What is in a file, preprocessed; a sound that is no good to the model fails alone, not its batch."""
    item = tokenizer.preprocess(files.read(path))
    if tokenizer.facts.modality == "audio":
        tokenizer.check_signal(item[None])  # pyright: ignore[reportAttributeAccessIssue]
    return item


def _in_batches(
    paths: Sequence[Path],
    read: Callable[[Path], Any],
    run: Callable[[list[tuple[int, Any]]], None],
    options: Namespace,
    report: Report,
) -> None:
    """Read, gather and run; a file that cannot be read is reported and the rest goes on."""
    batch: list[tuple[int, Any]] = []
    for index, path in enumerate(_progress(paths, "encode")):
        try:
            batch.append((index, read(path)))
        except _BAD_INPUT as error:
            report.failed(path, error)
        if len(batch) == options.batch_size:
            run(batch)
            batch = []
    if batch:
        run(batch)


def _progress(items: Sequence[Any], title: str) -> Iterator[Any]:
    from tqdm import tqdm

    return iter(tqdm(items, desc=title, file=sys.stderr, disable=None, leave=False))
