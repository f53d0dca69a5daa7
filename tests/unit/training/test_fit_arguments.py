"""Arguments of fit: option names, recipes, and the run folder."""

import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.call import _call_and_handle_interrupt

from ppe_yolo.cli import main
from ppe_yolo.core.errors import UserError
from ppe_yolo.training import fit, run_dir
from ppe_yolo.training.arguments import expand_recipes, recipe_names, underscored
from ppe_yolo.training.run_dir import VARIABLE, choose_run_dir, forget_if_empty, free_run_dir


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """An empty working directory, and no variables of another training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is gone after it
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def started(folder, age=0):
    """A run folder with a checkpoint, `age` seconds old."""
    last = Path(folder) / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    os.utime(last, (1e9 - age, 1e9 - age))
    return last


def test_recipe_names_lists_bundled_recipes():
    assert recipe_names() == ["quickstart", "yolov3", "yolov3-small", "yolov3-tiny"]


def test_expand_recipes_name_becomes_path_of_bundled_recipe():
    for arguments in (["--config", "yolov3-tiny", "--data.root", "x"], ["--config=yolov3-tiny"], ["-c", "yolov3-tiny"]):
        expanded, recipe = expand_recipes(arguments)
        assert recipe == "yolov3-tiny" and len(expanded) == len(arguments)
        path = Path(next(a.removeprefix("--config=") for a in expanded if a.endswith(".yaml")))
        assert path.is_file() and path.name == "yolov3-tiny.yaml"
        assert expanded[2:] == arguments[2:]
    assert arguments == ["-c", "yolov3-tiny"], "the caller's list is left alone"


def test_expand_recipes_keeps_files_and_names_run_after_last():
    Path("site.yaml").touch()
    expanded, recipe = expand_recipes(["--config", "yolov3", "--config", "site.yaml", "--trainer.max_epochs=3"])
    assert (expanded[3:], recipe) == (["site.yaml", "--trainer.max_epochs=3"], "site")
    assert expand_recipes(["--config=site.yaml"]) == (["--config=site.yaml"], "site")


def test_expand_recipes_without_config_calls_the_run_run():
    assert expand_recipes(["--data.root", "yolov3"]) == (["--data.root", "yolov3"], "run")
    assert expand_recipes(["--config"]) == (["--config"], "run")  # the parser reports what is missing


@pytest.mark.parametrize("arguments", [["--config", "yolov4"], ["--config=yolov4"], ["-c", "."]])
def test_expand_recipes_unknown_name_is_refused(arguments):
    expected = "config: expected a recipe (quickstart, yolov3, yolov3-small, yolov3-tiny) or a YAML file, got "
    with pytest.raises(UserError, match=re.escape(expected)):
        expand_recipes(arguments)


def test_free_run_dir_takes_first_free_number():
    assert free_run_dir(Path("runs"), "a") == Path("runs/a-1")
    Path("runs/a-1").mkdir(parents=True)
    Path("runs/a-3").mkdir()
    assert free_run_dir(Path("runs"), "a") == Path("runs/a-2")


def test_choose_run_dir_new_run_passes_folder_to_other_processes():
    assert choose_run_dir(None, None, "yolov3") == (Path("runs/yolov3-1"), None)
    assert os.environ[VARIABLE] == "runs/yolov3-1"
    # processes that Lightning starts inherit the choice, even if the folder exists by now
    assert choose_run_dir(None, None, "yolov3") == (Path("runs/yolov3-1"), None)


def test_choose_run_dir_of_two_runs_that_start_at_once_is_different(monkeypatch):
    free = iter(["a-1", "a-1", "a-2"])
    monkeypatch.setattr(run_dir, "free_run_dir", lambda runs, _: runs / next(free))
    assert choose_run_dir(None, None, "a").folder == Path("runs/a-1")
    os.environ[VARIABLE] = ""
    assert choose_run_dir(None, None, "a").folder == Path("runs/a-2")
    os.environ[VARIABLE] = ""
    with pytest.raises(
        UserError, match=r"^runs/a-1: belongs to a run without a checkpoint yet: delete the folder if that run is"
    ):
        choose_run_dir("runs/a-1", None, "a")
    forget_if_empty()  # the second one wrote nothing
    assert [path.name for path in Path("runs").iterdir()] == ["a-1"]


def test_forget_if_empty_keeps_folder_that_the_run_did_not_make():
    Path("mine").mkdir()
    choose_run_dir("mine", None, "a")
    forget_if_empty()
    assert not list(Path("mine").iterdir())
    os.environ[VARIABLE] = ""
    Path("theirs/checkpoints").mkdir(parents=True)  # of a run that has started
    choose_run_dir("theirs", "last", "a")
    forget_if_empty()
    assert Path("theirs/checkpoints").is_dir()


def test_choose_run_dir_below_dangling_link_is_refused():
    Path("runs").symlink_to("missing")
    with pytest.raises(UserError, match=r"^run_dir: runs/a-1: cannot be written \(File exists\)$"):
        choose_run_dir(None, None, "a")


@pytest.mark.parametrize("variable", ["NODE_RANK", "GROUP_RANK"])
def test_choose_run_dir_of_second_node_is_that_of_first(monkeypatch, variable):
    Path("mine/checkpoints").mkdir(parents=True)  # by the first node, on a shared disk
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(variable, "1")
    assert choose_run_dir("mine", None, "a") == (Path("mine"), None)
    forget_if_empty()
    assert Path("mine/checkpoints").is_dir()


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [("fit --data.root d", "NODE_RANK", "two"), ("quickstart", "RANK", ""), ("benchmark train", "SLURM_NTASKS", "2(x4)")],
)
def test_process_number_that_is_no_number_is_refused(monkeypatch, capsys, command, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(command.split())
    hint = f"correct the environment variable, or remove it (unset {variable})"
    assert capsys.readouterr().err == f"ppe-yolo: error: {variable}: expected a whole number, got {value!r}: {hint}\n"


def test_choose_run_dir_of_later_process_is_that_of_first(monkeypatch):
    monkeypatch.setattr(run_dir.rank_zero_only, "rank", 1)
    Path("mine/checkpoints").mkdir(parents=True)
    assert choose_run_dir("mine", None, "a") == (Path("mine"), None)
    os.environ[VARIABLE] = ""
    started("old")
    with pytest.raises(UserError, match=r"^old: already holds a run"):
        choose_run_dir("old", None, "a")


def test_choose_run_dir_that_cannot_be_written_is_refused():
    Path("file").touch()
    with pytest.raises(UserError, match=r"^run_dir: file: cannot be written \(Not a directory\)$"):
        choose_run_dir("file", None, "a")


def test_choose_run_dir_uses_given_folder():
    assert choose_run_dir("mine", None, "yolov3") == (Path("mine"), None)
    os.environ[VARIABLE] = ""
    Path("empty").mkdir()  # a folder without a run is free
    assert choose_run_dir("empty", "other.ckpt", "yolov3") == (Path("empty"), "other.ckpt")


def test_choose_run_dir_folder_with_run_is_refused():
    started("mine")
    for checkpoint in (None, "other.ckpt"):
        with pytest.raises(
            UserError, match=r"^mine: already holds a run: add --ckpt-path last to resume it, or choose another"
        ):
            choose_run_dir("mine", checkpoint, "yolov3")
    assert not os.environ[VARIABLE]


def test_choose_run_dir_last_resumes_in_given_folder():
    last = started("mine")
    assert choose_run_dir("mine", "last", "yolov3") == (Path("mine"), str(last))


def test_choose_run_dir_last_without_checkpoint_starts_from_scratch():
    assert choose_run_dir("mine", "last", "yolov3") == (Path("mine"), None)


def test_choose_run_dir_last_without_folder_is_latest_run_of_recipe():
    started("runs/yolov3-1", age=20)
    latest = started("runs/yolov3-2", age=10)
    started("runs/yolov3-3", age=30)
    started("runs/yolov3-tiny-1")  # younger, but of another recipe
    Path("runs/yolov3-4").mkdir()
    assert choose_run_dir(None, "last", "yolov3") == (Path("runs/yolov3-2"), str(latest))


def test_choose_run_dir_last_without_any_run_is_refused():
    started("runs/yolov3-tiny-1")
    with pytest.raises(UserError, match=r"^--ckpt-path last: no run runs/yolov3-\* has a checkpoint: give --run-dir$"):
        choose_run_dir(None, "last", "yolov3")


def test_choose_run_dir_torchrun_without_folder_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^run_dir: must be given when several processes are started from outside"):
        choose_run_dir(None, None, "yolov3")
    assert choose_run_dir("mine", None, "yolov3") == (Path("mine"), None)


def test_resume_with_data_sets_in_other_order_is_accepted():
    first, second, other = ({"val_fraction": 0.1, "seed": 0, "photos": 1, "names": name} for name in "abc")
    cli = SimpleNamespace(_validated_before=[first, second], datamodule=SimpleNamespace(validation=[second, first]))
    fit.FitCli._require_same_validation(cli)
    cli.datamodule.validation = [first, other]
    with pytest.raises(UserError, match=r"other images \(the data sets or their images have changed\) and may have trained"):
        fit.FitCli._require_same_validation(cli)


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["--run-dir", "a-b"], ["--run_dir", "a-b"]),
        (["--run-dir=a-b"], ["--run_dir=a-b"]),
        (["--ckpt-path", "last"], ["--ckpt_path", "last"]),
        (["--data.class-map", "hard-hat-workers"], ["--data.class_map", "hard-hat-workers"]),
        (["--data.extra-roots", "{my-data: shwd+gdut-hwd}"], ["--data.extra_roots", "{my-data: shwd+gdut-hwd}"]),
        (["--data.extra-roots.my-folder/a-b=shwd"], ["--data.extra_roots.my-folder/a-b=shwd"]),
        (["--data.extra_roots.my-folder", "a-b"], ["--data.extra_roots.my-folder", "a-b"]),
        (["--model.loss.assign.max-ratio=4"], ["--model.loss.assign.max_ratio=4"]),
        (["--model.anchors_wh", "[[1,2]]", "-c", "yolov3-tiny", "--", "-1"], None),
    ],
)
def test_underscored_changes_option_names_only(given, parsed):
    assert underscored(given) == (parsed or given)


def test_fit_leaves_its_run_folder_to_no_later_process():
    with pytest.raises(UserError, match="missing"):
        fit.fit(["--config", "yolov3-tiny", "--data.root", "missing", "--run_dir", "run"])
    assert VARIABLE not in os.environ


def test_fit_options_that_lightning_refuses_are_one_line(monkeypatch):
    monkeypatch.setattr(fit, "_build_cli", lambda *_: pl.Trainer(enable_checkpointing=False, callbacks=[ModelCheckpoint()]))
    with pytest.raises(UserError, match=r"^Trainer was configured with `enable_checkpointing=False` but .*: see ppe-yolo fit"):
        fit.fit([])


def test_fit_that_the_user_stops_exits_with_130(monkeypatch):
    cli = SimpleNamespace(model=None, datamodule=None, checkpoint=None)
    trainer = pl.Trainer(logger=False, barebones=True, accelerator="cpu")
    trainer.fit = lambda *_, **__: _call_and_handle_interrupt(trainer, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    cli.trainer = trainer
    monkeypatch.setattr(fit, "_build_cli", lambda *_: cli)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit, match=r"^130$"):
        main(["fit"])
    signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("class_map", "--data.class_map"),
        ("input_size", "--data.input_size"),
        ("box_coding", "--model.box_coding"),
        ("run_dir", "--run-dir"),
        ("ckpt_path", "--ckpt-path"),
        ("trainer.max_epochs", "--trainer.max_epochs"),
        ("--class-map", "--class-map"),
    ],
)
def test_option_of_setting_is_option_of_fit(setting, option):
    assert fit.option_of(setting) == option
