"""The command `tokenzoo`. Nothing heavy is imported until a verb needs it, so `--help` answers at once."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import catalogue, jobs
from .facts import Facts
from .media import evaluation, modality_of_files
from .report import print_table

OK, FAILED, USAGE = 0, 1, 2
_FIT = "fit"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 all went well, 1 something failed, 2 a wrong command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == [_FIT]:
        return _guarded(lambda: _fit(arguments[1:]))
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    logging.basicConfig(
        stream=sys.stderr, format="%(message)s", level=logging.INFO if options.verbose else logging.WARNING
    )
    return _guarded(lambda: options.run(options))


def _guarded(run: Callable[[], int]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file may have any name
    try:
        code = run()
        if sys.stdout is not None:  # closed by the shell: >&-
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read along has had enough; Python would complain again when it flushes at exit.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except jobs.UsageError as error:
        print(f"tokenzoo: {error}", file=sys.stderr)
        return USAGE
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError, RuntimeError) as error:
        print(f"tokenzoo: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("tokenzoo: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tokenzoo",
        description="Tokenizers for images, sound and text behind one interface.",
        epilog="Exit codes: 0 all went well, 1 something failed, 2 a mistake in the command.",
    )
    parser.add_argument("--version", action="version", version=f"tokenzoo {version('tokenzoo')}")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = _verb(verbs, "list", "what can be loaded by name", _list)
    listing.add_argument("--modality", choices=("image", "audio", "text"))

    info = _verb(verbs, "info", "facts of a tokenizer, or of the one that made a .tok file", _info)
    info.add_argument("name", help="a name, a Hub id, a folder, or a .tok file")
    info.add_argument("--revision", help="branch, tag or sha on the Hub")

    encode = _verb(verbs, "encode", "files to .tok files", _encode)
    encode.add_argument("inputs", nargs="+", type=Path, help="files, or folders to search through")
    encode.add_argument("--out", type=Path, required=True, help="folder for the .tok files")
    encode.add_argument("--keep", type=_count, help="at most so many tokens (nested tokenizers)")
    encode.add_argument(
        "--kbps", type=float, help="as many codebooks as fit this bit rate (audio, nested codebooks)"
    )
    encode.add_argument(
        "--until", help='shortest length that reaches a score, e.g. "psnr>=25" (nested tokenizers)'
    )
    encode.add_argument("--batch-size", type=_count, default=8, help="items at once (default: 8)")
    _model_options(encode)
    _keyword_option(encode)

    decode = _verb(verbs, "decode", ".tok files back to pictures, sound or text", _decode)
    decode.add_argument("inputs", nargs="+", type=Path, help=".tok files, or folders to search through")
    decode.add_argument("--out", type=Path, required=True, help="folder for what is decoded")
    decode.add_argument("--keep", type=_count, help="decode only so many tokens (nested tokenizers)")
    decode.add_argument(
        "--restamp",
        action="store_true",
        help="take tokens that other weights made for --tokenizer's: after fine-tuning with encoder and "
        "quantizer frozen",
    )
    decode.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    _model_options(decode, "the one that the file names")
    _keyword_option(decode)

    reconstruct = _verb(
        verbs, "reconstruct", "there and back at several lengths: a picture and a table", _reconstruct
    )
    reconstruct.add_argument(
        "inputs", nargs="*", type=Path, help="files or folders; default: samples that ship with the package"
    )
    reconstruct.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the results (default: out)"
    )
    reconstruct.add_argument(
        "--keep",
        type=_counts,
        default=None,
        metavar="N,N,...",
        help="tokens, or codebooks, besides all of them (default: 8,32,128 tokens; 2,4,8 codebooks)",
    )
    _model_options(reconstruct)

    evaluate = _verb(
        verbs, "eval", "quality over a data set of pictures or speech; text tokenizers over languages", _eval
    )
    evaluate.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        help="folders of pictures or sounds, or .npy files; for text a file for each language, or folders "
        "with a file or folder for each",
    )
    evaluate.add_argument(
        "--tokenizer",
        action="append",
        metavar="NAME",
        help=f"a name, Hub id, folder or file, repeatable (default: by the files, for text bytes and "
        f"{catalogue.DEFAULT['text']})",
    )
    evaluate.add_argument(
        "--reference",
        metavar="LANGUAGE",
        help="the inputs are the same text: costs relative to this language's",
    )
    evaluate.add_argument("--limit-bytes", type=_count, help="read only so much of each language")
    evaluate.add_argument("--out", type=Path, help="folder for the numbers, and for text a chart")
    evaluate.add_argument(
        "--keep", type=_counts, metavar="N,N,...", help="lengths besides all (pictures, speech)"
    )
    evaluate.add_argument("--limit", type=_count, help="only so many items, evenly spread (pictures, speech)")
    evaluate.add_argument("--device", default="cpu", help="torch device (default: cpu)")

    usage = _verb(verbs, "usage", "how well .tok files use their codebooks, level by level", _usage)
    usage.add_argument("inputs", nargs="+", type=Path, help=".tok files, or folders to search through")

    bench = _verb(verbs, "bench", "time the kernels beside their peers on this machine", _bench)
    bench.add_argument("operations", nargs="*", help="which; default: all")
    bench.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    bench.add_argument("--repeats", type=_count, default=5, help="rounds, of which the best counts (CPU)")
    bench.add_argument("--first", type=_count, help="only so many sizes of each operation")
    bench.add_argument("--out", type=Path, help="folder for a page and the numbers")

    serve = _verb(verbs, "serve", "a tokenizer over HTTP: POST /encode and /decode", _serve)
    serve.add_argument("name", help="a name, a Hub id or a folder")
    serve.add_argument("--revision", help="branch, tag or sha on the Hub")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=_count, default=8000, help="default: 8000")
    serve.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    serve.add_argument("--batch-size", type=_count, default=8, help="most requests in a batch (default: 8)")

    convert = _verb(verbs, "convert", "a checkpoint of any known layout to a folder of ours", jobs.convert)
    convert.add_argument(
        "source", help="name, Hub id, folder, or a weights file (.safetensors, .bin, .pt, .pth, .ckpt)"
    )
    convert.add_argument("--out", type=Path, required=True, help="folder to write")
    convert.add_argument("--like", metavar="NAME", help="which catalogue model a bare weights file is")
    convert.add_argument("--revision", help="branch, tag or sha on the Hub")
    convert.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))

    push = _verb(verbs, "push", "a folder to the Hub", jobs.push)
    push.add_argument("folder", type=Path, help="what save_pretrained, fit or convert wrote")
    push.add_argument("repo", help="Hub id owner/name")
    push.add_argument("--private", action="store_true", help="when the repository is created")
    push.add_argument("--message", help="of the commit")
    push.add_argument(
        "--measure",
        type=Path,
        metavar="DATA",
        help="evaluate on this folder or .npy first, for the model card",
    )
    push.add_argument("--limit", type=_count, help="measure only so many items, evenly spread")

    fit = verbs.add_parser(
        _FIT, help="train: tokenzoo fit --config configs/NAME.yaml (its own --help)", add_help=False
    )
    fit.set_defaults(run=lambda options: USAGE)
    return parser


def _verb(
    verbs: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("--json", action="store_true", help="machine-readable output on stdout")
    parser.add_argument("--verbose", action="store_true", help="say more on stderr")
    parser.set_defaults(run=run)
    return parser


def _model_options(
    parser: argparse.ArgumentParser, default: str = f"by the files {', '.join(catalogue.DEFAULT.values())}"
) -> None:
    parser.add_argument("--tokenizer", metavar="NAME", help=f"a name, Hub id or folder (default: {default})")
    parser.add_argument("--revision", help="branch, tag or sha on the Hub")
    parser.add_argument(
        "--untrained", action="store_true", help="random weights: to try what runs, where none are at hand"
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16", "float64"))


def _keyword_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a keyword of this tokenizer's own, repeatable",
    )


def _count(text: str) -> int:
    count = int(text) if text.strip().isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return count


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _list(options: argparse.Namespace) -> int:
    rows = [row for row in catalogue.rows() if options.modality in (None, row.facts.modality)]
    if options.json:
        described = [row.facts.to_dict() | {"repo": row.repo, "paper": row.paper} for row in rows]
        print(json.dumps(described, indent=2))
        return OK
    table = [("NAME", "MEDIUM", "TOKENS", "CODES", "NESTED", "LICENCE", "HUB ID")]
    for row in rows:
        facts = row.facts
        table.append(
            (
                row.name,
                facts.modality,
                _token_counts(facts),
                _code_counts(facts),
                facts.nested or ("adaptive" if facts.is_adaptive else "-"),
                facts.licence or "-",
                row.repo or "-",
            )
        )
    print_table(table)
    return OK


def _token_counts(facts: Facts) -> str:
    """As a reader counts: 32, "1-256" when any prefix decodes, "any" when it grows with the item."""
    longest = str(facts.max_tokens or "any")
    if facts.nested == "codebooks" or not facts.may_be_short:
        return longest
    return f"{facts.keeps[0] if facts.keeps else 1}-{longest}"


def _code_counts(facts: Facts) -> str:
    """4096, "8 x 1024" for eight codebooks alike, "4096, 1024" for different ones, "16 floats"."""
    sizes = list(facts.codebook_sizes)
    if not sizes:
        return f"{facts.latent_dim} floats"
    alike = len(sizes) > 1 and len(set(sizes)) == 1
    return f"{len(sizes)} x {sizes[0]}" if alike else ", ".join(map(str, sizes))


def _info(options: argparse.Namespace) -> int:
    described = jobs.describe(options.name, options.revision)
    if options.json:
        print(json.dumps(described, indent=2))
    else:
        width = max(map(len, described))
        for key, value in described.items():
            print(f"{key:<{width}}  {value}")
    return OK


def _encode(options: argparse.Namespace) -> int:
    _choose_tokenizer(options)
    return jobs.encode_files(options)


def _decode(options: argparse.Namespace) -> int:
    return jobs.decode_files(options)


def _reconstruct(options: argparse.Namespace) -> int:
    _choose_tokenizer(options)
    return jobs.reconstruct_files(options)


def _choose_tokenizer(options: argparse.Namespace) -> None:
    """That of the medium of the inputs, unless the command says."""
    if options.tokenizer is None and options.untrained:
        raise jobs.UsageError("--untrained: say which with --tokenizer NAME; `tokenzoo list` has the names")
    if options.tokenizer is None:
        try:
            options.tokenizer = catalogue.DEFAULT[modality_of_files(options.inputs)]
        except ValueError as error:
            raise jobs.UsageError(str(error)) from error


def _eval(options: argparse.Namespace) -> int:
    modality = modality_of_files(options.inputs, otherwise="text")
    if options.tokenizer is None and modality != "text":
        options.tokenizer = [catalogue.DEFAULT[modality]]
    first = (options.tokenizer or ["bytes"])[0]
    return evaluation(jobs.modality_of(first))(options)


def _usage(options: argparse.Namespace) -> int:
    from .usage_files import usage_files

    return usage_files(options)


def _bench(options: argparse.Namespace) -> int:
    from ..kernels.bench import run

    try:
        return run(options)
    except ValueError as error:  # of the options; a measurement that goes wrong is a RuntimeError
        raise jobs.UsageError(str(error)) from error


def _serve(options: argparse.Namespace) -> int:
    from .serve import serve

    return serve(options)


def _fit(arguments: list[str]) -> int:
    from .fit import main as fit

    return fit(arguments)


if __name__ == "__main__":
    sys.exit(main())
