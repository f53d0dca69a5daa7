"""Commands that turn a checkpoint into other files, and `benchmark onnx`."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.model.names import BoxCoding, DarknetKind
from ppe_yolo.options import (
    DATA_HELP,
    CheckpointArgument,
    ClassMapOption,
    OnnxArgument,
    OnnxOutOption,
    OutOption,
    Split,
    ValFractionOption,
    find_checkpoint,
    find_onnx,
    out_console,
    require_torch,
    writable_file,
)

app = typer.Typer()
benchmark_app = typer.Typer()

CalibrationOption = Annotated[
    list[str],
    typer.Option(
        "--calibration",
        metavar="DIR[=CLASSMAP]",
        help="The training data; repeat the option for several data sets, each with its class map if they differ.",
    ),
]


@app.command()
def export(
    checkpoint: CheckpointArgument,
    out: OnnxOutOption,
    without_nms: Annotated[
        bool,
        typer.Option("--without-nms", help="End in decoded boxes and scores, for TensorRT, DeepStream and OpenVINO."),
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Convolutions in float16, for GPUs.")] = False,
    operating_point: Annotated[
        Path | None,
        typer.Option("--operating-point", metavar="FILE", help="operating_point.json of `ppe-yolo report --split val`."),
    ] = None,
    input_size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            "--input-size", metavar="HEIGHT WIDTH", help="Another input size for the same weights, in multiples of 32."
        ),
    ] = None,
) -> None:
    """Writes an ONNX file, if it detects what the checkpoint detects on drawn images."""
    require_torch()
    from ppe_yolo.export.onnx import export_onnx
    from ppe_yolo.export.printing import print_export

    result = export_onnx(
        checkpoint,
        out,
        suppression=not without_nms,
        half=half,
        operating_point=operating_point,
        input_size=input_size,
    )
    print_export(result, out_console)


@app.command()
def verify(
    model: OnnxArgument,
    checkpoint: Annotated[
        Path,
        typer.Option("--checkpoint", metavar="CHECKPOINT", parser=find_checkpoint, help="What the model was exported from."),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help=DATA_HELP)],
    split: Annotated[Split, typer.Option(help="The images.")] = "test",
    class_map: ClassMapOption = "default",
    max_drop: Annotated[float, typer.Option("--max-drop", min=0, help="Allowed difference, points of mAP.")] = 0.1,
) -> None:
    """Compares an ONNX model with its checkpoint on a whole split: detections and mAP."""
    require_torch()
    from ppe_yolo.export.printing import print_verification
    from ppe_yolo.export.verify import verify as run

    result = run(model, checkpoint, str(data), split=split, class_map=class_map, console=out_console)
    print_verification(result, split, out_console)
    result.require(max_drop)


@app.command()
def quantize(
    model: OnnxArgument,
    calibration: CalibrationOption,
    out: OnnxOutOption,
    class_map: ClassMapOption = "default",
    images: Annotated[int, typer.Option(min=1, help="Number of training images to find the ranges on.")] = 200,
    val_fraction: ValFractionOption = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="As in fit, for the same purpose as --val-fraction; also chooses the images."),
    ] = None,
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, help="Points that may be lost, of mAP@0.5 and of mAP@0.5:0.95.")
    ] = 0.5,
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--full-range",
            help="Weights of 7 bits, for processors without VNNI, or of 8; by default what this processor needs.",
        ),
    ] = None,
) -> None:
    """Quantises a model to 8-bit integers, if it still detects well enough on the validation images."""
    require_torch()
    from ppe_yolo.evaluation.data_sets import parse_data
    from ppe_yolo.export.printing import print_quantization
    from ppe_yolo.export.quantize import quantize as run

    result = run(
        model,
        parse_data(calibration, class_map),
        out,
        images=images,
        val_fraction=val_fraction,
        seed=seed,
        max_drop=max_drop,
        reduce_range=reduce_range,
        console=out_console,
    )
    print_quantization(result, out_console)


@app.command()
def pack_weights(
    checkpoint: CheckpointArgument,
    name: Annotated[str, typer.Option(help="Name of the model and its two files.")],
    operating_point: Annotated[
        Path,
        typer.Option("--operating-point", metavar="FILE", help="operating_point.json of `ppe-yolo report --split val`."),
    ],
    calibration: CalibrationOption,
    out: OutOption,
    class_map: ClassMapOption = "default",
) -> None:
    """For maintainers: makes a small checkpoint and an 8-bit ONNX file, to be bundled with the library."""
    require_torch()
    from ppe_yolo.evaluation.data_sets import parse_data
    from ppe_yolo.export.pack import pack_weights as run
    from ppe_yolo.export.printing import print_packed

    result = run(
        checkpoint,
        out,
        name,
        operating_point=operating_point,
        calibration=parse_data(calibration, class_map),
        console=out_console,
    )
    print_packed(result, out_console)


@app.command()
def import_darknet(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="yolov3.weights, yolov3-tiny.weights, darknet53.conv.74.")],
    architecture: Annotated[DarknetKind, typer.Option(help="Content of the file; darknet53 is a backbone only.")],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", callback=writable_file, help="The checkpoint to write.")],
    class_names: Annotated[
        str | None,
        typer.Option("--class-names", metavar="coco|FILE", help="One name per line; by default the .names file, or coco."),
    ] = None,
    input_size: Annotated[
        tuple[int, int] | None,
        typer.Option("--input-size", metavar="HEIGHT WIDTH", help="By default that of the .cfg file, or 416 416."),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(
            metavar="[[W,H],...]",
            help="In pixels of the input, the finest stride first; by default those of the .cfg file, or the published ones.",
        ),
    ] = None,
    box_coding: Annotated[
        BoxCoding | None, typer.Option("--box-coding", help="By default that of the .cfg file, or darknet.")
    ] = None,
) -> None:
    """Makes a checkpoint of Darknet weights, to detect with or to start a training from.

    The .cfg and .names files are those of the same name next to the weights; yolov3-small needs its .cfg.
    """
    require_torch()
    from ppe_yolo.export.darknet import import_darknet as run

    imported = run(
        weights,
        architecture,
        out,
        class_names=class_names,
        input_size=input_size,
        anchors=anchors,
        box_coding=box_coding,
    )
    out_console.print(imported.summary(), markup=False, soft_wrap=True)
    out_console.print(f"checkpoint: {out}", soft_wrap=True)


@app.command()
def export_darknet(
    checkpoint: CheckpointArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="WEIGHTS", callback=writable_file, help="The .weights file; .cfg and .names go next to it."
        ),
    ],
) -> None:
    """Writes a checkpoint as Darknet weights, with the cfg and the names that belong to them."""
    require_torch()
    from ppe_yolo.export.darknet import export_darknet as run

    for file in run(checkpoint, out):
        out_console.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True)


@benchmark_app.command(name="onnx")
def benchmark_onnx(
    model: OnnxArgument,
    int8: Annotated[
        Path | None, typer.Option("--int8", metavar="MODEL", parser=find_onnx, help="The same model, quantised.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 50,
) -> None:
    """Times a frame on this machine's CPU: the network alone, the whole path, and the path without a network."""
    require_torch()
    from ppe_yolo.export.benchmark import benchmark_onnx as run
    from ppe_yolo.export.benchmark import print_benchmark

    print_benchmark(run(model, int8, rounds), out_console)
