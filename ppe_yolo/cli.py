"""The command line: `ppe-yolo <subcommand>`. Heavy libraries are imported by the commands that need them."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ppe_yolo import __version__
from ppe_yolo.azure.cli import azureml_app
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.cli import data_app
from ppe_yolo.weights import find_model

app = typer.Typer(
    name="ppe-yolo",
    help="Finds heads with and without a helmet: data, training, evaluation, prediction.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
benchmark_app = typer.Typer(help="Speed, measured side by side on this machine.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(azureml_app, name="azureml")
app.add_typer(data_app, name="data")

_out = Console(highlight=False)


class Split(StrEnum):
    """A part of a data set."""

    train = "train"
    val = "val"
    trainval = "trainval"
    test = "test"


class OnError(StrEnum):
    """What to do about photos that the audit refuses."""

    stop = "stop"
    skip = "skip"


class ArchitectureName(StrEnum):
    """A network."""

    yolov3 = "yolov3"
    yolov3_small = "yolov3-small"
    yolov3_tiny = "yolov3-tiny"


class DarknetName(StrEnum):
    """What a Darknet file holds: a network, or the backbone of YOLOv3 alone."""

    yolov3 = "yolov3"
    yolov3_small = "yolov3-small"
    yolov3_tiny = "yolov3-tiny"
    darknet53 = "darknet53"


class BoxCodingName(StrEnum):
    """How logits stand for boxes."""

    bounded = "bounded"
    darknet = "darknet"


ClassMapOption = Annotated[
    str,
    typer.Option(
        "--class-map",
        metavar="NAME|FILE",
        help="What the data's names mean: default, shwd, gdut-hwd, hard-hat-workers, shwd+gdut-hwd, or your own YAML.",
    ),
]
DataArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Pascal VOC folder, annotation lists, or one list.")]


def _find_checkpoint(model: str) -> Path:
    return find_model(model, "checkpoint")


def _find_onnx(model: str) -> Path:
    return find_model(model, "onnx")


CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", parser=_find_checkpoint, help="Written by `ppe-yolo fit`, or helmet-tiny.")
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        parser=_find_onnx,
        help="A checkpoint, an .onnx file of `ppe-yolo export`, or helmet-tiny, which comes along.",
    ),
]
OnnxArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", parser=_find_onnx, help="An .onnx file of `ppe-yolo export`, or helmet-tiny.")
]
OnnxOutOption = Annotated[Path, typer.Option("--out", metavar="FILE", help="The .onnx file to write.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")]
TilesOption = Annotated[
    int,
    typer.Option(
        "--tiles", min=1, help="Far cameras, small heads: look at N x N overlapping tiles, too; N x N + 1 times the work."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]


def _show_version(wanted: bool) -> None:
    if wanted:
        _out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


def _require_torch() -> None:
    """Refuses a torch and a torchvision that do not belong together, before they fail in a riddle."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"torch {version('torch')} and torchvision {version('torchvision')} do not work together ({reason}): "
            "install both from one index, for example: pip install --force-reinstall torch torchvision"
        ) from error


@app.command()
def quickstart(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Your photos; without it, a building site is drawn.")
    ] = None,
    class_map: ClassMapOption = "default",
    epochs: Annotated[int | None, typer.Option(min=1, help="Length of the training.")] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="runs/quickstart-<n> if not given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing and the training.")] = 0,
) -> None:
    """From nothing, or from your photos, to an evaluated detector, in minutes on a laptop."""
    _require_torch()
    from ppe_yolo.quickstart import quickstart as run

    run(str(data) if data else None, class_map, epochs, run_dir, seed, _out)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def fit(context: typer.Context) -> None:
    """Trains: --config NAME|FILE --data.root DIR ...; all options: ppe-yolo fit --help."""
    _require_torch()
    from ppe_yolo.training.fit import fit as run

    run_dir, trainer = run(context.args)
    if trainer.is_global_zero:
        _out.print(f"run folder: {run_dir}", soft_wrap=True)


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
    _require_torch()
    from rich.table import Table

    from ppe_yolo.evaluation.evaluate import evaluate as run
    from ppe_yolo.inference.detector import load_detector

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
        console=_out,
    ).metrics
    table = Table("class", "objects", "AP@0.5", "AP@0.5:0.95", "highest recall")

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f} %"

    for name, v in metrics["per_class"].items():
        table.add_row(name, str(v["objects"]), percent(v["ap_50"]), percent(v["ap"]), percent(v["recall_50"]))
    objects = sum(v["objects"] for v in metrics["per_class"].values())
    table.add_row("mean", str(objects), percent(metrics["map_50"]), percent(metrics["map"]), "")
    _out.print(table)
    skipped = f", {metrics['skipped_images']} skipped" if metrics["skipped_images"] else ""
    _out.print(f"{metrics['images']} photos{skipped}; files: {out}", soft_wrap=True)


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
    from ppe_yolo.evaluation.report import report as run

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
        console=_out,
    )


