"""The commands of the documentation run, on drawn data in the place of the reader's.

The quick ones run in every suite. `pytest -m nightly` runs all, page by page and in order, so that a command finds the files
that those above it wrote. `SHORT` makes them quick; `SKIPPED` says what cannot run.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT, blocks, commands, spelled_out
from helpers import child_environment
from ppe_edge.demo.site import DrawnSite
from videos import write_video

from ppe_yolo.data.synthetic import draw_site_dataset

PAGES = ("README.md", "ppe_yolo/GUIDE.md", "edge/README.md", "ppe_yolo/weights/README.md", "ppe_yolo/configs/README.md")
QUICK = ("audit", "anchors", "list", "prepare", "predict")
SKIPPED = {  # the start of a command -> why it does not run
    "pip": "tests/edge/test_install.py and .ci/run install the packages",
    "pytest": "this is it",
    "ppe-edge demo": "ends with Ctrl-C; see tests/edge/test_install.py",
    "ppe-yolo fit ...": "an ellipsis",
    "ppe-yolo fit --config yolov3 --data.root DIR --trainer.devices 4": "needs four GPUs",
    "ppe-yolo azureml submit": "needs Azure; tests/azure/test_submit.py has a stand-in",
    "ppe-yolo benchmark train": "measures speed for a quarter of an hour",
}
STAND_INS = {
    r"\b(DIR1?|HALF|SITES)\b": "data",
    r"\b(DIR2|OFFICES)\b": "data2",
    r"\bMACHINES\b": "data3",
    r"hard-hat-workers|elechat\.yaml|\bNAME\b": "default",
    r"^(CHECKPOINT|MODEL|best\.ckpt)$": "trained.ckpt",
    r"^(MODEL\.onnx)$": "ppe_yolo/weights/helmet-small.int8.onnx",
    r"^FILE$|monday\.mp4": "video.mp4",
    r"az://container/helmets": "store",  # a folder works as well
}
SHORT = {  # the start of a command -> options that make it quick, and run without a GPU
    "ppe-yolo quickstart": ["--epochs", "1"],
    "ppe-yolo fit": [
        *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
        *("--trainer.accelerator", "cpu", "--data.multi_scale", "[96,96]", "--data.num_workers", "0"),
    ],
    "ppe-yolo quantize": ["--max-drop", "10"],  # of a training of three epochs, on six images
    "ppe-yolo azureml run": [
        *("--set", "inputs.accelerator=auto", "--set", "inputs.precision=32-true", "--set", "inputs.max_epochs=1"),
        *("--set", "inputs.recipe=yolov3-small", "--set", "jobs.train.inputs.weights=ppe_yolo/weights/helmet-small.ckpt"),
    ],
}
EXIT_CODES = {
    "ppe-yolo rollback": (2,),  # there is no previous champion
    "ppe-edge score": (0, 1),  # 1: the drawn video misses the limits
}


def here(words: list[str], number: int) -> list[str]:
    """The command with drawn data for its placeholders, and with outputs named DIR in a folder of its own."""
    found = []
    for before, word in pairwise(["", *words]):
        if before in ("--out", "--record"):
            word = f"out-{number}" if re.fullmatch("DIR2?|data", word) else word
        else:
            for pattern, stand_in in STAND_INS.items():
                word = re.sub(pattern, stand_in, word)
        found += sorted(f"images/{image.name}" for image in Path("images").glob("*.jpg"))[:2] if "*" in word else [word]
    if "--version" in found:  # of the documented content; the newest by default
        del found[found.index("--version") :]
    return spelled_out(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: a clone, data sets, images."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("azureml", "edge", "ppe_yolo", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    for seed, (name, trainval) in enumerate({"data": 60, "data2": 10, "data3": 10}.items()):
        draw_site_dataset(folder / name, trainval=trainval, test=trainval // 3, size=(192, 256), seed=seed)
    (folder / "images").symlink_to(folder / "data" / "JPEGImages")
    return folder


@pytest.fixture
def desk(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the commands of one page."""
    for item in site.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "training").symlink_to(site / "data3")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables_have_no_key_without_a_command() -> None:
    found = [words for page in PAGES for words in commands(page)]
    starts = [key for table in (SKIPPED, SHORT, EXIT_CODES) for key in table]
    stale = [key for key in starts if not any(starting({key: key}, words) for words in found)]
    stale += [key for key in STAND_INS if not any(re.search(key, word) for words in found for word in words)]
    assert stale == []


