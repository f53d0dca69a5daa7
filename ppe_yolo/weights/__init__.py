"""The bundled models, and finding them by name; README.md in this folder is their model card. Imports no torch."""

from pathlib import Path
from typing import Literal

from ppe_yolo.core.errors import UserError

FOLDER = Path(__file__).parent
SUFFIXES = {"checkpoint": ".ckpt", "onnx": ".int8.onnx"}


def model_names() -> list[str]:
    """Returns the names of the bundled models."""
    return sorted(p.name.removesuffix(SUFFIXES["checkpoint"]) for p in FOLDER.glob(f"*{SUFFIXES['checkpoint']}"))


def find_model(model: str | Path, kind: Literal["checkpoint", "onnx"]) -> Path:
    """Returns the path of a model that is given as a path or as the name of a bundled model.

    Args:
        model: An existing file takes precedence. Otherwise `helmet-small` names a bundled model, and `helmet-small.ckpt` one of
            its two files.
        kind: The file that a name without suffix stands for.

    Raises:
        UserError: There is no such file or name, or it is a folder. A missing file with the suffix of a model is left to its
            reader to report.
    """
    path = Path(model)
    is_name = path.name == str(model)
    if path.is_file():
        return path
    for own in (FOLDER / f"{path.name}{SUFFIXES[kind]}", FOLDER / path.name):
        if is_name and own.suffix in (".ckpt", ".onnx") and own.is_file():
            return own
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        hint = f"give {best}" if best.is_file() else None
        raise UserError(file=path, expected="a model file", got="a folder", hint=hint)
    if path.suffix in (".ckpt", ".onnx") or not is_name:
        return path
    raise UserError(
        file=model, expected=f"a model file or one of the names {', '.join(model_names())}", got="no such file or name"
    )
