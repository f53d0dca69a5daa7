"""Runs a box in this process."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ppe_edge.config import load_settings
from ppe_edge.control import Control
from ppe_edge.runtime import Runtime


def configure(folder: Path, model: Path, cameras: dict[str, Any], **more: Any) -> Path:
    """Writes an edge.yaml with a jsonl sink and without a page."""
    config = folder / "edge.yaml"
    document = {
        "model": {"path": str(model), "threads": 1},
        "state_dir": str(folder / "state"),
        "cameras": {name: {"source": str(c)} if isinstance(c, Path) else c for name, c in cameras.items()},
        "sinks": {"jsonl": {"path": str(folder / "alerts.jsonl")}},
        "web": {"enabled": False},
        **more,
    }
    config.write_text(json.dumps(document))  # JSON is valid YAML
    return config


def delivered(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The delivered messages of a kind, in order."""
    file = folder / "alerts.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [m for m in map(json.loads, lines) if m["kind"] == kind]


@contextlib.contextmanager
def running(config: Path) -> Iterator[tuple[Runtime, Control]]:
    """A running box with slow models, so that its clips last."""
    runtime = Runtime(load_settings(config))
    kind = type(runtime.detector)
    detect = kind.detect

    def slowly(detector: Any, images: Any) -> Any:
        time.sleep(0.02)
        return detect(detector, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "detect", slowly)
        runtime.start()
        try:
            yield runtime, Control(runtime, config, {})
        finally:
            runtime.stop()
