"""Prints audits and corrected copies."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.review.corrections import Change
from ppe_yolo.data.review.fix import FixResult
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


def print_report(dataset: AnnotatedDataset, console: Console, full_list: Path | None = None) -> None:
    """Prints the problems by kind with some examples of each, then the statistics.

    Args:
        dataset: The data set.
        console: Where to print.
        full_list: The file that lists all problems; None if there is none.
    """
    table = Table("severity", "problem", "count", "examples", title="Problems", title_justify="left")
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in dataset.problems:
        kinds[problem.severity, problem.code].append(problem)
    where = "by --json FILE" if full_list is None else f"in {full_list}"
    for (severity, code), problems in kinds.items():
        examples = "\n".join(_example(problem) + _files(problem, where) for problem in problems[:EXAMPLES])
        if len(problems) > EXAMPLES:
            examples += f"\nand {len(problems) - EXAMPLES:,} more, listed {where}"
        table.add_row(severity, code, str(len(problems)), escape(examples), style="red" if severity == "error" else None)
    if kinds:
        console.print(table)
    statistics = Table("statistic", "value", title="Statistics", title_justify="left")
    for key, value in asdict(dataset.statistics).items():
        statistics.add_row(_LABELS.get(key, key.replace("_", " ")), escape(_text(value)))
    console.print(statistics)
    errors = len(dataset.errors)
    console.print(f"{errors} errors, {len(dataset.problems) - errors} warnings")


def print_changes(result: FixResult, full_list: Path, console: Console) -> None:
    """Prints the changes of a corrected copy by kind, with some examples of each.

    Args:
        result: The changes.
        full_list: The file that lists all of them.
        console: Where to print.
    """
    kinds: dict[tuple[bool, str], list[Change]] = defaultdict(list)
    for change in result.changes:
        kinds[change.left_out, change.code].append(change)
    if kinds:
        table = Table("what", "problem", "count", "examples", title="Changes", title_justify="left")
        for (left_out, code), changes in sorted(kinds.items()):
            examples = "\n".join(_example(change) for change in changes[:EXAMPLES])
            if len(changes) > EXAMPLES:
                examples += f"\nand {len(changes) - EXAMPLES:,} more, listed in {full_list}"
            table.add_row("left out" if left_out else "corrected", code, f"{len(changes):,}", escape(examples))
        console.print(table)
    counts = ", ".join(f"{split} {count:,}" for split, count in result.images.items())
    corrected = sum(not change.left_out for change in result.changes)
    console.print(f"{corrected:,} corrections; images: {counts}", soft_wrap=True, markup=False)
    if result.left_out:
        noun = "image is" if result.left_out == 1 else "images are"
        message = f"{result.left_out:,} {noun} left out: correct what is listed in the data set, and repeat the command"
        console.print(message, soft_wrap=True, markup=False)
    console.print(f"all changes: {full_list}", soft_wrap=True, markup=False)


def _example(problem: Problem | Change) -> str:
    return ": ".join(part for part in (Path(problem.file).name, problem.item, problem.message) if part)


def _files(problem: Problem, where: str) -> str:
    """Some of the files of a problem that is about several."""
    if not problem.files:
        return ""
    names = ", ".join(Path(file).name for file in problem.files[:EXAMPLES])
    more = len(problem.files) - EXAMPLES
    return f"\n(such as {names}; {more:,} more, listed {where})" if more > 0 else f"\n({names})"


def _text(value: object) -> str:
    if isinstance(value, dict):
        if any(isinstance(part, dict) for part in value.values()):  # by split
            return "; ".join(f"{split}: {_text(part) or '-'}" for split, part in value.items())
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
