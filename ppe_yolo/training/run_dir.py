"""The run folder of a training, and the checkpoint that it resumes from."""

import itertools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from ppe_yolo.core.errors import UserError

RUNS = Path("runs")
VARIABLE = "PPE_YOLO_RUN_DIR"  # passes the chosen folder to the processes that Lightning starts on this machine
_made: list[Path] = []  # by the run of this process, innermost first


class RunDir(NamedTuple):
    """The run folder, and the checkpoint to resume from."""

    folder: Path
    checkpoint: str | None


def free_run_dir(runs: Path, name: str) -> Path:
    """The first of runs/name-1, runs/name-2, ... that does not exist."""
    return next(folder for n in itertools.count(1) if not (folder := runs / f"{name}-{n}").exists())


def choose_run_dir(run_dir: str | None, ckpt_path: str | None, recipe: str) -> RunDir:
    """Chooses the folder of this run and the checkpoint to resume from.

    `--ckpt-path last` resumes in the given folder, or in the latest one below `runs/` that belongs to the recipe. A given
    folder without a checkpoint starts from scratch, so that one command works on pre-emptible nodes.

    A new run makes the folder `checkpoints` at once, so that another that starts at the same time cannot take the same folder.

    Raises:
        UserError: Nothing to resume from, the folder already holds a run, or it cannot be written.
    """
    inherited = os.environ.get(VARIABLE)
    if inherited:
        folder, is_new = Path(inherited), False
    elif run_dir is not None:
        folder, is_new = Path(run_dir), ckpt_path != "last"
    elif ckpt_path == "last":
        folder, is_new = _latest_run(recipe), False
    elif max(int(os.environ.get(v, "1")) for v in ("WORLD_SIZE", "SLURM_NTASKS")) > 1:
        raise UserError(
            setting="run_dir", problem="must be given when several processes are started from outside (torchrun, srun)"
        )
    else:
        folder, is_new = free_run_dir(RUNS, recipe), True
    while is_new and not _claim(folder):
        if run_dir is not None:
            raise _taken(folder)
        folder = free_run_dir(RUNS, recipe)
    os.environ[VARIABLE] = str(folder)
    if ckpt_path != "last":
        return RunDir(folder, ckpt_path)
    if not _last(folder).is_file():
        rank_zero_info(f"{folder}: no checkpoint yet, starting from scratch")
        return RunDir(folder, None)
    return RunDir(folder, str(_last(folder)))


def _last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def _taken(folder: Path) -> UserError:
    if _last(folder).exists():
        hint = "add --ckpt-path last to resume it, or choose another --run-dir"
        return UserError(file=folder, problem="already holds a run", hint=hint)
    hint = "delete the folder if that run is over, or choose another --run-dir"
    return UserError(file=folder, problem="belongs to a run without a checkpoint yet", hint=hint)


def _claim(folder: Path) -> bool:
    """Whether this run gets a folder; false if another has it."""
    checkpoints = folder / "checkpoints"
    if not _is_first_process():  # the first one claims it for all
        return not _last(folder).exists()
    missing = [path for path in (checkpoints, folder) if not path.exists()]
    try:
        checkpoints.mkdir(parents=True)
    except OSError as error:
        if checkpoints.is_dir():
            return False
        raise UserError(f"cannot be written ({error.strerror})", setting="run_dir", file=folder) from error
    _made[:] = missing
    return True


def _is_first_process() -> bool:
    """Whether this is the first process of the first node. Lightning's own way to start a node sets only the node's rank."""
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return not getattr(rank_zero_only, "rank", 0) and int(node) == 0


def forget_if_empty() -> None:
    """Removes the folders that this run made if it wrote nothing, so that the same command can start again."""
    with suppress(OSError):  # not empty
        while _made:
            _made.pop(0).rmdir()
    _made.clear()


def _latest_run(recipe: str) -> Path:
    # the number is matched too: yolov3 must not resume what yolov3-tiny started
    folders = [last.parent.parent for last in RUNS.glob("*/checkpoints/last.ckpt")]  # skips folders that are not readable
    earlier = [folder for folder in folders if re.fullmatch(rf"{re.escape(recipe)}-\d+", folder.name)]
    if not earlier:
        raise UserError(f"--ckpt-path last: no run {RUNS / recipe}-* has a checkpoint: give --run-dir")
    return max(earlier, key=lambda folder: _last(folder).stat().st_mtime)
