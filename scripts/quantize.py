"""Quantises an ONNX model from a bare checkout; the same as `ppe-yolo quantize`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.cli import main

if __name__ == "__main__":
    main(["quantize", *sys.argv[1:]])