@app.command()
def predict(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Photos, folders, patterns or URLs.")],
    out: OutOption,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", help="Leave weaker detections out; else the model's alarm thresholds, or 0.3."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Photos at once.")] = 8,
    device: DeviceOption = "auto",
    tiles: TilesOption = 1,
) -> None:
    """Finds heads in photos: annotated photos and predictions.json."""
    _require_torch()
    from collections import Counter

    from ppe_yolo.inference.detector import load_detector
    from ppe_yolo.inference.predict import find_images
    from ppe_yolo.inference.predict import predict as run

    detector = load_detector(model, device=device, tiles=tiles)
    rows, failures = run(
        detector, find_images(images), out, score_threshold=score_threshold, batch_size=batch_size, console=_out
    )
    counts = Counter(d["class_name"] for row in rows for d in row["detections"])
    found = ", ".join(f"{counts[name]} {name}" for name in detector.contract.class_names)
    _out.print(f"{len(rows)} photos: {found}; files: {out}", soft_wrap=True)
    if failures:
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        raise UserError(f"{len(failures)} of {len(rows) + len(failures)} photos failed: {'; '.join(failures[:5])}{more}")


@app.command()
def export(
    checkpoint: CheckpointArgument,
    out: OnnxOutOption,
    without_nms: Annotated[
        bool,
        typer.Option("--without-nms", help="End in decoded boxes and scores, for TensorRT, DeepStream and OpenVINO."),
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Convolutions in float16, for GPUs.")] = False,
    alarm_thresholds: Annotated[
        Path | None,
        typer.Option("--alarm-thresholds", metavar="FILE", help="operating_point.json of `ppe-yolo report --split val`."),
    ] = None,
) -> None:
    """Writes one ONNX file, if it finds what the checkpoint finds on pictures drawn for the comparison."""
    _require_torch()
    from ppe_yolo.export.onnx import export_onnx

    export_onnx(checkpoint, out, suppression=not without_nms, half=half, alarm_thresholds=alarm_thresholds, console=_out)


@app.command()
def verify(
    model: OnnxArgument,
    checkpoint: Annotated[
        Path,
        typer.Option("--checkpoint", metavar="CHECKPOINT", parser=_find_checkpoint, help="What the model was made from."),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Pascal VOC folder, annotation lists, or one list.")],
    split: Annotated[Split, typer.Option(help="Which photos.")] = Split.test,
    class_map: ClassMapOption = "default",
    max_drop: Annotated[float, typer.Option("--max-drop", min=0, help="Allowed difference, points of mAP.")] = 0.1,
) -> None:
    """Compares an ONNX model with its checkpoint on a whole split: detections and mAP."""
    _require_torch()
    from ppe_yolo.export.verify import verify as run

    run(model, checkpoint, str(data), split=split.value, class_map=class_map, tolerance=max_drop, console=_out)


@app.command()
def quantize(
    model: OnnxArgument,
    calibration: Annotated[Path, typer.Option("--calibration", metavar="DIR", help="The training data.")],
    out: OnnxOutOption,
    class_map: ClassMapOption = "default",
    photos: Annotated[int, typer.Option(min=1, help="Training photos to find ranges on.")] = 200,
    val_fraction: Annotated[
        float | None, typer.Option("--val-fraction", help="As in fit, where the model does not tell.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="As in fit, where the model does not tell; also of the choice of photos.")
    ] = None,
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, help="Points that may be lost, of mAP@0.5 and of mAP@0.5:0.95.")
    ] = 0.5,
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--full-range",
            help="Weights of 7 bits, for processors without VNNI, or of 8; as this processor needs it if not given.",
        ),
    ] = None,
) -> None:
    """Makes 8-bit integers of a model, if it still finds enough on validation photos."""
    _require_torch()
    from ppe_yolo.export.quantize import quantize as run

    run(
        model,
        str(calibration),
        out,
        class_map=class_map,
        photos=photos,
        val_fraction=val_fraction,
        seed=seed,
        max_drop=max_drop,
        reduce_range=reduce_range,
        console=_out,
    )


