"""Puts the core of the library and the bundled model into the wheel of the box, from a clone or from its own sdist."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Library(BuildHookInterface):
    """The files of the library that the box needs: in a clone they are next to this folder; in an sdist, inside it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds these files: to an sdist under the same paths as in the clone, to a wheel under their package paths."""
        model = "ppe_yolo/weights/helmet-small.int8.onnx"
        in_wheel = {model: "ppe_edge/model/helmet-small.int8.onnx"} if self.target_name == "wheel" else {}
        root = Path(self.root) if (Path(self.root) / "ppe_yolo").is_dir() else Path(self.root).parent
        for name in ("ppe_yolo/__init__.py", "ppe_yolo/core", model):
            build_data["force_include"][str(root / name)] = in_wheel.get(name, name)
