"""Arguments and options that several commands share."""

from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ppe_yolo.core.errors import UserError
from ppe_yolo.weights import find_model

out_console = Console(highlight=False)


class Split(StrEnum):
    """A part of a data set."""

    train = "train"
    val = "val"
    trainval = "trainval"
    test = "test"


class OnError(StrEnum):
    """What to do about photos that the audit refuses."""

    stop = "stop"
    skip = "skip"


class ArchitectureName(StrEnum):
    """A network."""

    yolov3 = "yolov3"
    yolov3_small = "yolov3-small"
    yolov3_tiny = "yolov3-tiny"


class DarknetName(StrEnum):
    """What a Darknet file holds: a network, or the backbone of YOLOv3 alone."""

    yolov3 = "yolov3"
    yolov3_small = "yolov3-small"
    yolov3_tiny = "yolov3-tiny"
    darknet53 = "darknet53"


class BoxCodingName(StrEnum):
    """How logits stand for boxes."""

    bounded = "bounded"
    darknet = "darknet"


ClassMapOption = Annotated[
    str,
    typer.Option(
        "--class-map",
        metavar="NAME|FILE",
        help="What the data's names mean: default, shwd, gdut-hwd, hard-hat-workers, shwd+gdut-hwd, or your own YAML.",
    ),
]
DataArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Pascal VOC folder, annotation lists, or one list.")]


def find_checkpoint(model: str) -> Path:
    """Path of a checkpoint, or of the checkpoint of a bundled model."""
    return find_model(model, "checkpoint")


def find_onnx(model: str) -> Path:
    """Path of a model file, or of the ONNX file of a bundled model."""
    return find_model(model, "onnx")


CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", parser=find_checkpoint, help="Written by `ppe-yolo fit`, or helmet-tiny.")
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        parser=find_onnx,
        help="A checkpoint, an .onnx file of `ppe-yolo export`, or helmet-tiny, which comes along.",
    ),
]
OnnxArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", parser=find_onnx, help="An .onnx file of `ppe-yolo export`, or helmet-tiny.")
]
OnnxOutOption = Annotated[Path, typer.Option("--out", metavar="FILE", help="The .onnx file to write.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")]
TilesOption = Annotated[
    int,
    typer.Option(
        "--tiles", min=1, help="Far cameras, small heads: look at N x N overlapping tiles, too; N x N + 1 times the work."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]


def require_torch() -> None:
    """Refuses a torch and a torchvision that do not belong together, before they fail in a riddle."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"torch {version('torch')} and torchvision {version('torchvision')} do not work together ({reason}): "
            "install both from one index, for example: pip install --force-reinstall torch torchvision"
        ) from error