@app.command()
def pack_weights(
    checkpoint: CheckpointArgument,
    name: Annotated[str, typer.Option(help="Of the two files, and what users call the model by.")],
    alarm_thresholds: Annotated[
        Path,
        typer.Option("--alarm-thresholds", metavar="FILE", help="operating_point.json of `ppe-yolo report --split val`."),
    ],
    calibration: Annotated[Path, typer.Option("--calibration", metavar="DIR", help="The training data.")],
    out: OutOption,
    class_map: ClassMapOption = "default",
) -> None:
    """For maintainers: a small checkpoint to fine-tune from and an 8-bit ONNX file, to come with the library."""
    _require_torch()
    from ppe_yolo.export.pack import pack_weights as run

    run(
        checkpoint,
        out,
        name,
        alarm_thresholds=alarm_thresholds,
        calibration=str(calibration),
        class_map=class_map,
        console=_out,
    )


RegistryOption = Annotated[
    str | None,
    typer.Option("--registry", metavar="URI", help="sqlite:///FILE or an address of MLflow; MLFLOW_TRACKING_URI if not given."),
]
RegisteredNameOption = Annotated[str, typer.Option("--name", help="The registered model.")]


@app.command()
def promote(
    model: OnnxArgument,
    evaluation: Annotated[
        Path, typer.Option("--evaluation", metavar="DIR", help="What `ppe-yolo evaluate MODEL --split test` left.")
    ],
    registry: RegistryOption = None,
    name: RegisteredNameOption = "helmet",
    margin: Annotated[float, typer.Option(min=0, help="Points of mAP@0.5 to be gained on the champion.")] = 0.5,
    min_recall: Annotated[
        float, typer.Option("--min-recall", min=0, max=1, help="Least recall of the critical class, champion or not.")
    ] = 0.5,
    max_latency_ms: Annotated[
        float | None,
        typer.Option("--max-latency-ms", min=0, help="Budget of a 1280x720 frame here; if not given, 1.2 x the champion's."),
    ] = None,
    max_false_alarms: Annotated[
        float | None,
        typer.Option("--max-false-alarms", min=0, help="Budget on 1,000 photos; if not given, 1.2 x the champion's."),
    ] = None,
    critical_class: Annotated[str, typer.Option("--critical-class", help="Whose recall must not fall.")] = "none",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Also leave decision.json there.")] = None,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="A rejection is a result, not a failure: exit code 0, see decision.json.")
    ] = False,
) -> None:
    """The gate: a model replaces the champion only where it is better; exit code 1 when it is not."""
    _require_torch()
    from ppe_yolo.evaluation.selection import Demands
    from ppe_yolo.gate.promotion import promote as run
    from ppe_yolo.gate.registry import Registry, registry_uri

    demands = Demands(critical_class, min_recall, margin, max_latency_ms, max_false_alarms)
    if exit_zero and out is None:
        raise UserError("--exit-zero: the decision would be lost: add --out DIR")
    decision = run(model, evaluation, Registry(registry_uri(registry), name), demands, _out, out)
    if not decision.promoted and not exit_zero:
        raise typer.Exit(1)


@app.command()
def rollback(registry: RegistryOption = None, name: RegisteredNameOption = "helmet") -> None:
    """Makes the champion before the present one the champion again."""
    _require_torch()
    from ppe_yolo.gate.promotion import rollback as run
    from ppe_yolo.gate.registry import Registry, registry_uri

    run(Registry(registry_uri(registry), name), _out)


