"""Commands of the training: `fit`, `anchors` and `benchmark train`."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.core.errors import UserError
from ppe_yolo.model.names import Architecture
from ppe_yolo.options import ClassMapOption, DataArgument, out_console, require_process_numbers, require_torch

app = typer.Typer()
benchmark_app = typer.Typer()


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def fit(context: typer.Context) -> None:
    """Trains: --config NAME|FILE --data.root DIR ...; all options: ppe-yolo fit --help."""
    require_process_numbers()
    require_torch()
    from ppe_yolo.training.fit import fit as run

    run_dir, trainer = run(context.args)
    if trainer.is_global_zero:
        out_console.print(f"run folder: {run_dir}", soft_wrap=True)


@app.command()
def anchors(
    data: DataArgument,
    class_map: ClassMapOption = "default",
    architecture: Annotated[Architecture, typer.Option(help="Determines the number of anchors.")] = "yolov3-tiny",
    input_size: Annotated[
        tuple[int, int], typer.Option("--input-size", metavar="HEIGHT WIDTH", help="Input size of the training, pixels.")
    ] = (416, 416),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial choice.")] = 0,
) -> None:
    """Fits anchors to a data set by k-means with IoU distance."""
    require_torch()
    from ppe_yolo.data.anchors import fit_anchors, letterboxed_sizes, mean_best_iou
    from ppe_yolo.data.dataset import AnnotatedDataset
    from ppe_yolo.model.yolov3 import default_anchors_wh

    if min(input_size) < 1:
        raise UserError(setting="input_size", expected="a positive height and width", got=f"{input_size[0]} {input_size[1]}")
    dataset = AnnotatedDataset.open(data, class_map)
    training = [i for split in ("trainval", "train") for i in dataset.splits.get(split, ())]
    boxes_wh = letterboxed_sizes(training, dataset.sizes, input_size)
    default = default_anchors_wh(architecture)
    fitted = fit_anchors(boxes_wh, len(default), seed=seed)
    out_console.print(f"{len(boxes_wh)} boxes; mean of the best IoU with an anchor:")
    out_console.print(f"  default {mean_best_iou(boxes_wh, default):.3f}   fitted {mean_best_iou(boxes_wh, fitted):.3f}")
    pairs = ",".join(f"[{w:.0f},{h:.0f}]" for w, h in fitted)
    out_console.print(f"--model.anchors_wh '[{pairs}]'", markup=False, soft_wrap=True)


@benchmark_app.command(name="train")
def benchmark_train(
    architecture: Annotated[Architecture, typer.Option(help="The network.")] = "yolov3-tiny",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch.")] = 8,
    side: Annotated[int, typer.Option(help="Height and width of the input.")] = 416,
    steps: Annotated[int, typer.Option(min=3, help="Timed steps of each.")] = 15,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Images for the loader; drawn ones without it.")
    ] = None,
    class_map: ClassMapOption = "default",
) -> None:
    """Times the training step against plain PyTorch, interleaved, and the loader against the training step."""
    require_process_numbers()
    require_torch()
    from ppe_yolo.training.benchmark import benchmark_train as run
    from ppe_yolo.training.benchmark import print_benchmark

    result = run(
        architecture,
        batch_size=batch_size,
        side=side,
        steps=steps,
        workers=workers,
        data=str(data) if data else None,
        class_map=class_map,
    )
    print_benchmark(result, out_console)
