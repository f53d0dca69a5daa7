"""`ppe-yolo quickstart`: from nothing, or from a folder of photos, to an evaluated detector."""

from pathlib import Path

from rich.console import Console

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.audit.print_report import print_report
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.evaluation.evaluate import evaluate
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.training.fit import RUNS, fit, free_run_dir

PHOTOS_SHOWN = 12_000  # how many photos a first training on the user's own folder looks at: about a quarter of an hour


def quickstart(
    data: str | None, class_map: str | None, epochs: int | None, run_dir: Path | None, seed: int, console: Console
) -> Path:
    """Draws (without `data`), audits, trains, evaluates; returns the run folder.

    Args:
        data: A Pascal VOC folder or annotation lists; None for the drawn site.
        class_map: Name or file.
        epochs: Length of the training; None for a number that gives a first result soon.
        run_dir: Where to; None for the next free runs/quickstart-<number>.
        seed: Of the drawing and the training.
        console: Where to print.
    """
    run_dir = run_dir or free_run_dir(RUNS, "quickstart")
    if run_dir.exists():
        raise UserError(f"{run_dir}: already there: choose another --run-dir")
    drawn = data is None
    if data is None:
        console.rule("1 of 4: drawing a building site")
        data = str(run_dir / "site-data")
        draw_site_dataset(Path(data), seed=seed)
        console.print(f"{data}: pictures with Pascal VOC annotations")
    console.rule("2 of 4: auditing the data")
    dataset = AnnotatedDataset.open(data, class_map, on_error="skip")
    print_report(dataset, console)
    dataset.save_audit(run_dir / "audit.json")
    dataset.raise_on_errors()
    dataset.split("test")  # the evaluation needs it: fail before the training
    class_map = dataset.class_map.name

    console.rule("3 of 4: training")
    training_photos = sum(len(dataset.splits.get(s, ())) for s in ("trainval", "train"))
    arguments = ["--config", "quickstart" if drawn else "yolov3-tiny", "--data.root", data]
    arguments += ["--data.class_map", class_map, "--run_dir", str(run_dir), "--seed_everything", str(seed)]
    arguments += ["--trainer.devices", "1"]  # more would start this command again, once a device
    if not drawn:
        epochs = epochs or max(2, round(PHOTOS_SHOWN / max(training_photos, 1)))
    if epochs is not None:
        arguments += ["--trainer.max_epochs", str(epochs)]
    fit(arguments)

    console.rule("4 of 4: evaluating on photos that were not trained on")
    checkpoint = run_dir / "checkpoints" / "best.ckpt"
    evaluation = evaluate(load_detector(checkpoint), str(checkpoint), data, run_dir, class_map=class_map, console=console)
    metrics = evaluation.metrics
    per_class = ", ".join(f"{name} {_percent(v['ap_50'])}" for name, v in metrics["per_class"].items())
    console.print(f"mAP@0.5 {_percent(metrics['map_50'])} ({per_class}), mAP@0.5:0.95 {_percent(metrics['map'])}")
    console.print("")
    for what, where in (
        ("model", checkpoint),
        ("metrics", run_dir / "metrics.json"),
        ("pictures (annotated white, found in colour)", run_dir / "pictures"),
        ("curves", f"tensorboard --logdir {run_dir.parent}"),
    ):
        console.print(f"{what}: {where}", soft_wrap=True)
    console.print("")
    if drawn:
        console.print("Now with your own photos (Pascal VOC: Annotations, JPEGImages):")
        for line in (
            "ppe-yolo audit DIR                       # what is wrong with them; other names: --class-map",
            "ppe-yolo quickstart --data DIR           # a first detector",
            "ppe-yolo fit --config yolov3-tiny --data.root DIR",
        ):
            console.print(f"  {line}", highlight=False, soft_wrap=True)
    else:
        console.print("Train longer:")
        line = f"ppe-yolo fit --config yolov3-tiny --data.root {data} --data.class_map {class_map}"
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    return run_dir


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
