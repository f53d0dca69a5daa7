"""The models that come with the library, and finding them by name; see README.md beside this file. No torch."""

from pathlib import Path
from typing import Literal

from ppe_yolo.core.errors import UserError

FOLDER = Path(__file__).parent
SUFFIXES = {"checkpoint": ".ckpt", "onnx": ".int8.onnx"}


def model_names() -> list[str]:
    """Names of the models that come with the library."""
    return sorted(p.name.removesuffix(SUFFIXES["checkpoint"]) for p in FOLDER.glob(f"*{SUFFIXES['checkpoint']}"))


def find_model(model: str | Path, kind: Literal["checkpoint", "onnx"]) -> Path:
    """The file that a user means: a path, or a name such as `helmet-tiny`.

    Args:
        model: A file that is there comes first; `helmet-tiny.ckpt` names one of the two files of `helmet-tiny`.
        kind: Which of them a name without a suffix stands for.

    Raises:
        UserError: Neither a file nor a name. What looks like a file's name is left to its reader to refuse.
    """
    path = Path(model)
    if path.exists() or path.name != str(model):
        return path
    for own in (FOLDER / f"{path.name}{SUFFIXES[kind]}", FOLDER / path.name):
        if own.suffix in (".ckpt", ".onnx") and own.is_file():
            return own
    if path.suffix in (".ckpt", ".onnx"):
        return path
    raise UserError(f"{model}: expected a model file or one of the names {', '.join(model_names())}, got no such file or name")
