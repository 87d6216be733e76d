"""`tokenzoo fit`: LightningCLI with the classes settled, so that a recipe is a flat YAML file.

seed_everything: 0
out: runs/my-tokenizer
trainer: {max_steps: 1000}
model: {tokenizer_type: titok, config: {...}, losses: {mse: 1.0}}
data: {train: photographs/, batch_size: 16}
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from .optional import require
from .recipes import modality_of, shipped

OK, FAILED = 0, 1
_MODULES = {
    "image": ("image.training:ImageTraining", "image.data:ImageFolderData"),
    "audio": ("audio.training:AudioTraining", "audio.data:AudioFolderData"),
}
_TEXT = "text.fit:main"
_LAST = "last"
_HELP = """usage: tokenzoo fit --config RECIPE.yaml [--SECTION.OPTION VALUE ...] [--ckpt_path last]

Trains a tokenizer as a recipe says. The modality follows from `tokenizer_type` or `pretrained` under `model`.
The options of a modality:
  tokenzoo fit --config RECIPE.yaml --help
  tokenzoo fit --model.tokenizer_type FAMILY --help      e.g. titok, encodec

Recipes that ship with tokenzoo, at their head the command, the hardware, the hours and the expected score:"""


def main(argv: Sequence[str]) -> int:
    """Train as the recipe says and save the tokenizer to `out`; returns the exit code.

    0 when the tokenizer was saved, 1 when training or reading failed (the reason goes to stderr), 2 for a
    mistake in the command or the recipe. Checkpoints, logs and the whole recipe go to `out`/training;
    `--ckpt_path last` goes on from there.
    """
    try:
        modality = modality_of(argv)
        if modality is None and {"-h", "--help"} & set(argv):
            _print_help()
            return OK
        if modality == "text":
            return _resolve(_TEXT)(argv)
        require("lightning.pytorch", "train")
        require("jsonargparse", "train")
        with _quietened(), _translated():
            cli = _command_line(list(argv), modality or "image")
            out = Path(cli.config["out"]).expanduser()
            _check_out(out, cli.config["ckpt_path"])
            checkpoint = _checkpoint(cli.config, out)
            # Lightning prints its tables to stdout, which belongs to results.
            with contextlib.redirect_stdout(sys.stderr):
                cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
            cli.trainer.save_checkpoint(_last(out), weights_only=False)
            if cli.trainer.is_global_zero:
                cli.model.save_pretrained(out)
                print(out)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED if stop.code else OK
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"tokenzoo: {error}", file=sys.stderr)
        return FAILED
    return OK


def _print_help() -> None:
    """What can be trained, and how to see the options of each modality."""
    print(_HELP)
    for modality in ("image", "audio", "text"):
        print(f"\n{modality}:")
        for recipe in shipped():
            if recipe.modality == modality:
                print(f"  configs/{recipe.file:28} {recipe.about}")


def _command_line(argv: list[str], modality: str) -> Any:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.loggers import CSVLogger

    from .examples import Examples
    from .progress import StepProgress

    class Fit(LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--out", type=str, required=True, help="folder for tokenizer and checkpoints")
            parser.add_argument(
                "--ckpt_path", type=str, help="checkpoint to resume; 'last': the one in --out"
            )
            parser.add_argument("--checkpoint_every", type=int, default=500, help="steps between checkpoints")
            parser.add_argument(
                "--examples", type=int, default=4, help="items to decode into OUT/training/examples; 0: none"
            )

        def parse_arguments(self, parser: Any, args: Any) -> None:
            # Without the base class's warning about the arguments of the surrounding command.
            self.config = parser.parse_args(args)

        def instantiate_trainer(self, **kwargs: Any) -> Any:
            folder = Path(self.config["out"]).expanduser() / "training"
            settings = self.config_init["trainer"]
            if settings.get("logger") in (None, True):
                kwargs["logger"] = CSVLogger(str(folder), name="log", flush_logs_every_n_steps=50)
            kwargs["default_root_dir"] = str(folder)
            checkpoint = ModelCheckpoint(
                dirpath=folder,
                filename=_LAST,
                every_n_train_steps=self.config["checkpoint_every"],
                enable_version_counter=False,
            )
            shown = self.config["examples"]
            examples = [Examples(folder / "examples", shown)] if shown else []
            callbacks = settings.get("callbacks") or []
            settings["callbacks"] = [*callbacks, StepProgress(), *examples, checkpoint]
            return super().instantiate_trainer(**kwargs)

    module, data = (_resolve(path) for path in _MODULES[modality])
    return Fit(
        module,
        data,
        args=argv,
        run=False,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        parser_kwargs={"prog": "tokenzoo fit", "description": "Train a tokenizer; see configs/ for recipes."},
        trainer_defaults={"use_distributed_sampler": False, "num_sanity_val_steps": 0},
    )


def _resolve(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(f"..{module}", __package__), name)


def _checkpoint(config: Any, out: Path) -> Path | None:
    """The file to resume. "last" without a file starts anew: one command serves a job that is restarted."""
    wanted = config["ckpt_path"]
    if wanted is None:
        return None
    path = _last(out) if wanted == _LAST else Path(wanted).expanduser()
    if path.is_file():
        _check_checkpoint(path)
        return path
    if wanted == _LAST:
        print(f"{path} is not there yet: training starts anew", file=sys.stderr)
        return None
    raise FileNotFoundError(f"--ckpt_path {path}: no such file; 'last' means the one in --out")


def _check_out(out: Path, resumed: str | None) -> None:
    """ValueError where training would write over what somebody else put there, or over another training."""
    from ..checkpoints.files import CONFIG_FILE, read_config

    config = out / CONFIG_FILE
    if config.is_file() and "tokenizer_type" not in read_config(config):
        raise ValueError(f"--out {out} holds a {CONFIG_FILE} that is no tokenizer's: choose another folder")
    if resumed is None and _last(out).is_file():
        raise ValueError(
            f"--out {out} holds a training: go on with --ckpt_path last, or choose another folder"
        )


def _check_checkpoint(path: Path) -> None:
    """ValueError unless a fit of ours saved this file; nothing in it is run."""
    import torch

    try:
        told = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
        raise ValueError(f"--ckpt_path {path} is no checkpoint of a fit: it cannot be read") from error
    if not isinstance(told, dict) or not {"pytorch-lightning_version", "batches_seen"} <= set(told):
        raise ValueError(f"--ckpt_path {path} is no checkpoint of a fit: give the last.ckpt of one")


def _last(out: Path) -> Path:
    return out / "training" / f"{_LAST}.ckpt"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What Lightning finds wrong with a recipe is no error of Python's own kinds."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(" ".join(str(error).split())) from error


@contextlib.contextmanager
def _quietened() -> Iterator[None]:
    """Without Lightning's warnings about what is meant so here, or is its own business."""
    with warnings.catch_warnings():
        # A resumed fit writes its checkpoints to the folder of the first one.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
        # It may save them more or less often than the first one did.
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks used.*")
        # Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        # Likewise LightningCLI and jsonargparse.
        warnings.filterwarnings(
            "ignore", message=r"\s*(By default only one Jsonargparse|.*was deprecated in v4)"
        )
        yield
