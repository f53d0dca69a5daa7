"""Local parallel jobs: rows in order, resuming, retries and failures; and the entry script of batch scoring."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from ppe_yolo.azure.local.parallel import run_parallel
from ppe_yolo.core.errors import UserError

# records the files that it gets; fails for bad.txt until there is a file `fixed`
SCRIPT = """
import sys
from pathlib import Path
place = None
def init():
    global place
    place = Path(sys.argv[1])
def run(mini_batch):
    with (place / "given.txt").open("a") as file:
        file.write("".join(Path(f).name + "\\n" for f in mini_batch))
    if any(Path(f).name == "bad.txt" for f in mini_batch) and not (place / "fixed").exists():
        raise ValueError("bad")
    return [Path(f).read_text() for f in mini_batch]
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "entry.py"
    path.write_text(SCRIPT)
    return path


def files(tmp_path: Path, *names: str) -> Path:
    (tmp_path / "data/deep").mkdir(parents=True)
    for name in names:
        (tmp_path / "data" / name).write_text(f"row of {name}")
    return tmp_path / "data"


def test_run_parallel_rows_follow_the_order_of_files(script: Path, tmp_path: Path) -> None:
    names = [f"{n}.txt" for n in range(5)] + ["deep/9.txt"]
    run_parallel(
        script,
        files(tmp_path, *names),
        tmp_path / "rows",
        tmp_path / "journal",
        mini_batch_size=2,
        workers=2,
        arguments=[str(tmp_path)],
    )
    assert (tmp_path / "rows").read_text().splitlines() == [f"row of {n}" for n in names]


def test_run_parallel_interrupted_job_resumes(script: Path, tmp_path: Path) -> None:
    data, rows = files(tmp_path, "a.txt", "bad.txt", "c.txt"), tmp_path / "rows"
    with pytest.raises(UserError, match="1 of 3 mini-batches failed, 0 allowed"):
        run_parallel(
            script, data, rows, tmp_path / "journal", mini_batch_size=1, retries=1, threshold=0, arguments=[str(tmp_path)]
        )
    given = (tmp_path / "given.txt").read_text().split()
    assert sorted(given) == ["a.txt", "bad.txt", "bad.txt", "c.txt"]  # tried twice
    assert not rows.exists()
    (tmp_path / "journal").open("a").write('{"files": ["cut o')  # as after a kill
    (tmp_path / "fixed").touch()
    run_parallel(script, data, rows, tmp_path / "journal", mini_batch_size=1, retries=1, threshold=0, arguments=[str(tmp_path)])
    assert rows.read_text().splitlines() == ["row of a.txt", "row of bad.txt", "row of c.txt"]
    assert (tmp_path / "given.txt").read_text().split()[len(given) :] == ["bad.txt"]  # the others were already done


def test_run_parallel_failures_within_threshold_are_left_out(script: Path, tmp_path: Path) -> None:
    data, rows = files(tmp_path, "a.txt", "bad.txt"), tmp_path / "rows"
    assert (
        run_parallel(script, data, rows, tmp_path / "journal", mini_batch_size=1, threshold=1, arguments=[str(tmp_path)]) == 1
    )
    assert rows.read_text() == "row of a.txt\n"


def test_run_parallel_mini_batch_with_fewer_rows_than_files_fails(tmp_path: Path) -> None:
    """As on Azure: "The mini-batch is marked as failed if the count of return from run() is less than the input count"."""
    script = tmp_path / "entry.py"
    script.write_text("def run(mini_batch):\n    return mini_batch[1:]\n")
    data = files(tmp_path, "a.txt", "b.txt")
    with pytest.raises(UserError, match="1 of 1 mini-batches failed, 0 allowed"):
        run_parallel(script, data, tmp_path / "rows", tmp_path / "journal", mini_batch_size=2, threshold=0)


def test_run_parallel_mini_batch_that_takes_too_long_is_repeated_and_fails(tmp_path: Path) -> None:
    script = tmp_path / "entry.py"
    script.write_text(
        "import time\nfrom pathlib import Path\n"
        "def run(mini_batch):\n"
        "    tries = Path(mini_batch[0] + '.tries')\n"
        "    tries.write_text(tries.read_text() + 'x' if tries.exists() else 'x')\n"
        "    try:\n"
        "        time.sleep(60 if mini_batch[0].endswith('slow.txt') else 0)\n"
        "    except Exception:\n"  # as for images that cannot be read
        "        pass\n"
        "    return mini_batch\n"
    )
    data = files(tmp_path, "fast.txt", "slow.txt")
    with pytest.raises(UserError, match="1 of 2 mini-batches failed, 0 allowed"):
        run_parallel(script, data, tmp_path / "rows", tmp_path / "log", mini_batch_size=1, retries=1, timeout=1, threshold=0)
    assert [(data / f"{name}.txt.tries").read_text() for name in ("fast", "slow")] == ["x", "xx"]


