"""Checks a data set and writes annotation lists, as `ppe-yolo list` does, from a bare checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.cli import main

if __name__ == "__main__":
    main(["list", *sys.argv[1:]])
