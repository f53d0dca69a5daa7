"""Arguments and options that several commands share, and how the command line shows a user's mistake."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import require_utf8
from ppe_yolo.core.words import one_line
from ppe_yolo.weights import find_model

out_console = Console(highlight=False, emoji=False)  # emoji: ":100:" in a message is no picture

_PROCESS_NUMBERS = (
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
)

Split = Literal["train", "val", "trainval", "test"]
OnError = Literal["stop", "skip"]
ClassMapOption = Annotated[
    str,
    typer.Option(
        "--class-map",
        metavar="NAME|FILE",
        help="Meaning of the data's class names: default, shwd, gdut-hwd, hard-hat-workers, shwd+gdut-hwd, or your own YAML.",
    ),
]
DATA_HELP = "Folder in Pascal VOC, YOLO, COCO or CVAT format, or annotation lists."
DataArgument = Annotated[Path, typer.Argument(metavar="DIR", help=DATA_HELP)]


def find_checkpoint(model: str) -> Path:
    """Path of a checkpoint, or of the checkpoint of a bundled model."""
    return find_model(model, "checkpoint")


def find_onnx(model: str) -> Path:
    """Path of a model file, or of the ONNX file of a bundled model."""
    return find_model(model, "onnx")


def writable_folder(out: Path) -> Path:
    """Refuses a folder that cannot be written, before the work whose results would be lost."""
    require_utf8(out)
    existing = next(path for path in (out, *out.absolute().parents) if os.access(path, os.F_OK))
    if not existing.is_dir():
        raise UserError(setting="out", file=out, expected="a folder", got=f"the file {existing}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(setting="out", file=out, expected="a folder that can be written", got=f"{existing}, which cannot")
    return out


def writable_file(out: Path) -> Path:
    """Refuses a file that cannot be written, before the work whose results would be lost."""
    require_utf8(out)
    if out.is_dir():
        raise UserError(setting="out", file=out, expected="a file to write", got="a folder")
    writable_folder(out.parent)
    return out


CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", parser=find_checkpoint, help="Written by `ppe-yolo fit`, or helmet-small.")
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        parser=find_onnx,
        help="A checkpoint, an .onnx file of `ppe-yolo export`, or helmet-small, which is bundled.",
    ),
]
OnnxArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", parser=find_onnx, help="An .onnx file of `ppe-yolo export`, or helmet-small.")
]
OnnxOutOption = Annotated[Path, typer.Option("--out", metavar="FILE", callback=writable_file, help="The .onnx file to write.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", callback=writable_folder, help="Folder for the results.")]
TilesOption = Annotated[
    int,
    typer.Option(
        "--tiles", min=1, help="For small, distant heads: also search N x N overlapping tiles; N x N + 1 times the work."
    ),
]
ValFractionOption = Annotated[
    float | None,
    typer.Option("--val-fraction", help="As in fit, to find the validation images of a model that does not record them."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]


def describe(error: UserError) -> str:
    """One line about a user's mistake; its setting is shown as an option: `class_map` as --class-map."""
    setting = error.setting
    if setting is not None and not setting.startswith("-"):
        setting = f"--{setting if '.' in setting else setting.replace('_', '-')}"
    return " ".join(error.describe(setting).split())


def require_process_numbers() -> None:
    """Refuses variables of torchrun and SLURM that are no numbers; Lightning reads some of them when it is imported."""
    for name in _PROCESS_NUMBERS:
        value = os.environ.get(name, "0")
        if not value.strip().isdecimal():
            hint = f"correct the environment variable, or remove it (unset {name})"
            raise UserError(item=name, expected="a whole number", got=repr(value), hint=hint)


def require_torch() -> None:
    """Fails early, with a clear message, if the torch and torchvision builds are incompatible."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise UserError(
            f"torch {version('torch')} and torchvision {version('torchvision')} do not work together ({one_line(error, 120)})",
            hint="install both from the same index, for example: pip install --force-reinstall torch torchvision",
        ) from error
