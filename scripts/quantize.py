"""Makes 8-bit integers of an ONNX file, as `ppe-yolo quantize` does, from a bare checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.cli import main

if __name__ == "__main__":
    main(["quantize", *sys.argv[1:]])