@app.command()
def audit(
    data: DataArgument,
    class_map: ClassMapOption = "default",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write every problem there.")] = None,
) -> None:
    """The data doctor: every problem of a data set; exit code 1 when there are errors."""
    from ppe_yolo.data.audit import audit as run
    from ppe_yolo.data.audit import print_report
    from ppe_yolo.data.class_map import load_class_map

    mapping = load_class_map(class_map)
    report = run(data, mapping)
    print_report(report, _out)
    try:
        report.check_names(mapping)
    except UserError as error:  # told as everywhere else, but the other problems were wanted as well
        _out.print(str(error), markup=False, soft_wrap=True)
    if json is not None:
        report.save(json)
        _out.print(f"all problems: {json}", soft_wrap=True)
    if report.errors:
        raise typer.Exit(1)


@app.command(name="list")
def list_(
    data: DataArgument,
    out: OutOption,
    class_map: ClassMapOption = "default",
    prefix: Annotated[
        str | None,
        typer.Option(help="Write PREFIX/<file name> instead of the photo's path, such as https://host/container/JPEGImages."),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="What to do about photos that the audit refuses.")
    ] = OnError.stop,
) -> None:
    """Writes annotation lists, voc_<split>.txt: `PATH_OR_URL x1,y1,x2,y2,class ...` a line."""
    from dataclasses import replace

    from ppe_yolo.data.annotation_list import write_annotation_list
    from ppe_yolo.data.audit import audit as run
    from ppe_yolo.data.class_map import load_class_map
    from ppe_yolo.data.images import is_url

    mapping = load_class_map(class_map)
    report = run(data, mapping)
    if on_error is OnError.stop:
        report.raise_on_errors(mapping)
    for split, images in report.images.items():
        if prefix is not None:
            located = [replace(i, image=f"{prefix.rstrip('/')}/{Path(i.image).name}") for i in images]
        else:
            located = [i if is_url(i.image) else replace(i, image=str(Path(i.image).resolve())) for i in images]
        path = out / f"voc_{split}.txt"
        write_annotation_list(path, located)
        _out.print(f"{path}: {len(located)} photos, {sum(len(i.objects) for i in located)} objects", soft_wrap=True)


@app.command()
def prepare(
    data: DataArgument,
    out: OutOption,
    class_map: ClassMapOption = "default",
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="What to do about photos that the audit refuses.")
    ] = OnError.stop,
) -> None:
    """Makes a data set ready once, as a job does: audited, the model's names, explicit splits, annotation lists."""
    from ppe_yolo.data.prepare import prepare as run

    run(data, out, class_map=class_map, on_error=on_error.value, console=_out)


@app.command()
def anchors(
    data: DataArgument,
    class_map: ClassMapOption = "default",
    architecture: Annotated[ArchitectureName, typer.Option(help="How many anchors.")] = ArchitectureName.yolov3_tiny,
    input_size: Annotated[tuple[int, int], typer.Option("--input-size", metavar="HEIGHT WIDTH")] = (416, 416),
    seed: Annotated[int, typer.Option(min=0, help="Of the first choice.")] = 0,
) -> None:
    """Fits anchors to a data set by k-means with IoU distance."""
    _require_torch()
    from ppe_yolo.data.anchors import fit_anchors, letterboxed_sizes, mean_best_iou
    from ppe_yolo.data.audit import audit as run
    from ppe_yolo.data.class_map import load_class_map
    from ppe_yolo.model.yolov3 import default_anchors_wh

    if min(input_size) < 1:
        raise UserError(f"--input-size: expected a positive height and width, got {input_size[0]} {input_size[1]}")
    mapping = load_class_map(class_map)
    report = run(data, mapping)
    report.raise_on_errors(mapping, skip=None)
    training = [i for split in ("trainval", "train") for i in report.images.get(split, ())]
    boxes_wh = letterboxed_sizes(training, report.sizes, input_size)
    default = default_anchors_wh(architecture.value)
    fitted = fit_anchors(boxes_wh, len(default), seed=seed)
    _out.print(f"{len(boxes_wh)} boxes; mean of the best IoU with an anchor:")
    _out.print(f"  default {mean_best_iou(boxes_wh, default):.3f}   fitted {mean_best_iou(boxes_wh, fitted):.3f}")
    pairs = ",".join(f"[{w:.0f},{h:.0f}]" for w, h in fitted)
    _out.print(f"--model.anchors_wh '[{pairs}]'", markup=False, soft_wrap=True)


