"""`ppe-yolo fit`: LightningCLI around the task, and the run folder that a training leaves behind."""

import inspect
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytorch_lightning as pl
from jsonargparse import ArgumentError
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.class_map import ClassMap
from ppe_yolo.data.held_out import VALIDATION_KEY, Provenance, descriptions
from ppe_yolo.data.loading.datamodule import DetectionDataModule
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, read_checkpoint
from ppe_yolo.training.arguments import expand_recipes, underscored
from ppe_yolo.training.callbacks import EmaWeights, EpochLines, PrecisionRecallCurves, PredictionGrid
from ppe_yolo.training.mlflow_logger import RecordConfig, tracking_loggers
from ppe_yolo.training.run_dir import VARIABLE, choose_run_dir, forget_if_empty
from ppe_yolo.training.task import DetectorTask

_IRRELEVANT_WARNINGS = (
    ".*does not have many workers.*",  # suggests more than a small machine has cores
    ".*exists and is not empty.*",  # choose_run_dir has checked that
    ".*args parameter is intended to run from within Python.*",  # it does
    ".*LeafSpec.*is deprecated.*",  # from Lightning itself
    ".*overrides the configure_model callback.*",  # it creates no layers here
)


class FitResult(NamedTuple):
    """What a training leaves."""

    run_dir: Path
    trainer: pl.Trainer


class FitCli(LightningCLI):
    """Links the settings that data and model share (class names, input size, seed), and chooses the run folder."""

    _recipe = "run"
    _validated_before: Provenance | None = None  # of the checkpoint to resume from
    _optimizer_before: Mapping[str, Any] = MappingProxyType({})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds options and links."""
        parser.add_argument("--run_dir", type=str | None, default=None, help="Run folder; runs/<recipe>-<number> by default.")
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="Checkpoint to resume from; `last`: that of the run folder."
        )
        parser.add_lightning_class_args(EmaWeights, "ema")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {
                "early_stopping.monitor": "val/map_50",
                "early_stopping.mode": "max",
                "early_stopping.patience": 1000,
                # after each validation: a short training (max_steps) may end before the first one
                "early_stopping.check_on_train_epoch_end": False,
            }
        )
        # from the class map that the data module has loaded
        parser.link_arguments("data.class_map", "model.class_names", compute_fn=_class_names, apply_on="instantiate")
        parser.link_arguments("data.class_map", "model.display_names", compute_fn=_display_names, apply_on="instantiate")
        parser.link_arguments("data.input_size", "model.input_size")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Chooses the run folder before anything is built."""
        self.run_dir, self.checkpoint = choose_run_dir(self.config["run_dir"], self.config["ckpt_path"], self._recipe)
        if self.checkpoint is not None:
            # reports a wrong file in one line instead of a traceback of the trainer
            checkpoint = read_checkpoint(self.checkpoint)
            contract = ModelContract.from_json(checkpoint[CHECKPOINT_KEY]["contract"])
            self._validated_before = contract.provenance.get(VALIDATION_KEY)
            self._optimizer_before = checkpoint.get("hyper_parameters", {}).get("optimizer", {})
        self.config["run_dir"] = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """A trainer that logs into the run folder, and to MLflow if configured; or as the user configured it."""
        # report wrong weights or data before there is a folder, or a run on a server, that would have to be deleted
        self.model.configure_model()
        self._require_same_optimizer()
        self.datamodule.earlier_validation = self.model.pretrained_provenance.get(VALIDATION_KEY)
        self.datamodule.setup("fit")
        self._require_same_validation()
        config = self.config_init["trainer"]
        if config.logger is None or config.logger is True:
            tensorboard = TensorBoardLogger(self.run_dir, name="", version="")
            # TensorBoard comes first: images and config.yaml go to the folder of the first logger
            kwargs["logger"] = [tensorboard, *tracking_loggers(self.run_dir, resume=self.config["ckpt_path"] == "last")]
        return super().instantiate_trainer(**kwargs)

    def _require_same_optimizer(self) -> None:
        """Refuses to resume with settings that the state of the optimizer contains, so that others would have no effect."""
        before, now = self._optimizer_before, asdict(self.model.optimizer_config)
        for key in ("name", "lr", "weight_decay", "momentum"):
            if key in before and before[key] != now[key]:
                raise UserError(
                    setting="ckpt_path",
                    problem=f"the checkpoint was trained with optimizer.{key} {before[key]!r}, now it is {now[key]!r}",
                    hint="use the same configuration to resume, or --model.weights to start a new training from it",
                )

    def _require_same_validation(self) -> None:
        """Refuses to resume with other validation images: the training has seen some of them, so the figures would lie."""
        now = self.datamodule.validation
        before = now if self._validated_before is None else descriptions(self._validated_before)
        if sorted(part["names"] for part in before) != sorted(part["names"] for part in now):
            # all data sets of a training share fraction and seed
            was, is_now = (f"val_fraction {parts[0]['val_fraction']:g} and seed {parts[0]['seed']}" for parts in (before, now))
            why = "the data sets or their images have changed" if was == is_now else f"by {was}; now by {is_now}"
            raise UserError(
                setting="ckpt_path",
                problem=f"the checkpoint was validated on other images ({why}) and may have trained on these",
                hint="use the same data and settings to resume, or --model.weights to start a new training from it",
            )

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        if self.config["ema"]["decay"] == 0:
            callbacks = [c for c in callbacks if not isinstance(c, EmaWeights)]
        folder = self.run_dir / "checkpoints"
        callbacks += [
            ModelCheckpoint(folder, "best", monitor="val/map_50", mode="max", enable_version_counter=False),
            # at the very end of each epoch, so that a resumed training has completed a whole number of epochs
            ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
            EpochLines(),
            PrecisionRecallCurves(),
            PredictionGrid(),
        ]
        if config["logger"] is not False:
            callbacks.append(LearningRateMonitor("step"))
        return super()._instantiate_trainer(config, callbacks)


