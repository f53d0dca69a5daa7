"""Commands that turn a checkpoint into other files."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.options import (
    BoxCodingName,
    CheckpointArgument,
    ClassMapOption,
    DarknetName,
    OnnxArgument,
    OnnxOutOption,
    OutOption,
    Split,
    find_checkpoint,
    out_console,
    require_torch,
)

app = typer.Typer()
benchmark_app = typer.Typer()


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
    require_torch()
    from ppe_yolo.export.onnx import export_onnx

    export_onnx(checkpoint, out, suppression=not without_nms, half=half, alarm_thresholds=alarm_thresholds, console=out_console)


@app.command()
def verify(
    model: OnnxArgument,
    checkpoint: Annotated[
        Path,
        typer.Option("--checkpoint", metavar="CHECKPOINT", parser=find_checkpoint, help="What the model was made from."),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Pascal VOC folder, annotation lists, or one list.")],
    split: Annotated[Split, typer.Option(help="Which photos.")] = Split.test,
    class_map: ClassMapOption = "default",
    max_drop: Annotated[float, typer.Option("--max-drop", min=0, help="Allowed difference, points of mAP.")] = 0.1,
) -> None:
    """Compares an ONNX model with its checkpoint on a whole split: detections and mAP."""
    require_torch()
    from ppe_yolo.export.verify import verify as run

    run(model, checkpoint, str(data), split=split.value, class_map=class_map, tolerance=max_drop, console=out_console)


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
    require_torch()
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
        console=out_console,
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
    require_torch()
    from ppe_yolo.export.pack import pack_weights as run

    run(
        checkpoint,
        out,
        name,
        alarm_thresholds=alarm_thresholds,
        calibration=str(calibration),
        class_map=class_map,
        console=out_console,
    )


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
    require_torch()
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
    out_console.print(made.summary(), markup=False, soft_wrap=True)
    out_console.print(f"checkpoint: {out}", soft_wrap=True)


@app.command()
def export_darknet(
    checkpoint: CheckpointArgument,
    out: Annotated[Path, typer.Option("--out", metavar="WEIGHTS", help="The .weights file; .cfg and .names go beside it.")],
) -> None:
    """Writes a checkpoint as Darknet weights, with the cfg and the names that go with them."""
    require_torch()
    from ppe_yolo.export.darknet import export_darknet as run

    for file in run(checkpoint, out):
        out_console.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True)


@benchmark_app.command(name="onnx")
def benchmark_onnx(
    model: OnnxArgument,
    int8: Annotated[Path | None, typer.Option("--int8", metavar="MODEL", help="The same model, quantised.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 50,
) -> None:
    """A frame's cost on this machine's CPU: the network alone, the whole path, and the path without a network."""
    require_torch()
    from ppe_yolo.export.benchmark import benchmark_onnx as run

    run(model, int8, rounds, out_console)
