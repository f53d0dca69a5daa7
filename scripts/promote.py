"""The gate between a trained model and the one in use, as `ppe-yolo promote` is, from a bare checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.cli import main

if __name__ == "__main__":
    main(["promote", *sys.argv[1:]])
