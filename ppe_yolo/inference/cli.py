"""`ppe-yolo predict`."""

from typing import Annotated

import typer

from ppe_yolo.core.errors import UserError
from ppe_yolo.options import DeviceOption, ModelArgument, OutOption, TilesOption, out_console, require_torch

app = typer.Typer()


@app.command()
def predict(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Images, folders, patterns or URLs.")],
    out: OutOption,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold", help="Drop detections with a lower score. Default: the model's alarm thresholds, or 0.3."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch.")] = 8,
    device: DeviceOption = "auto",
    tiles: TilesOption = 1,
) -> None:
    """Detects heads in images: writes annotated images and predictions.json."""
    from collections import Counter

    from ppe_yolo.inference.loading import is_onnx, load_detector
    from ppe_yolo.inference.predict import find_images
    from ppe_yolo.inference.predict import predict as run

    if not is_onnx(model):
        require_torch()
    detector = load_detector(model, device=device, tiles=tiles)
    rows, failures = run(
        detector, find_images(images), out, score_threshold=score_threshold, batch_size=batch_size, console=out_console
    )
    counts = Counter(d["class_name"] for row in rows for d in row["detections"])
    contract = detector.contract
    summary = ", ".join(f"{counts[name]} {contract.display_name(name)}" for name in contract.class_names)
    out_console.print(f"{len(rows)} images: {summary}; files: {out}", soft_wrap=True)
    if failures:
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        raise UserError(f"{len(failures)} of {len(rows) + len(failures)} images failed: {'; '.join(failures[:5])}{more}")