@pytest.mark.usefixtures("desk")
def test_quick_commands_run(run_cli: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAND_INS, r"trained\.ckpt", "helmet-small")  # nothing is trained here
    seen: set[tuple[str, ...]] = set()
    for page in PAGES:
        for words in commands(page):
            command = tuple(here(words[1:], 0))
            if words[0] == "ppe-yolo" and words[1] in QUICK and command not in seen:
                shutil.rmtree("out-0", ignore_errors=True)
                assert run_cli(*command) == 0, (page, words)
                seen.add(command)
    assert {command[0] for command in seen} == set(QUICK)


def run(folder: Path, *words: str) -> tuple[int, str]:
    """Runs a command; returns its exit code and the end of its output."""
    modules = {"ppe-yolo": ["-m", "ppe_yolo"], "ppe-edge": ["-m", "ppe_edge"], "python": []}
    command = [sys.executable, *modules[words[0]], *words[1:]]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=child_environment(), capture_output=True, text=True, timeout=3600, check=False
    )
    print(f"{time.monotonic() - began:6.0f} s  exit {done.returncode}  {' '.join(words)}", flush=True)
    return done.returncode, (done.stdout + done.stderr)[-2000:]


def starting(table: Mapping[str, Any], words: list[str]) -> list[Any]:
    """The values of the table whose key is the start of the command."""
    return [value for key, value in table.items() if words[: len(key.split())] == key.split()]


@pytest.fixture(scope="module")
def trained(site: Path) -> Path:
    """A checkpoint of a short training on `data` and `data2`, in the same folder."""
    data = ["--data.root", "data", "--data.extra_roots", "{data2: default}"]
    start = ["--config", "yolov3-small", "--model.weights", "helmet-small", "--trainer.max_epochs", "3", "--ema.decay", "0.9"]
    size = ["--data.input_size", "[192,256]", "--data.multi_scale", "[192,256]", "--model.optimizer.lr", "0.0005"]
    code, output = run(site, "ppe-yolo", "fit", *start, *data, *size, "--run-dir", "trained")
    assert code == 0, output
    return (site / "trained" / "checkpoints" / "best.ckpt").rename(site / "trained.ckpt")


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run_in_order(page: str, request: pytest.FixtureRequest) -> None:
    desk = request.getfixturevalue("desk")  # made after the training
    drawn = DrawnSite()
    write_video(desk / "video.mp4", [drawn.frame(number / 8) for number in range(160)], fps=8)
    manual = list(blocks((ROOT / "edge" / "README.md").read_text()))
    [truth] = [block for block in manual if block.language == "csv"]
    within_video = iter(("0:04", "0:12", "0:15", "0:18"))  # in the place of the manual's times; the video takes 20 s
    (desk / "events.csv").write_text(re.sub(r"\d+:\d+:\d+", lambda _: next(within_video), "\n".join(truth.lines)))
    assert list(within_video) == [], "the manual has fewer times"
    configuration = yaml.safe_load("\n".join(next(block.lines for block in manual if block.language == "yaml")))
    configuration["cameras"]["gate"]["source"] = "video.mp4"
    (desk / "edge.yaml").write_text(yaml.safe_dump(configuration | {"web": {"port": 0}}))
    failed = []
    for number, words in enumerate(commands(page)):
        if not starting(SKIPPED, words):
            more = [word for options in starting(SHORT, words) for word in options]
            code, output = run(desk, *here(words, number), *more)
            if code not in (starting(EXIT_CODES, words) or [(0,)])[0]:
                failed.append(f"exit code {code}: {' '.join(words)}\n{output}")
    assert not failed, "\n\n".join(failed)
