"""Entry of a parallel job on Azure ML: `init` once a worker, `run` for each mini-batch of items (scripts/list_images.py)."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.inference.score_batch import score_items

_detector: Detector | None = None
_root = Path()


def init() -> None:
    """Loads the model of --model; the items refer to images in --root. Azure adds arguments of its own."""
    global _detector, _root
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--threads", type=int, help="threads of a worker; 0 leaves the choice to onnxruntime")
    parser.add_argument("--device", default="auto")
    given = parser.parse_known_args()[0]
    _detector, _root = load_detector(given.model, device=given.device, threads=given.threads or None), given.root


def run(mini_batch: Sequence[str]) -> list[str]:
    """Returns one line of JSON per image; Azure collects the lines of all mini-batches in one file."""
    assert _detector is not None
    return score_items(_detector, mini_batch, _root)
