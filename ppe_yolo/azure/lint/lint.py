"""`ppe-yolo azureml lint`: what is wrong with Azure ML's YAML, with file and line, before Azure is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ppe_yolo.azure.lint.check_assets import check_compute, check_data, check_environment, check_schedule
from ppe_yolo.azure.lint.check_component import check_component
from ppe_yolo.azure.lint.check_pipeline import check_pipeline
from ppe_yolo.azure.lint.keys import SHAPES, check_keys
from ppe_yolo.azure.lint.official import validate
from ppe_yolo.azure.yaml.assets import Asset, declared, kind_of, yaml_files
from ppe_yolo.azure.yaml.document import Document, Mistake, UnreadableError, read_document
from ppe_yolo.azure.yaml.pipeline import Pipeline, apply_settings, read_component, read_pipeline
from ppe_yolo.core.errors import UserError

_ASSET_CHECKS = {
    "environment": check_environment,
    "compute": check_compute,
    "data": check_data,
    "schedule": check_schedule,
}


def lint(path: Path, console: Console) -> list[Mistake]:
    """Checks a file, or every file below a folder, and prints what is wrong.

    Args:
        path: A file or a folder; files of another kind (Azure Pipelines, conda) are passed over, and that is said.
        console: Where to print.

    Returns:
        The mistakes.

    Raises:
        UserError: Nothing there to check.
    """
    files = yaml_files(path) if path.is_dir() else [path]
    if not files or not all(f.is_file() for f in files):
        raise UserError(f"{path}: expected a YAML file, or a folder with some, got none")
    folder = path if path.is_dir() else _root(path)
    mistakes: set[Mistake] = set()
    checked: list[tuple[Path, str]] = []
    assets = list(declared(folder))
    for file in files:
        try:
            document = read_document(file)
        except UnreadableError as error:
            mistakes.add(error.mistake)
            continue
        kind = kind_of(document.value)
        if kind == "" or (kind is None and path.is_file()):
            what = f"$schema: expected one of Azure ML's for a {', '.join(SHAPES)}, got {_schema(document)}"
            mistakes.add(document.mistake("unknown-schema", what, "$schema"))
        elif kind is not None:
            checked.append((file, kind))
            mistakes |= set(check_document(document, kind, assets))
    ours = sorted(mistakes)
    others = _official(checked, console)
    for mistake in (*ours, *others):
        console.print(str(mistake), markup=False, soft_wrap=True)
    passed = sorted(
        {str(f.parent.relative_to(folder)) for f in files} - {str(f.parent.relative_to(folder)) for f, _ in checked}
    )
    if passed:
        console.print(f"not Azure ML's, passed over: {', '.join(passed)}", soft_wrap=True)
    console.print(f"{len(checked)} files checked, {len(ours) + len(others)} mistakes", soft_wrap=True)
    return [*ours, *others]


def _official(checked: Sequence[tuple[Path, str]], console: Console) -> list[Mistake]:
    """Azure's own validation, where it is installed; said plainly where it is not."""
    found = validate(checked)
    if found is None:
        console.print(
            "azure-ai-ml is not installed: Azure's own validation was not run (pip install 'ppe-yolo[azureml]')", markup=False
        )
        return []
    return found


def check_document(document: Document, kind: str, assets: list[Asset]) -> list[Mistake]:
    """Mistakes of one file, and of the components that a pipeline names.

    Args:
        document: The file.
        kind: See `kind_of`.
        assets: What it may refer to.
    """
    if not isinstance(document.value, Mapping):
        return [document.mistake("wrong-shape", "expected keys and values")]
    mistakes = check_keys(document, kind)
    if kind == "pipeline":
        pipeline = read_pipeline(document, mistakes)
        mistakes += check_pipeline(pipeline, assets)
        for component in {j.component.path: j.component for j in pipeline.jobs.values() if j.component}.values():
            mistakes += check_keys(component.document, "component") + check_component(component, assets)
    elif kind in ("component", "command"):
        component = read_component(document.path, mistakes)
        mistakes += check_component(component, assets)
    else:
        mistakes += _ASSET_CHECKS[kind](document)
    return mistakes


def checked_pipeline(path: Path, settings: Sequence[str]) -> tuple[Pipeline, dict[str, Any]]:
    """A pipeline to run, with `--set`.

    Returns:
        The pipeline, and the settings by their dotted keys.

    Raises:
        UserError: Lint finds something; names the first.
    """
    document = read_document(path)
    if kind_of(document.value) != "pipeline":
        raise UserError(f"{path}: expected a pipeline of Azure ML (pipelineJob.schema.json), got {_schema(document)}")
    document, changed = apply_settings(document, settings)
    mistakes = sorted(set(check_document(document, "pipeline", list(declared(_root(path))))))
    if mistakes:
        more = f" (and {len(mistakes) - 1} more: see ppe-yolo azureml lint)" if len(mistakes) > 1 else ""
        raise UserError(f"{mistakes[0]}{more}")
    return read_pipeline(document, []), changed


def _schema(document: Document) -> Any:
    return document.value.get("$schema") if isinstance(document.value, Mapping) else None


def _root(path: Path) -> Path:
    """The folder that declares what a file refers to: the nearest one above it with a folder of environments."""
    path = path.resolve()
    return next((p for p in path.parents if (p / "environments").is_dir()), path.parent)
