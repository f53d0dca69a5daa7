"""`ppe-yolo evaluate` and `ppe-yolo report`."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.options import (
    ClassMapOption,
    DeviceOption,
    ModelArgument,
    OnError,
    OutOption,
    Split,
    TilesOption,
    out_console,
    require_torch,
)

app = typer.Typer()
benchmark_app = typer.Typer()


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Pascal VOC folder, annotation lists, or one list.")],
    out: OutOption,
    split: Annotated[Split, typer.Option(help="Which photos.")] = Split.test,
    class_map: ClassMapOption = "default",
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="What to do about photos that the audit refuses.")
    ] = OnError.stop,
    pictures: Annotated[int, typer.Option(min=0, help="Photos to draw, those with most mistakes first.")] = 24,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Photos at once.")] = 8,
    device: DeviceOption = "auto",
    tiles: TilesOption = 1,
    with_report: Annotated[bool, typer.Option("--report", help="Also what `ppe-yolo report` leaves.")] = False,
    robustness: Annotated[
        bool,
        typer.Option("--robustness", help="Also under blur, night, rain, fog, ... (eight times the work); see the report."),
    ] = False,
    val_fraction: Annotated[
        float | None, typer.Option("--val-fraction", help="As in fit; for --split val where the model does not tell.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="As in fit; for --split val where the model does not tell.")] = None,
) -> None:
    """Measures a model on a split: metrics.json, detections.json, a curve and pictures."""
    require_torch()
    from rich.table import Table

    from ppe_yolo.evaluation.evaluate import evaluate as run
    from ppe_yolo.inference.loading import load_detector

    metrics = run(
        load_detector(model, device=device, tiles=tiles),
        str(model),
        str(data),
        out,
        split=split.value,
        class_map=class_map,
        on_error=on_error.value,
        batch_size=batch_size,
        pictures=pictures,
        val_fraction=val_fraction,
        seed=seed,
        with_report=with_report,
        robustness=robustness,
        console=out_console,
    ).metrics
    table = Table("class", "objects", "AP@0.5", "AP@0.5:0.95", "highest recall")

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f} %"

    for name, v in metrics["per_class"].items():
        table.add_row(name, str(v["objects"]), percent(v["ap_50"]), percent(v["ap"]), percent(v["recall_50"]))
    objects = sum(v["objects"] for v in metrics["per_class"].values())
    table.add_row("mean", str(objects), percent(metrics["map_50"]), percent(metrics["map"]), "")
    out_console.print(table)
    skipped = f", {metrics['skipped_images']} skipped" if metrics["skipped_images"] else ""
    out_console.print(f"{metrics['images']} photos{skipped}; files: {out}", soft_wrap=True)


@app.command()
def report(
    detections: Annotated[
        Path,
        typer.Option(
            "--detections", metavar="FILE", help="detections.json of `ppe-yolo evaluate`, its ground_truth.json beside it."
        ),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Pascal VOC folder, annotation lists, or one list.")],
    out: OutOption,
    split: Annotated[Split, typer.Option(help="Which photos were measured.")] = Split.test,
    class_map: ClassMapOption = "default",
    on_error: Annotated[OnError, typer.Option("--on-error", help="As in the evaluation.")] = OnError.stop,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="[CLASS:]RULE",
            help="On --split val: recall>=0.9 (the default) or false-alarms<=20 (on 1,000 photos); for all, or for a class.",
        ),
    ] = None,
    operating_point: Annotated[
        Path | None, typer.Option("--operating-point", metavar="FILE", help="Thresholds chosen before, on --split val.")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="Run folder, for training curves.")] = None,
) -> None:
    """Is it good enough, and where to set the alarm: report.html, results.txt, on --split val operating_point.json."""
    from ppe_yolo.evaluation.report.report import report as run

    run(
        detections,
        str(data),
        out,
        split=split.value,
        class_map=class_map,
        on_error=on_error.value,
        rules=rule or (),
        operating_point=operating_point,
        run_dir=run_dir,
        console=out_console,
    )


@benchmark_app.command(name="metrics")
def benchmark_metrics(
    photos: Annotated[int, typer.Option(min=1, help="How many.")] = 1076,
    objects: Annotated[int, typer.Option(min=1, help="A photo.")] = 12,
    detections: Annotated[int, typer.Option(min=1, help="A photo.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
) -> None:
    """Average precision against torchmetrics with faster-coco-eval, interleaved."""
    require_torch()
    from ppe_yolo.evaluation.metrics.benchmark import benchmark_metrics as run

    run(photos, objects, detections, rounds, out_console)
