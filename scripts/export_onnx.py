"""Exports a checkpoint to ONNX from a bare checkout; the same as `ppe-yolo export`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