@app.command()
def import_darknet(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="yolov3.weights, yolov3-tiny.weights, darknet53.conv.74.")],
    architecture: Annotated[DarknetName, typer.Option(help="What the file holds; darknet53 is a backbone alone.")],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", help="The checkpoint to write.")],
    class_names: Annotated[
        str | None,
        typer.Option("--class-names", metavar="coco|FILE", help="One name a line; else the .names beside the file, or coco."),
    ] = None,
    input_size: Annotated[
        tuple[int, int] | None,
        typer.Option("--input-size", metavar="HEIGHT WIDTH", help="Else that of the .cfg beside the file, or 416 416."),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(
            metavar="[[W,H],...]",
            help="In pixels of the input, the finest stride first; else those of the .cfg, or the published ones.",
        ),
    ] = None,
    box_coding: Annotated[
        BoxCodingName | None, typer.Option("--box-coding", help="Else that of the .cfg beside the file, or darknet.")
    ] = None,
) -> None:
    """Makes a checkpoint of Darknet weights, to detect with or as the start of a training."""
    _require_torch()
    from ppe_yolo.export.darknet import import_darknet as run

    made = run(
        weights,
        architecture.value,
        out,
        class_names=class_names,
        input_size=input_size,
        anchors=anchors,
        box_coding=box_coding.value if box_coding else None,
    )
    _out.print(made.summary(), markup=False, soft_wrap=True)
    _out.print(f"checkpoint: {out}", soft_wrap=True)


@app.command()
def export_darknet(
    checkpoint: CheckpointArgument,
    out: Annotated[Path, typer.Option("--out", metavar="WEIGHTS", help="The .weights file; .cfg and .names go beside it.")],
) -> None:
    """Writes a checkpoint as Darknet weights, with the cfg and the names that go with them."""
    _require_torch()
    from ppe_yolo.export.darknet import export_darknet as run

    for file in run(checkpoint, out):
        _out.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True)


@benchmark_app.command(name="train")
def benchmark_train(
    architecture: Annotated[ArchitectureName, typer.Option(help="The network.")] = ArchitectureName.yolov3_tiny,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 8,
    side: Annotated[int, typer.Option(help="Height and width of the input.")] = 416,
    steps: Annotated[int, typer.Option(min=3, help="Timed steps of each.")] = 15,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Photos for the loader; without it, drawn ones.")
    ] = None,
    class_map: ClassMapOption = "default",
) -> None:
    """Training step against plain PyTorch, interleaved; loader against training step."""
    _require_torch()
    from ppe_yolo.training.benchmark import benchmark_train as run

    run(architecture.value, batch_size, side, steps, workers, str(data) if data else None, class_map, _out)


@benchmark_app.command(name="metrics")
def benchmark_metrics(
    photos: Annotated[int, typer.Option(min=1, help="How many.")] = 1076,
    objects: Annotated[int, typer.Option(min=1, help="A photo.")] = 12,
    detections: Annotated[int, typer.Option(min=1, help="A photo.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
) -> None:
    """Average precision against torchmetrics with faster-coco-eval, interleaved."""
    _require_torch()
    from ppe_yolo.evaluation.benchmark import benchmark_metrics as run

    run(photos, objects, detections, rounds, _out)


@benchmark_app.command(name="onnx")
def benchmark_onnx(
    model: OnnxArgument,
    int8: Annotated[Path | None, typer.Option("--int8", metavar="MODEL", help="The same model, quantised.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 50,
) -> None:
    """A frame's cost on this machine's CPU: the network alone, the whole path, and the path without a network."""
    _require_torch()
    from ppe_yolo.export.benchmark import benchmark_onnx as run

    run(model, int8, rounds, _out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; a user's mistake ends with one line on standard error and exit code 2."""
    try:
        app(args=None if arguments is None else list(arguments))
    except UserError as error:
        print(f"ppe-yolo: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ppe-yolo: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
