"""Draws or audits a data set, trains on it, and evaluates the detector."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.review.printing import print_report
from ppe_yolo.data.sources.files import require_outside
from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.evaluation.evaluate import evaluate
from ppe_yolo.evaluation.percent import percent
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.training.fit import fit
from ppe_yolo.training.run_dir import RUNS, free_run_dir

IMAGES_SEEN = 12_000  # by a first training on the user's own data: about a quarter of an hour
FIRST_STEPS = (
    "ppe-yolo audit DIR                       # checks them; for other class names, add --class-map",
    "ppe-yolo quickstart --data DIR           # trains a first detector",
    "ppe-yolo fit --config yolov3-small --data.root DIR",
)


def quickstart(
    data: str | None, class_map: str | None, epochs: int | None, run_dir: Path | None, seed: int, console: Console
) -> Path:
    """Draws (without `data`), audits, trains and evaluates.

    Args:
        data: A folder in Pascal VOC, YOLO, COCO or CVAT format, or annotation lists; None for the drawn site.
        class_map: Name or file.
        epochs: Length of the training; None for one that gives a first result in minutes.
        run_dir: The run folder; None for the next free runs/quickstart-<number>.
        seed: Seed of the drawing and the training.
        console: Shows the progress.

    Returns:
        The run folder.

    Raises:
        UserError: The run folder exists or lies in the data set, or the data has errors or no split `test`.
    """
    run_dir = run_dir or free_run_dir(RUNS, "quickstart")
    if run_dir.exists():
        raise UserError(file=run_dir, problem="already exists", hint="choose another --run-dir")
    drawn = data is None
    if data is not None:
        require_outside(run_dir, data, setting="run_dir")  # the evaluation refuses it, too, but after the training
    else:
        console.rule("1 of 4: drawing a building site")
        data = str(run_dir / "site-data")
        draw_site_dataset(Path(data), seed=seed)
        console.print(f"{data}: images with Pascal VOC annotations")
    console.rule("2 of 4: auditing the data")
    dataset = AnnotatedDataset.open(data, class_map, on_error="skip")
    print_report(dataset, console)
    dataset.save_audit(run_dir / "audit.json")
    dataset.raise_on_errors()
    dataset.split("test")  # the evaluation needs it: fail before the training
    class_map = dataset.class_map.name

    console.rule("3 of 4: training")
    arguments = ["--config", "quickstart" if drawn else "yolov3-tiny", "--data.root", data]
    arguments += ["--data.class_map", class_map, "--run-dir", str(run_dir), "--seed_everything", str(seed)]
    arguments += ["--trainer.devices", "1"]  # with more, Lightning would start this command again for each device
    if epochs is None and not drawn:
        training_images = sum(len(dataset.splits.get(s, ())) for s in ("trainval", "train"))
        epochs = max(2, round(IMAGES_SEEN / max(training_images, 1)))
    if epochs is not None:
        arguments += ["--trainer.max_epochs", str(epochs)]
    fit(arguments)

    console.rule("4 of 4: evaluating on images that were not trained on")
    checkpoint = run_dir / "checkpoints" / "best.ckpt"
    detector = load_detector(checkpoint)
    metrics = evaluate(detector, str(checkpoint), data, run_dir, class_map=class_map, console=console).metrics
    shown = detector.contract.display_name
    per_class = ", ".join(f"{shown(name)} {percent(v['ap_50'])}" for name, v in metrics["per_class"].items())
    console.print(f"mAP@0.5 {percent(metrics['map_50'])} ({per_class}), mAP@0.5:0.95 {percent(metrics['map'])}")
    _print_files(run_dir, checkpoint, console)
    if drawn:
        _print_commands("Next, with your own images (Pascal VOC, YOLO, COCO or CVAT):", FIRST_STEPS, console)
    else:
        longer = f"ppe-yolo fit --config yolov3-small --data.root {data} --data.class_map {class_map}"
        _print_commands("Train longer:", [longer], console)
    return run_dir


def _print_files(run_dir: Path, checkpoint: Path, console: Console) -> None:
    console.print("")
    for name, where in (
        ("model", checkpoint),
        ("metrics", run_dir / "metrics.json"),
        ("images (annotations white, detections coloured)", run_dir / "pictures"),
        ("curves", f"tensorboard --logdir {run_dir.parent}"),
    ):
        console.print(f"{name}: {where}", soft_wrap=True)


def _print_commands(title: str, commands: Sequence[str], console: Console) -> None:
    console.print("")
    console.print(title)
    for command in commands:
        console.print(f"  {command}", highlight=False, soft_wrap=True)
