"""Prints the figures of an evaluation."""

from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ppe_yolo.evaluation.files.metrics import Metrics
from ppe_yolo.evaluation.percent import percent


def print_metrics(metrics: Metrics, display: Mapping[str, str], out: Path, console: Console) -> None:
    """Prints the figures of each class, and those by domain if there are several.

    Args:
        metrics: The figures.
        display: Class name -> name that people read.
        out: The folder that holds the files.
        console: Where to print.
    """
    table = Table("class", "objects", "AP@0.5", "AP@0.5:0.95", "highest recall")
    for name, v in metrics["per_class"].items():
        figures = (percent(v[key], 2) for key in ("ap_50", "ap", "recall_50"))
        table.add_row(display[name], str(v["objects"]), *figures)
    objects = sum(v["objects"] for v in metrics["per_class"].values())
    table.add_row("mean", str(objects), percent(metrics["map_50"], 2), percent(metrics["map"], 2), "")
    console.print(table)
    if len(metrics["domains"]) > 1:
        console.print(_domain_table(metrics, display))
    skipped = f", {metrics['skipped_images']} skipped" if metrics["skipped_images"] else ""
    console.print(f"{metrics['images']} images{skipped}; files: {out}", soft_wrap=True)


def _domain_table(metrics: Metrics, display: Mapping[str, str]) -> Table:
    """One row per domain and a line per class; metrics.json also has them by size."""
    iou = metrics["domains"][0]["match_iou"]
    table = Table(title=f"By domain, in %; at the alarm thresholds and IoU {iou}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("domain", no_wrap=True)
    for name in ("images", "mAP\n@0.5", "mAP\n@0.5:\n0.95"):
        table.add_column(name, justify="right")
    table.add_column("class", no_wrap=True)
    for name in ("recall", "other\nclass", "false\nper\n1,000", "empty\nwith\nalarm"):
        table.add_column(name, justify="right")
    for domain in metrics["domains"]:
        whole = domain["by_size"]["all"]
        per_class = [whole["per_class"][name] for name in display]
        table.add_row(
            domain["name"],
            str(domain["images"]),
            percent(whole["map_50"], unit=""),
            percent(whole["map"], unit=""),
            "\n".join(display.values()),
            "\n".join(percent(one["recall"], unit="") for one in per_class),
            "\n".join(percent(one["confused_share"], unit="") for one in per_class),
            "\n".join(f"{one['false_alarms_per_1000']:.0f}" for one in per_class),
            percent(whole["empty_images_with_alarm_share"], unit=""),
        )
    return table
