"""`ppe-yolo evaluate`, `ppe-yolo report` and `ppe-yolo benchmark metrics`."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.options import (
    DATA_HELP,
    ClassMapOption,
    DeviceOption,
    ModelArgument,
    OnError,
    OutOption,
    Split,
    TilesOption,
    ValFractionOption,
    out_console,
    require_torch,
)

app = typer.Typer()
benchmark_app = typer.Typer()

DataOption = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="DIR[=CLASSMAP]",
        help=f"{DATA_HELP} Repeat it to evaluate several data sets, each with its own class map after `=`, or else that of "
        "--class-map.",
    ),
]


@app.command()
def evaluate(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    split: Annotated[
        Split, typer.Option(help="Images to evaluate on; val: those that the model's training held out, in each data set.")
    ] = "test",
    class_map: ClassMapOption = "default",
    on_error: Annotated[OnError, typer.Option("--on-error", help="What to do with images that the audit rejects.")] = "stop",
    images: Annotated[int, typer.Option(min=0, help="Number of images to draw, those with most mistakes first.")] = 24,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch.")] = 8,
    device: DeviceOption = "auto",
    tiles: TilesOption = 1,
    with_report: Annotated[bool, typer.Option("--report", help="Also write what `ppe-yolo report` writes.")] = False,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also measure under image corruptions (blur, night, rain, fog, ...): several times the work."
        ),
    ] = False,
    val_fraction: ValFractionOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="As in fit, for the same purpose as --val-fraction.")] = None,
) -> None:
    """Measures a model on a split: metrics.json, detections.json, a plot and drawn images, by domain and size of head.

    Instead of a model, it also takes the detections of any other detector: a .json file of COCO results, whose image_id or
    file_name is the name of the image, and whose category_id counts from 1 in the order of the class map.
    """
    require_torch()
    from ppe_yolo.data.class_map import load_class_map
    from ppe_yolo.evaluation.data_sets import parse_data
    from ppe_yolo.evaluation.evaluate import evaluate as run
    from ppe_yolo.evaluation.printing import print_metrics
    from ppe_yolo.evaluation.recorded import RecordedDetections
    from ppe_yolo.inference.detector import Detector
    from ppe_yolo.inference.loading import load_detector

    specs = parse_data(data, class_map)
    detector: Detector | RecordedDetections
    if model.suffix.lower() == ".json":
        detector = RecordedDetections(model, load_class_map(specs[0].class_map))
    else:
        detector = load_detector(model, device=device, tiles=tiles)
    metrics = run(
        detector,
        str(model),
        specs,
        out,
        split=split,
        on_error=on_error,
        batch_size=batch_size,
        images=images,
        val_fraction=val_fraction,
        seed=seed,
        with_report=with_report,
        robustness=robustness,
        console=out_console,
    ).metrics
    print_metrics(metrics, {name: detector.contract.display_name(name) for name in metrics["per_class"]}, out, out_console)


@app.command()
def report(
    detections: Annotated[
        Path,
        typer.Option(
            "--detections",
            metavar="FILE",
            help="detections.json written by `ppe-yolo evaluate`, with ground_truth.json next to it.",
        ),
    ],
    data: DataOption,
    out: OutOption,
    split: Annotated[Split, typer.Option(help="Images that were evaluated.")] = "test",
    class_map: ClassMapOption = "default",
    on_error: Annotated[OnError, typer.Option("--on-error", help="As in the evaluation.")] = "stop",
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="[CLASS:]RULE",
            help="How to choose thresholds on --split val, for all classes or one. recall>=0.9 (the default): the best "
            "precision at this recall over all images; worst-recall>=0.9: at this recall in every domain; recall>=0.9@95%: at "
            "a recall that holds on new images of the same kind with 95 % confidence (also worst-recall); false-alarms<=20: "
            "the best recall with at most 20 false alarms per 1,000 images.",
        ),
    ] = None,
    operating_point: Annotated[
        Path | None,
        typer.Option(
            "--operating-point",
            metavar="FILE",
            help="Thresholds chosen before, on --split val; by default, on other splits, those in the model file, "
            "or 0.3 if it has none.",
        ),
    ] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="Run folder, for training curves.")] = None,
) -> None:
    """Writes report.html and results.txt, and on --split val chooses alarm thresholds (operating_point.json)."""
    from ppe_yolo.evaluation.data_sets import parse_data
    from ppe_yolo.evaluation.report.report import report as run
    from ppe_yolo.evaluation.report.texts import summary_lines

    written = run(
        detections,
        parse_data(data, class_map),
        out,
        split=split,
        on_error=on_error,
        rules=rule or (),
        operating_point=operating_point,
        run_dir=run_dir,
    )
    for line in summary_lines(written.material, written.figures, out):
        out_console.print(line, markup=False, soft_wrap=True)


@benchmark_app.command(name="metrics")
def benchmark_metrics(
    images: Annotated[int, typer.Option(min=1, help="Number of images.")] = 1076,
    objects: Annotated[int, typer.Option(min=1, help="Objects per image.")] = 12,
    detections: Annotated[int, typer.Option(min=1, help="Detections per image.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each engine.")] = 5,
) -> None:
    """Times average precision against torchmetrics with faster-coco-eval, in turn."""
    require_torch()
    import numpy as np
    import torch
    from rich.table import Table

    from ppe_yolo.evaluation.metrics.benchmark import benchmark_metrics as run

    cases = run(images, objects, detections, rounds)
    title = f"{images:,} images, {objects} objects and {detections} detections each"
    table = Table("", "median", "fastest", "mean AP", title=title)
    for case in cases:
        table.add_row(
            case.name,
            f"{1e3 * case.median_seconds:.0f} ms",
            f"{1e3 * case.fastest_seconds:.0f} ms",
            f"{case.mean_ap:.6f}",
        )
    out_console.print(table)
    out_console.print(
        f"numpy {np.__version__}, torch {torch.__version__}, {rounds} rounds; torchmetrics computes ten IoU thresholds and "
        "four sizes"
    )
