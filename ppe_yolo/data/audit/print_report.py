"""The audit as text for people."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.sources.base import Problem

EXAMPLES = 3
_LABELS = {  # where the name in audit.json is not the one to show
    "names_found": "names in the data",
    "all_names_found": "names in all splits",
    "objects": "objects of each class",
    "box_side_pixels": "box side (pixels)",
    "box_aspect_width_to_height": "box width / height",
    "photo_sizes": "image sizes",
}


def print_report(dataset: AnnotatedDataset, console: Console) -> None:
    """Prints the problems by kind with some examples of each, then the statistics."""
    table = Table("severity", "problem", "count", "examples", title="Problems", title_justify="left")
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in dataset.problems:
        kinds[problem.severity, problem.code].append(problem)
    for (severity, code), problems in kinds.items():
        examples = "\n".join(_example(problem) for problem in problems[:EXAMPLES])
        if len(problems) > EXAMPLES:
            examples += f"\nand {len(problems) - EXAMPLES:,} more, listed by --json FILE"
        table.add_row(severity, code, str(len(problems)), escape(examples), style="red" if severity == "error" else None)
    if kinds:
        console.print(table)
    statistics = Table("statistic", "value", title="Statistics", title_justify="left")
    for key, value in asdict(dataset.statistics).items():
        statistics.add_row(_LABELS.get(key, key.replace("_", " ")), escape(_text(value)))
    console.print(statistics)
    errors = len(dataset.errors)
    console.print(f"{errors} errors, {len(dataset.problems) - errors} warnings")


def _example(problem: Problem) -> str:
    return ": ".join(part for part in (Path(problem.file).name, problem.item, problem.message) if part)


def _text(value: object) -> str:
    if isinstance(value, dict):
        if any(isinstance(part, dict) for part in value.values()):  # by split
            return "; ".join(f"{split}: {_text(part) or '-'}" for split, part in value.items())
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
