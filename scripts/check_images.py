"""Entry of a parallel job on Azure ML that checks the images of a large data set: `run` for each mini-batch of files."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.data.audit.shards import check_files


def run(mini_batch: Sequence[str]) -> list[str]:
    """Returns one line of JSON per file; Azure collects the lines of all mini-batches in one file, for `prepare --checks`."""
    return check_files(mini_batch)
