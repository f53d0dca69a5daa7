"""Recipes by name, and the folder of a run."""

import os
import re
from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.training import fit
from ppe_yolo.training.fit import choose_run_dir, expand_recipes, free_run_dir, recipe_names

VARIABLE = "PPE_YOLO_RUN_DIR"


@pytest.fixture(autouse=True)
def empty_place(tmp_path, monkeypatch):
    """An empty working folder, and no variables of another training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is gone after it
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def begun(folder, age=0):
    """A run folder with a checkpoint, `age` seconds old."""
    last = Path(folder) / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    os.utime(last, (1e9 - age, 1e9 - age))
    return last


def test_recipes_that_come_with_the_package():
    assert recipe_names() == ["quickstart", "yolov3", "yolov3-small", "yolov3-tiny"]


def test_a_bare_name_is_a_packaged_recipe():
    for arguments in (["--config", "yolov3-tiny", "--data.root", "x"], ["--config=yolov3-tiny"], ["-c", "yolov3-tiny"]):
        expanded, recipe = expand_recipes(arguments)
        assert recipe == "yolov3-tiny" and len(expanded) == len(arguments)
        path = Path(next(a.removeprefix("--config=") for a in expanded if a.endswith(".yaml")))
        assert path.is_file() and path.name == "yolov3-tiny.yaml"
        assert expanded[2:] == arguments[2:]
    assert arguments == ["-c", "yolov3-tiny"], "what the caller handed over is left alone"


def test_a_file_is_taken_as_it_is_and_the_last_one_names_the_run():
    Path("site.yaml").touch()
    expanded, recipe = expand_recipes(["--config", "yolov3", "--config", "site.yaml", "--trainer.max_epochs=3"])
    assert (expanded[3:], recipe) == (["site.yaml", "--trainer.max_epochs=3"], "site")
    assert expand_recipes(["--config=site.yaml"]) == (["--config=site.yaml"], "site")


def test_without_a_recipe_the_run_is_called_run():
    assert expand_recipes(["--data.root", "yolov3"]) == (["--data.root", "yolov3"], "run")
    assert expand_recipes(["--config"]) == (["--config"], "run")  # the parser tells what is missing


@pytest.mark.parametrize("arguments", [["--config", "yolov4"], ["--config=yolov4"], ["-c", "."]])
def test_neither_recipe_nor_file_is_refused(arguments):
    expected = "--config: expected a recipe (quickstart, yolov3, yolov3-small, yolov3-tiny) or a YAML file, got "
    with pytest.raises(UserError, match=re.escape(expected)):
        expand_recipes(arguments)


def test_the_first_free_number_is_taken():
    assert free_run_dir(Path("runs"), "a") == Path("runs/a-1")
    Path("runs/a-1").mkdir(parents=True)
    Path("runs/a-3").mkdir()
    assert free_run_dir(Path("runs"), "a") == Path("runs/a-2")


def test_a_new_run_gets_a_new_folder_and_tells_other_processes():
    assert choose_run_dir(None, None, "yolov3") == (Path("runs/yolov3-1"), None)
    assert os.environ[VARIABLE] == "runs/yolov3-1"
    # what Lightning starts beside this process inherits the choice, even when the folder is there by now
    begun("runs/yolov3-1")
    assert choose_run_dir(None, None, "yolov3") == (Path("runs/yolov3-1"), None)


def test_a_given_folder_is_used():
    assert choose_run_dir("mine", None, "yolov3") == (Path("mine"), None)
    os.environ[VARIABLE] = ""
    Path("mine").mkdir()  # a folder without a run is free
    assert choose_run_dir("mine", "other.ckpt", "yolov3") == (Path("mine"), "other.ckpt")


def test_a_folder_that_holds_a_run_is_not_begun_again():
    begun("mine")
    for checkpoint in (None, "other.ckpt"):
        with pytest.raises(UserError, match=r"^mine: already holds a run: add --ckpt_path last to go on, or choose another"):
            choose_run_dir("mine", checkpoint, "yolov3")
    assert not os.environ[VARIABLE]


def test_last_goes_on_in_the_given_folder():
    last = begun("mine")
    assert choose_run_dir("mine", "last", "yolov3") == (Path("mine"), str(last))


def test_last_in_a_given_folder_without_a_checkpoint_is_a_beginning():
    assert choose_run_dir("mine", "last", "yolov3") == (Path("mine"), None)


def test_last_without_a_folder_is_the_recipes_latest_run():
    begun("runs/yolov3-1", age=20)
    latest = begun("runs/yolov3-2", age=10)
    begun("runs/yolov3-3", age=30)
    begun("runs/yolov3-tiny-1")  # younger, but of another recipe
    Path("runs/yolov3-4").mkdir()
    assert choose_run_dir(None, "last", "yolov3") == (Path("runs/yolov3-2"), str(latest))


def test_last_without_any_run_is_refused():
    begun("runs/yolov3-tiny-1")
    with pytest.raises(UserError, match=r"^--ckpt_path last: no run runs/yolov3-\* with a checkpoint: give --run_dir$"):
        choose_run_dir(None, "last", "yolov3")


def test_processes_from_outside_must_be_given_one_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^--run_dir: must be given when several processes are started from outside"):
        choose_run_dir(None, None, "yolov3")
    assert choose_run_dir("mine", None, "yolov3") == (Path("mine"), None)


def test_class_names_come_from_the_class_map():
    assert fit._class_names("default") == ["helmet", "none"]
