"""`ppe-yolo fit`: LightningCLI around the task, and the run folder that a training leaves behind."""

import itertools
import logging
import os
import re
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentError
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.datamodule import DetectionDataModule
from ppe_yolo.inference.checkpoint import read_checkpoint
from ppe_yolo.training.callbacks import EmaWeights, EpochLines, PrecisionRecallCurves, PredictionGrid
from ppe_yolo.training.mlflow_logger import RecordConfig, tracking_loggers
from ppe_yolo.training.task import DetectorTask

RUNS = Path("runs")
_RECIPES = resources.files("ppe_yolo") / "configs"
_RUN_DIR_VARIABLE = "PPE_YOLO_RUN_DIR"  # tells processes that Lightning starts on this machine which folder was chosen


class FitCli(LightningCLI):
    """Adds to LightningCLI what is told once: class names, input size, seed; and the run folder."""

    _recipe = "run"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what data and model share."""
        parser.add_argument("--run_dir", type=str | None, default=None, help="Run folder; runs/<recipe>-<number> if not given.")
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="Go on from this checkpoint; `last`: the run folder's own."
        )
        parser.add_lightning_class_args(EmaWeights, "ema")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {"early_stopping.monitor": "val/map_50", "early_stopping.mode": "max", "early_stopping.patience": 1000}
        )
        parser.link_arguments("data.class_map", "model.class_names", compute_fn=_class_names)
        parser.link_arguments("data.input_size", "model.input_size")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Settles the run folder before anything is built."""
        self.run_dir, self.checkpoint = choose_run_dir(self.config["run_dir"], self.config["ckpt_path"], self._recipe)
        if self.checkpoint is not None:
            read_checkpoint(self.checkpoint)  # a file that is none is refused in one line, not by a traceback of the trainer
        self.config["run_dir"] = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """A trainer that logs into the run folder, and to MLflow where there is one; or as the user configured."""
        # data that cannot be trained on is refused before there is a folder or a run on a server that would have to be deleted
        self.datamodule.setup("fit")
        config = self.config_init["trainer"]
        if config.logger is None or config.logger is True:
            tensorboard = TensorBoardLogger(self.run_dir, name="", version="")
            # TensorBoard's comes first: pictures and config.yaml go to the first one's folder
            kwargs["logger"] = [tensorboard, *tracking_loggers(self.run_dir, go_on=self.config["ckpt_path"] == "last")]
        return super().instantiate_trainer(**kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        if self.config["ema"]["decay"] == 0:
            callbacks = [c for c in callbacks if not isinstance(c, EmaWeights)]
        folder = self.run_dir / "checkpoints"
        callbacks += [
            ModelCheckpoint(folder, "best", monitor="val/map_50", mode="max", enable_version_counter=False),
            # at the very end of each epoch, so that what is resumed is a whole number of epochs
            ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
            EpochLines(),
            PrecisionRecallCurves(),
            PredictionGrid(),
        ]
        if config["logger"] is not False:
            callbacks.append(LearningRateMonitor("step"))
        return super()._instantiate_trainer(config, callbacks)


def _class_names(class_map: str) -> list[str]:
    return list(load_class_map(class_map).class_names)


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(p.name.removesuffix(".yaml") for p in _RECIPES.iterdir() if p.name.endswith(".yaml"))


def expand_recipes(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Replaces `--config NAME` by the packaged recipe's path.

    Returns:
        The arguments, and the recipe's name (for the run folder).

    Raises:
        UserError: Neither a recipe nor a file.
    """
    expanded, recipe = list(arguments), "run"
    for i, argument in enumerate(expanded):
        is_pair = argument in ("--config", "-c") and i + 1 < len(expanded)
        value = expanded[i + 1] if is_pair else argument.partition("=")[2]
        if not is_pair and not argument.startswith("--config="):
            continue
        if value in recipe_names():
            path = str(_RECIPES / f"{value}.yaml")
        elif Path(value).is_file():
            path = value
        else:
            raise UserError(f"--config: expected a recipe ({', '.join(recipe_names())}) or a YAML file, got {value!r}")
        recipe = Path(value).stem
        if is_pair:
            expanded[i + 1] = path
        else:
            expanded[i] = f"--config={path}"
    return expanded, recipe


def free_run_dir(runs: Path, name: str) -> Path:
    """The first of runs/name-1, runs/name-2, ... that is not there yet."""
    return next(folder for n in itertools.count(1) if not (folder := runs / f"{name}-{n}").exists())


def choose_run_dir(run_dir: str | None, ckpt_path: str | None, recipe: str) -> tuple[Path, str | None]:
    """The folder of this run and the checkpoint to go on from.

    `--ckpt_path last` goes on in the given folder, or in the latest one below `runs/` that belongs to the recipe. A given
    folder without a checkpoint is a beginning, so that one command serves a node that may be taken away and come back.

    Raises:
        UserError: Nothing to go on from, or the folder already holds a run.
    """
    inherited = os.environ.get(_RUN_DIR_VARIABLE)
    if inherited:
        folder, is_new = Path(inherited), False
    elif run_dir is not None:
        folder, is_new = Path(run_dir), ckpt_path != "last"
    elif ckpt_path == "last":
        # the number is matched too: yolov3 shall not go on with what yolov3-tiny began
        earlier = [
            folder
            for folder in (p.parent.parent for p in RUNS.glob("*/checkpoints/last.ckpt"))
            if re.fullmatch(rf"{re.escape(recipe)}-\d+", folder.name)
        ]
        if not earlier:
            raise UserError(f"--ckpt_path last: no run {RUNS / recipe}-* with a checkpoint: give --run_dir")
        folder, is_new = max(earlier, key=lambda p: (p / "checkpoints" / "last.ckpt").stat().st_mtime), False
    elif max(int(os.environ.get(v, "1")) for v in ("WORLD_SIZE", "SLURM_NTASKS")) > 1:
        raise UserError("--run_dir: must be given when several processes are started from outside (torchrun, srun)")
    else:
        folder, is_new = free_run_dir(RUNS, recipe), True
    if is_new and (folder / "checkpoints").exists():
        raise UserError(f"{folder}: already holds a run: add --ckpt_path last to go on, or choose another --run_dir")
    os.environ[_RUN_DIR_VARIABLE] = str(folder)
    if ckpt_path != "last":
        return folder, ckpt_path
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        pl.utilities.rank_zero_info(f"{folder}: no checkpoint yet, starting at the beginning")
        return folder, None
    return folder, str(last)


def fit(arguments: Sequence[str]) -> tuple[Path, pl.Trainer]:
    """Trains as `ppe-yolo fit` does; returns the run folder and the trainer."""
    for needless in (
        ".*does not have many workers.*",  # it suggests more than a small machine has cores
        ".*exists and is not empty.*",  # choose_run_dir has seen to that
        ".*args parameter is intended to run from within Python.*",  # it does
        ".*LeafSpec.*is deprecated.*",  # Lightning's own
    ):
        warnings.filterwarnings("ignore", message=needless)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.getMessage())
    expanded, recipe = expand_recipes(arguments)

    class NamedFitCli(FitCli):
        _recipe = recipe

    os.environ.pop(_RUN_DIR_VARIABLE, None) if "LOCAL_RANK" not in os.environ else None
    try:
        cli = _build_cli(NamedFitCli, expanded)
    except ArgumentError as error:
        raise UserError(_first_reason(str(error))) from error
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.checkpoint)
    return cli.run_dir, cli.trainer


def _build_cli(kind: type[FitCli], arguments: list[str]) -> FitCli:
    return kind(
        DetectorTask,
        DetectionDataModule,
        args=arguments,
        run=False,
        seed_everything_default=0,
        save_config_callback=RecordConfig,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
        # the sampler shares photos among processes itself
        trainer_defaults={
            "use_distributed_sampler": False,
            "gradient_clip_val": 10.0,
            "log_every_n_steps": 10,
            "enable_model_summary": False,
        },
        parser_kwargs={"prog": "ppe-yolo fit", "exit_on_error": False},
    )


def _first_reason(message: str) -> str:
    """What jsonargparse says in many lines, in one."""
    text = " ".join(message.split())
    # a mistake that a class map or the like explains itself comes wrapped in words about links
    _, wrapped, own = text.partition(" failed: ")
    return own if wrapped else f"{text}: see ppe-yolo fit --help"
