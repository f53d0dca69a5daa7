"""Checks of the values that the commands of ppe-yolo would reject, some of them only after hours of training."""

from pathlib import Path
from typing import Any

from ppe_yolo.azure.lint.settings import ASSET_NAME
from ppe_yolo.azure.yaml.bindings import ParentInput
from ppe_yolo.azure.yaml.document import Mistake
from ppe_yolo.azure.yaml.pipeline import Job, Pipeline, binding_of
from ppe_yolo.core.contract import STRIDE
from ppe_yolo.core.errors import UserError
from ppe_yolo.training.arguments import recipe_names


class _Values:
    """The inputs of the steps of a pipeline whose components are named ppe_yolo_*, by step and input."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._jobs: dict[str, Job] = {
            str(job.component.value.get("name")): job for job in pipeline.jobs.values() if job.component is not None
        }

    def get(self, component: str, name: str) -> Any:
        """The value of an input; None if it is not known here."""
        job = self._jobs.get(component)
        return None if job is None else self._pipeline.value_of(job, name)

    def folder(self, component: str) -> Path:
        """The working directory of the command of a step."""
        job = self._jobs[component]
        return (job.component.code if job.component else None) or Path()

    def mistake(self, component: str, name: str, message: str) -> Mistake:
        """A mistake at the value of an input."""
        job = self._jobs[component]
        binding = binding_of(job.inputs.get(name))
        keys = ("inputs", binding.name) if isinstance(binding, ParentInput) else ("jobs", job.name, "inputs", name)
        return self._pipeline.document.mistake("wrong-value", f"{name}: {message}", *keys)


def check_parameters(pipeline: Pipeline) -> list[Mistake]:
    """Checks class map, recipe, sizes, rule, critical class and model name of a training pipeline."""
    values = _Values(pipeline)
    return [*_check_recipe(values), *_check_sizes(values), *_check_classes(values), *_check_model_name(values)]


def _check_model_name(values: _Values) -> list[Mistake]:
    name = values.get("ppe_yolo_promote", "model_name")
    if name is None or ASSET_NAME.fullmatch(str(name)):
        return []
    return [values.mistake("ppe_yolo_promote", "model_name", f"expected letters, digits, - and _, got {name!r}")]


def _check_recipe(values: _Values) -> list[Mistake]:
    recipe = values.get("ppe_yolo_train", "recipe")
    if not isinstance(recipe, str):
        return []
    if recipe in recipe_names() or (values.folder("ppe_yolo_train") / recipe).is_file():
        return []
    what = f"expected {', '.join(recipe_names())} or a YAML file in the code folder, got {recipe}"
    return [values.mistake("ppe_yolo_train", "recipe", what)]


def _check_sizes(values: _Values) -> list[Mistake]:
    mistakes = []
    for name in ("height", "width", "smallest_side", "largest_side"):
        side = values.get("ppe_yolo_train", name)
        if isinstance(side, int) and side % STRIDE:
            mistakes.append(values.mistake("ppe_yolo_train", name, f"expected a multiple of {STRIDE}, got {side}"))
    smallest, largest = (values.get("ppe_yolo_train", f"{which}_side") for which in ("smallest", "largest"))
    if isinstance(smallest, int) and isinstance(largest, int) and smallest > largest:
        what = f"expected at most largest_side, {largest}, got {smallest}"
        mistakes.append(values.mistake("ppe_yolo_train", "smallest_side", what))
    return mistakes


def _check_classes(values: _Values) -> list[Mistake]:
    from ppe_yolo.data.class_map import bundled_names, load_class_map
    from ppe_yolo.evaluation.decisions.rules import parse_rules

    name = values.get("ppe_yolo_prepare", "class_map")
    if not isinstance(name, str):
        return []
    try:
        class_map = load_class_map(name if name in bundled_names() else values.folder("ppe_yolo_prepare") / name)
    except UserError as error:
        return [values.mistake("ppe_yolo_prepare", "class_map", str(error))]
    mistakes = []
    rule = values.get("ppe_yolo_report", "rule")
    if isinstance(rule, str):
        try:
            parse_rules([rule], class_map.class_names)
        except UserError as error:
            mistakes.append(values.mistake("ppe_yolo_report", "rule", str(error)))
    critical = values.get("ppe_yolo_promote", "critical_class")
    if isinstance(critical, str) and critical not in class_map.class_names:
        what = f"expected a class of the class map {name} ({', '.join(class_map.class_names)}), got {critical}"
        mistakes.append(values.mistake("ppe_yolo_promote", "critical_class", what))
    return mistakes
