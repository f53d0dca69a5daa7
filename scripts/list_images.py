"""Divides the images of a folder, and of the zip files in it, into items for scripts/score_batch.py."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppe_yolo.core.errors import UserError
from ppe_yolo.inference.score_batch import write_items


def main() -> None:
    """Writes the items, and prints how many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR", help="the folder with images and zip files")
    parser.add_argument("--images-per-item", type=int, default=500, help="maximum number of images of an item")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the items")
    given = parser.parse_args()
    try:
        done = write_items(given.root, given.out, given.images_per_item)
    except UserError as error:
        print(f"list_images: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{done.images} images in {done.items} items; {done.skipped} other files skipped")


if __name__ == "__main__":
    main()