def test_run_parallel_empty_folder_raises(script: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected input files, got none"):
        run_parallel(script, tmp_path / "empty", tmp_path / "rows", tmp_path / "journal", mini_batch_size=1)


def test_score_items_reads_archives_and_reports_unreadable_files(tiny_site: Path, tmp_path: Path) -> None:
    """With a detector that detects one helmet in the upper left quarter of each image."""
    import numpy as np

    from ppe_yolo.core.contract import ModelContract
    from ppe_yolo.core.detections import Detections
    from ppe_yolo.inference.score_batch import score_items, write_items

    class Stub:
        contract = ModelContract(class_names=("helmet", "none"), input_size=(96, 128))

        def detect(self, images: list[np.ndarray]) -> list[Detections]:
            return [
                Detections(
                    np.array([[0, 0, i.shape[1] / 2, i.shape[0] / 2]], np.float32), np.array([0.9], np.float32), np.array([0])
                )
                for i in images
            ]

    data = tmp_path / "data"
    data.mkdir()
    photo = sorted((tiny_site / "JPEGImages").iterdir())[0]
    shutil.copy(photo, data / "a.jpg")
    with zipfile.ZipFile(data / "shift.zip", "w") as archive:
        archive.write(photo, "gate/one.jpg")
        archive.writestr("gate/two.jpg", b"no photo")
        archive.writestr("notes.txt", b"not looked at")
        archive.write(photo, "gate/three.jpg")
        archive.writestr("__MACOSX/gate/._one.jpg", b"of macOS")
        archive.writestr("gate/four.jpg", bytes(99), zipfile.ZIP_DEFLATED)
    content = (data / "shift.zip").read_bytes()
    start = content.index(b"gate/four.jpg") + len("gate/four.jpg")
    (data / "shift.zip").write_bytes(content[:start] + b"\xff" + content[start + 1 :])  # zlib has errors of its own
    (data / "._a.jpg").write_bytes(b"of macOS")
    (data / "broken.zip").write_bytes(b"no archive")
    (data / "notes.txt").touch()
    with zipfile.ZipFile(data / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", b"not looked at")
    done = write_items(data, tmp_path / "items", images_per_item=2)
    assert (done.items, done.images, done.skipped) == (4, 7, 2)
    items = sorted((tmp_path / "items").iterdir())
    rows = [json.loads(line) for line in score_items(Stub(), items, data)]  # type: ignore[arg-type]
    names = ["a.jpg", "broken.zip", "empty.zip", *(f"shift.zip/gate/{n}.jpg" for n in ("one", "two", "three", "four"))]
    assert [r["image"] for r in rows] == names
    assert [r["image"] for r in rows if "detections" in r] == ["a.jpg", "shift.zip/gate/one.jpg", "shift.zip/gate/three.jpg"]
    expected = [{"class_name": "helmet", "score": 0.9, "box_xyxy": [0.0, 0.0, 64.0, 48.0]}]
    assert rows[0]["detections"] == rows[3]["detections"] == rows[5]["detections"] == expected
    assert "cannot be read" in rows[1]["error"] and "cannot be decoded" in rows[4]["error"]
    assert "four.jpg: cannot be read" in rows[6]["error"]
    assert rows[2]["skipped"] == "no images in the zip file"


def test_write_items_splits_a_large_zip_file(tmp_path: Path) -> None:
    """A zip file of one site's day must not be one unit of work, which would exceed the timeout of a mini-batch."""
    from ppe_yolo.inference.score_batch import write_items

    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data/day.zip", "w") as archive:
        for number in range(1201):
            archive.writestr(f"{number:04}.jpg", b"")
    assert write_items(tmp_path / "data", tmp_path / "items", images_per_item=500).items == 3
    counts = [len(json.loads(f.read_text())["entries"]) for f in sorted((tmp_path / "items").iterdir())]
    assert counts == [500, 500, 201]


def test_write_items_without_images_raises(tmp_path: Path) -> None:
    from ppe_yolo.inference.score_batch import write_items

    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="expected images or zip files, got 1 other files"):
        write_items(tmp_path, tmp_path / "items", images_per_item=500)
    with pytest.raises(UserError, match="images_per_item: expected at least 1, got 0"):
        write_items(tmp_path, tmp_path / "items", images_per_item=0)
