"""Entry of a parallel job on Azure ML: `init` once a worker, `run` for each mini-batch of files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.inference.detector import Detector
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.inference.score_batch import score_batch

_detector: Detector | None = None
_root = Path()


def init() -> None:
    """Loads the model of --model; images are named relative to --root. Azure adds arguments of its own."""
    global _detector, _root
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--root", type=Path, required=True)
    given = parser.parse_known_args()[0]
    _detector, _root = load_detector(given.model), given.root


def run(mini_batch: Sequence[str]) -> list[str]:
    """Returns one line of JSON per file; Azure collects the lines of all mini-batches in one file."""
    assert _detector is not None
    return score_batch(_detector, mini_batch, _root)