def _class_names(class_map: ClassMap) -> list[str]:
    return list(class_map.class_names)


def _display_names(class_map: ClassMap) -> dict[str, str]:
    return dict(class_map.display_names)


def fit(arguments: Sequence[str]) -> FitResult:
    """Trains as `ppe-yolo fit` does.

    Args:
        arguments: The options of the command line.

    Raises:
        UserError: Something that the user can fix; its setting is the option to change.
        KeyboardInterrupt: The user stopped the training.
    """
    for message in _IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.getMessage())
    if "LOCAL_RANK" not in os.environ:  # only processes that Lightning starts inherit the folder
        os.environ.pop(VARIABLE, None)
    try:
        expanded, recipe = expand_recipes(underscored(arguments))

        class NamedFitCli(FitCli):
            _recipe = recipe

        cli = _build_cli(NamedFitCli, expanded)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.checkpoint)
    except ArgumentError as error:
        cause = _user_error_behind(error)
        if cause is None:
            raise UserError(" ".join(str(error).split()), hint="see ppe-yolo fit --help") from error
        _show_option(cause)
        raise cause from None
    except UserError as error:
        _show_option(error)
        raise
    except MisconfigurationException as error:  # no GPU, options of the trainer that exclude each other
        raise UserError(" ".join(str(error).split()).rstrip(".!"), hint="see ppe-yolo fit --help") from error
    except SystemExit as stopped:
        if stopped.code == 1:  # by Lightning after Ctrl-C; our exit code 1 says that the answer is no
            raise KeyboardInterrupt from stopped
        raise
    finally:  # a process that is started later, such as one of torchrun, would train into this folder
        os.environ.pop(VARIABLE, None)
        forget_if_empty()
    return FitResult(cli.run_dir, cli.trainer)


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
        # the data module's own sampler divides the images among processes
        trainer_defaults={
            "use_distributed_sampler": False,
            "gradient_clip_val": 10.0,
            "log_every_n_steps": 10,
            "enable_model_summary": False,
        },
        parser_kwargs={"prog": "ppe-yolo fit", "exit_on_error": False},
    )


def _user_error_behind(error: BaseException) -> UserError | None:
    """The user's mistake that the parser wrapped in an error of its own."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, UserError):
        behind = behind.__cause__ or behind.__context__
    return behind


def option_of(setting: str) -> str:
    """The option that sets a parameter of the data module, the task or the trainer: `class_map` -> `--data.class_map`."""
    if setting.startswith("-") or "." in setting:
        return setting if setting.startswith("-") else f"--{setting}"
    for group, kind in (("data", DetectionDataModule), ("model", DetectorTask)):
        if setting in inspect.signature(kind).parameters:
            return f"--{group}.{setting}"
    return f"--{setting.replace('_', '-')}"


def option_names() -> set[str]:
    """Names of all options, without what follows the second dot: `run_dir`, `data.root`, `trainer.max_epochs`."""
    groups = {
        "data": DetectionDataModule, "model": DetectorTask, "trainer": pl.Trainer, "ema": EmaWeights,
        "early_stopping": EarlyStopping,
    }  # fmt: skip
    names = {f"{group}.{name}" for group, kind in groups.items() for name in inspect.signature(kind).parameters}
    return names | {*groups, "config", "help", "print_config", "run_dir", "ckpt_path", "seed_everything"}


def _show_option(error: UserError) -> None:
    if error.setting is not None:
        error.setting = option_of(error.setting)
