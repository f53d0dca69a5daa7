"""`ppe-yolo azureml lint`: finds mistakes in Azure ML's YAML, with file and line, before anything is sent to Azure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ppe_yolo.azure.lint.assets import check_compute, check_data, check_environment
from ppe_yolo.azure.lint.components import check_component
from ppe_yolo.azure.lint.keys import SHAPES, check_keys
from ppe_yolo.azure.lint.official import validate
from ppe_yolo.azure.lint.own_commands import VALUE, calls_of, check_own_commands, parse_call
from ppe_yolo.azure.lint.parameters import check_parameters
from ppe_yolo.azure.lint.pipelines import check_pipeline
from ppe_yolo.azure.lint.schedules import check_schedule
from ppe_yolo.azure.lint.settings import check_asset_name, check_settings
from ppe_yolo.azure.trigger import Trigger
from ppe_yolo.azure.yaml.assets import Asset, declared, kind_of, yaml_files
from ppe_yolo.azure.yaml.document import Document, Mistake, UnreadableError, read_document
from ppe_yolo.azure.yaml.pipeline import Pipeline, apply_settings, read_component, read_pipeline
from ppe_yolo.core.errors import UserError

_ASSET_CHECKS = {
    "environment": check_environment,
    "compute": check_compute,
    "schedule": check_schedule,
}


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """The result of `lint`.

    Attributes:
        mistakes: All mistakes: first those of this linter, sorted by file and line, then those of azure-ai-ml.
        checked: The files that were checked.
        skipped_folders: Folders, relative to the linted one, that hold only YAML of other tools (Azure Pipelines, conda).
        azure_validated: Whether azure-ai-ml is installed and validated the files too.
    """

    mistakes: tuple[Mistake, ...]
    checked: tuple[Path, ...]
    skipped_folders: tuple[str, ...]
    azure_validated: bool


def lint(path: Path, commands: Any = None) -> LintReport:
    """Checks a file, or every YAML file below a folder. Files of other tools are skipped.

    Args:
        path: The file or folder.
        commands: The command line `ppe-yolo`, to check the options of its calls in components; None checks none.

    Raises:
        UserError: There is no such YAML file, or the folder holds none.
    """
    files = yaml_files(path) if path.is_dir() else [path]
    if not files or not all(f.is_file() for f in files):
        raise UserError(file=path, expected="a YAML file or a folder that contains some", got="none")
    assets = list(declared(path if path.is_dir() else find_asset_folder(path)))
    mistakes: set[Mistake] = set()
    checked: list[tuple[Path, str]] = []
    for file in files:
        kind, found = _check_file(file, assets, commands, must_be_azure=path.is_file())
        mistakes.update(found)
        if kind is not None:
            checked.append((file, kind))
    azure_mistakes = validate(checked)
    folders = {f.parent for f in files} - {f.parent for f, _ in checked} if path.is_dir() else set()
    return LintReport(
        mistakes=(*sorted(mistakes), *(azure_mistakes or ())),
        checked=tuple(f for f, _ in checked),
        skipped_folders=tuple(sorted(str(f.relative_to(path)) for f in folders)),
        azure_validated=azure_mistakes is not None,
    )


def _check_file(file: Path, assets: Sequence[Asset], commands: Any, *, must_be_azure: bool) -> tuple[str | None, list[Mistake]]:
    """The kind of a file, None if it is not one of Azure ML, and its mistakes."""
    try:
        document = read_document(file)
    except UnreadableError as error:
        return None, [error.mistake]
    kind = kind_of(document.value)
    if kind == "" or (kind is None and must_be_azure):
        what = f"$schema: expected an Azure ML schema for one of {', '.join(SHAPES)}, got {_schema(document)}"
        return None, [document.mistake("unknown-schema", what, "$schema")]
    if kind is None:
        return None, []
    mistakes = check_document(document, kind, assets)
    if commands is not None and isinstance(document.value, Mapping):
        if kind == "component":
            mistakes += check_own_commands(read_component(file, []), commands)
        elif kind == "pipeline":
            mistakes += _check_submissions(read_pipeline(document, []), commands)
    return kind, mistakes


def check_document(document: Document, kind: str, assets: Sequence[Asset]) -> list[Mistake]:
    """Checks one file, and for a pipeline also the components that it names.

    Args:
        document: The file.
        kind: See `kind_of`.
        assets: The assets that the file may refer to.
    """
    if not isinstance(document.value, Mapping):
        return [document.mistake("wrong-shape", "expected keys and values")]
    mistakes = check_keys(document, kind)
    if kind in ("pipeline", "pipeline component"):
        pipeline = read_pipeline(document, mistakes)
        mistakes += check_pipeline(pipeline, assets) + check_parameters(pipeline)
        for component in {j.component.path: j.component for j in pipeline.jobs.values() if j.component}.values():
            mistakes += check_keys(component.document, "component") + check_component(component, assets)
    elif kind in ("component", "command"):
        component = read_component(document.path, mistakes)
        mistakes += check_component(component, assets)
    else:
        mistakes += check_asset_name(document) + check_settings(document, document.value, ())
        mistakes += check_data(document, assets) if kind == "data" else _ASSET_CHECKS[kind](document)
    return mistakes


def _check_submissions(pipeline: Pipeline, commands: Any) -> list[Mistake]:
    """Checks the calls of `ppe-yolo azureml submit` in the jobs of a schedule, with the values that the jobs give them."""
    mistakes = []
    for job in pipeline.jobs.values():
        component = job.component
        if component is None:
            continue
        for call in calls_of(component, partial(pipeline.value_of, job)):
            if call[:2] == ["azureml", "submit"] and (reason := _refuse_submission(call, commands, component.code or Path())):
                mistakes.append(pipeline.document.mistake("wrong-submission", reason, "jobs", job.name))
    return mistakes


def _refuse_submission(call: Sequence[str], commands: Any, folder: Path) -> str | None:
    """Why `ppe-yolo azureml submit` rejects its arguments in a folder. Values that are known only later are not checked."""
    try:
        values = parse_call(call, commands)
    except UserError as error:
        return str(error).replace(VALUE, "${{...}}")
    settings, pipeline = values.get("settings") or (), values["pipeline"]
    later = [setting.partition("=") for setting in settings if VALUE in setting]
    try:
        for trigger in values.get("only_if") or ():
            file, colon, limit = trigger.rpartition(":")
            if VALUE not in limit or (not limit.startswith(VALUE) and {"<", ">"} & set(limit)):
                Trigger.parse(f"{file}{colon}{limit.replace(VALUE, '0')}")
        if VALUE not in pipeline:
            load_checked_pipeline(folder / pipeline, [setting for setting in settings if VALUE not in setting])
            # of the others, only the key may be known
            keys = [key for key, equals, _ in later if equals and VALUE not in key]
            apply_settings(read_document(folder / pipeline), [f"{key}=0" for key in keys])
    except UserError as error:
        return f"ppe-yolo azureml submit: {error}".replace(VALUE, "${{...}}")
    return None


def load_checked_pipeline(path: Path, settings: Sequence[str]) -> tuple[Pipeline, dict[str, Any]]:
    """Reads a pipeline, applies `--set` and checks the result.

    Args:
        path: The pipeline's file.
        settings: `KEY=VALUE` each, see `apply_settings`.

    Returns:
        The pipeline, and the settings by their dotted keys.

    Raises:
        UserError: The file is not a pipeline, a setting is wrong, or the check finds mistakes; the message shows the first.
    """
    document = read_document(path)
    if kind_of(document.value) != "pipeline":
        raise UserError(file=path, expected="an Azure ML pipeline (pipelineJob.schema.json)", got=str(_schema(document)))
    document, changed = apply_settings(document, settings)
    mistakes = sorted(set(check_document(document, "pipeline", list(declared(find_asset_folder(path))))))
    if mistakes:
        more = f" (and {len(mistakes) - 1} more: run ppe-yolo azureml lint)" if len(mistakes) > 1 else ""
        raise UserError(f"{mistakes[0]}{more}")
    return read_pipeline(document, []), changed


def find_asset_folder(path: Path) -> Path:
    """The folder whose files declare what `path` refers to: the nearest parent that has a folder `environments`."""
    path = path.resolve()
    return next((p for p in path.parents if (p / "environments").is_dir()), path.parent)


def _schema(document: Document) -> Any:
    return document.value.get("$schema") if isinstance(document.value, Mapping) else None
