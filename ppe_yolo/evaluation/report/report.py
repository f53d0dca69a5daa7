"""`ppe-yolo report`: is the detector good enough, and where to set the alarm? One page that needs nothing but itself."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_json, write_text
from ppe_yolo.data.images import read_image, shown
from ppe_yolo.data.validation import VAL
from ppe_yolo.evaluation.decisions.operating_point import parse_rules, read_thresholds
from ppe_yolo.evaluation.metrics.matching import areas
from ppe_yolo.evaluation.metrics.mistakes import FalseAlarm, false_alarms, misses, strong_enough
from ppe_yolo.evaluation.metrics.voc_ap import LOWEST_SCORE, mean_average_precision
from ppe_yolo.evaluation.report import charts
from ppe_yolo.evaluation.report.figures import SplitFigures, measure, operating_point_to_plain, to_plain
from ppe_yolo.evaluation.report.gallery import cut_out
from ppe_yolo.evaluation.report.material import ROBUSTNESS_FILE, Material, read_material
from ppe_yolo.evaluation.report.training_log import read_training_curves
from ppe_yolo.evaluation.robustness import FAILS, robustness_text

WIDE = 0.15  # a 95 % interval of recall beyond which a threshold chosen on it is worth a warning
SUSPECT_SCORE = 0.6  # from here a detection contradicts the annotation with confidence
PICTURES = 12  # of each kind of mistake
SUSPECTS_SHOWN = 20
DPI = 130


@dataclass(frozen=True)
class Chart:
    """A figure in the page: its file's name, the bytes, and what it shows in words."""

    name: str
    png: bytes
    alt: str

    @property
    def uri(self) -> str:
        """For the page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Picture:
    """A cut-out in the page with its caption; `anchor` is what the suspects point to."""

    jpeg: bytes
    title: str
    where: str
    anchor: str

    @property
    def uri(self) -> str:
        """For the page."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def report(
    detections: Path,
    data: str,
    out: Path,
    *,
    split: str = "test",
    class_map: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    rules: Sequence[str] = (),
    operating_point: Path | None = None,
    run_dir: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Makes the report from the files of `ppe-yolo evaluate`.

    Args:
        detections: detections.json, its ground_truth.json beside it.
        data: The data set, see `open_source`.
        out: Folder for the files.
        split: Which photos were measured.
        class_map: Name or file.
        on_error: As in the evaluation.
        rules: How to choose thresholds; on validation photos alone.
        operating_point: Thresholds that were chosen before.
        run_dir: A run folder, for its training curves.
        console: Where to print what was found; nowhere when None.

    Returns:
        What report.json holds.

    Raises:
        UserError: Files that do not fit together, or thresholds would be chosen on photos that are not for that.
    """
    material = read_material(detections, data, split=split, class_map=class_map, on_error=on_error)
    thresholds, origin = None, ""
    if operating_point is not None:
        thresholds = read_thresholds(operating_point, material.class_names, material.checkpoint_blake2b, material.tiles)
        origin = f"chosen before, from {operating_point.name}"
    return write_report(material, out, rules=rules, thresholds=thresholds, origin=origin, run_dir=run_dir, console=console)


def write_report(
    material: Material,
    out: Path,
    *,
    rules: Sequence[str] = (),
    thresholds: Mapping[str, float] | None = None,
    origin: str = "",
    run_dir: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Writes report.html, the PNGs, results.txt, suspects.csv, report.json and, on validation photos, operating_point.json.

    See `report`; `thresholds` are used instead of choosing any, and `origin` says where they come from.
    """
    names = material.class_names
    on_val = material.split == VAL
    if rules and not on_val:
        raise UserError(
            f"--rule: thresholds are chosen on validation photos alone, got --split {material.split}: report on --split val, "
            "then give its operating_point.json with --operating-point"
        )
    if rules and thresholds is not None:
        raise UserError("--rule: choose thresholds by a rule or give them with --operating-point, not both")
    chosen_by = parse_rules(rules, names) if on_val and thresholds is None else {}
    if chosen_by:
        origin = "chosen on these validation photos"
    elif thresholds is None:
        origin = f"{LOWEST_SCORE:g}, as the original system used: none was chosen on validation photos yet"
    figures = measure(material, chosen_by, thresholds or dict.fromkeys(names, LOWEST_SCORE), origin)
    training = read_training_curves(run_dir) if run_dir is not None else {}
    strong = strong_enough(material.detections, names, figures.operating_point.thresholds)
    alarms = false_alarms(material.detections, figures.targets, figures.outcome, strong, names)
    suspects = [a for a in alarms if a.is_suspect and material.detections.scores[a.detection] >= SUSPECT_SCORE]
    missed = misses(figures.targets, figures.outcome, strong)
    drawn = draw_charts(material, figures, training)
    plain = to_plain(material, figures)
    wrong, overlooked = _false_alarm_pictures(material, figures, alarms), _miss_pictures(material, figures, missed)
    page = _page(
        material=material,
        figures=figures,
        plain=plain,
        charts={c.name: c for c in drawn},
        training=bool(training),
        false_alarms=wrong,
        misses=overlooked,
        hard=_hard_pictures(material),
        fails=FAILS,
        counts={"false_alarms": len(alarms), "misses": len(missed), "suspects": len(suspects)},
        suspects=[_suspect_row(material, s, {p.anchor for p in wrong}) for s in suspects[:SUSPECTS_SHOWN]],
        suspect_score=SUSPECT_SCORE,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    for chart in drawn:
        with atomic_path(out / f"{chart.name}.png") as temporary:
            temporary.write_bytes(chart.png)
    write_text(out / "results.txt", results_text(material, figures))
    write_text(out / "suspects.csv", _suspects_csv(material, suspects))
    write_json(out / "report.json", plain)
    if chosen_by:
        write_json(out / "operating_point.json", operating_point_to_plain(material, figures))
    write_text(out / "report.html", page)  # the last one: where it is, the others are
    if console is not None:
        _say(console, figures, plain, out)
    return plain


def _say(console: Console, figures: SplitFigures, plain: Mapping[str, Any], out: Path) -> None:
    """The main figures in lines."""
    coco, voc = plain["coco"], plain["voc"]
    console.print(
        f"mAP@0.5 {percent(coco['map_50'])} (COCO), {percent(voc['map'])} (VOC, scores from 0.3), mAP@0.5:0.95 "
        f"{percent(coco['map'])} (COCO)"
    )
    for name, at in zip(plain["per_class"], figures.at_threshold, strict=True):
        choice = figures.operating_point.choices.get(name)
        if choice is not None and choice.threshold is None:
            console.print(
                f"{name}: NO threshold meets {figures.operating_point.rules[name]}: give another --rule", markup=False
            )
            continue
        console.print(
            f"{name}: threshold {figures.operating_point.thresholds[name]:.3f}: recall {percent(at.recall)}, precision "
            f"{percent(at.precision)}, {at.false_alarms_per_1000:.0f} false alarms on 1,000 photos"
        )
        band = at.recall_interval
        if choice is not None and band is not None and band[1] - band[0] > WIDE:
            console.print(
                f"{name}: chosen on {plain['per_class'][name]['objects']} objects: recall is known only as "
                f"{100 * band[0]:.0f} to {100 * band[1]:.0f} % (95 % interval): choose again on more validation photos",
                soft_wrap=True,
            )
    console.print(f"thresholds: {figures.operating_point.origin}", soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)


def _page(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("ppe_yolo.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["short"] = lambda pair: "" if pair is None else f"{100 * pair[0]:.1f}-{100 * pair[1]:.1f}"
    environment.filters["band"] = lambda pair: (
        "" if pair is None else Markup("95 % interval {:.1f} to {:.1f} %<br>").format(100 * pair[0], 100 * pair[1])
    )
    return environment.get_template("report.html.j2").render(**values)


def percent(value: float | None) -> str:
    """A fraction for people; a dash where it is not defined."""
    return "-" if value is None or np.isnan(value) else f"{100 * value:.1f} %"


def draw_charts(material: Material, figures: SplitFigures, training: Mapping[str, Any]) -> list[Chart]:
    """All figures of the page."""
    names, targets = material.class_names, figures.targets
    labels = range(len(names))
    objects = [c.objects for c in figures.voc]
    difficult = [int(((targets.labels == k) & targets.difficult).sum()) for k in labels]
    at = figures.at_threshold

    def listed(values: Sequence[Any], form: str = "{}") -> str:
        return ", ".join(f"{n} {'none here' if v is None else form.format(v)}" for n, v in zip(names, values, strict=True))

    coco_50 = [_defined(v) for v in figures.coco.per_class[0]]
    drawn = [
        _chart(
            "objects",
            charts.draw_objects(names, objects, difficult),
            f"Annotated objects: {listed(objects)}; difficult: {listed(difficult)}.",
        ),
        _chart(
            "average_precision",
            charts.draw_average_precision(
                names,
                {
                    "COCO, IoU 0.5": figures.coco.per_class[0],
                    "VOC, IoU 0.5": [np.nan if c.average_precision is None else c.average_precision for c in figures.voc],
                    "COCO, IoU 0.5 to 0.95": figures.coco.per_class.mean(axis=0),
                },
            ),
            f"Average precision: COCO at IoU 0.5 {listed(coco_50, '{:.3f}')}; VOC "
            f"{listed([c.average_precision for c in figures.voc], '{:.3f}')}.",
        ),
        _chart(
            "predicted",
            charts.draw_predicted(names, [a.hits for a in at], [a.false_alarms for a in at]),
            f"Detections at the threshold: true {listed([a.hits for a in at])}; false {listed([a.false_alarms for a in at])}.",
        ),
        _chart("confusion", charts.draw_confusion(figures.confusion, names), _confusion_in_words(figures, names)),
        _chart(
            "sizes",
            charts.draw_sizes(
                ["small", "medium", "large"],
                {
                    n: [figures.by_size[s].per_class[:, k].mean() for s in ("small", "medium", "large")]
                    for k, n in enumerate(names)
                },
                [charts.class_colour(n, k) for k, n in enumerate(names)],
            ),
            "Average precision by size of object: "
            + ", ".join(f"{s} {percent(figures.by_size[s].mean())}" for s in ("small", "medium", "large")),
        ),
        _chart(
            "calibration",
            charts.draw_calibration(names, figures.calibrations),
            f"Part of detections that is right against their score; expected calibration error "
            f"{listed([c.error for c in figures.calibrations], '{:.3f}')}.",
        ),
    ]
    for k, name in enumerate(names):
        precision = figures.coco.precision[0, :, k]
        has_objects = not np.isnan(precision).any()
        drawn.append(
            _chart(
                f"precision_recall_{k}",
                charts.draw_precision_recall(name, precision if has_objects else None, figures.voc[k]),
                f"Precision against recall of {name}: COCO AP at IoU 0.5 {percent(coco_50[k])}, VOC AP "
                f"{percent(figures.voc[k].average_precision)}.",
            )
        )
        one = figures.counts[k]
        threshold = figures.operating_point.thresholds[name]
        hits, found = np.cumsum(one.hit), np.arange(1, len(one.hit) + 1)
        chosen = figures.operating_point.choices.get(name)
        word = "chosen" if chosen is not None and chosen.threshold is not None else "used"
        drawn.append(
            _chart(
                f"thresholds_{k}",
                charts.draw_thresholds(name, one.scores, hits / found, hits / max(len(one.wanted), 1), threshold, word),
                f"Precision, recall and F1 of {name} against the score threshold; at {threshold:.3f} precision is "
                f"{percent(at[k].precision)} and recall {percent(at[k].recall)}.",
            )
        )
    for part, curves in training.items():
        last = ", ".join(f"{n} {values[-1]:.3g}" for n, (_, values) in curves.items())
        drawn.append(_chart(f"training_{part}", charts.draw_training(curves, part), f"Training, {part}: at the end {last}."))
    return drawn


def _chart(name: str, figure: Figure, alt: str) -> Chart:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return Chart(name, data.getvalue(), alt)


def _confusion_in_words(figures: SplitFigures, names: Sequence[str]) -> str:
    rows = []
    for row, annotated in zip(figures.confusion.tolist(), [*names, "background"], strict=True):
        found = ", ".join(f"{v} {c}" for v, c in zip(row, [*names, "not found"], strict=True))
        rows.append(f"{annotated} found as {found}")
    return "Confusion matrix: " + "; ".join(rows) + "."


def _false_alarm_pictures(material: Material, figures: SplitFigures, alarms: Sequence[FalseAlarm]) -> list[Picture]:
    table, result = material.detections, []
    for alarm in alarms[:PICTURES]:
        d = alarm.detection
        name, score, photo = material.class_names[table.labels[d]], float(table.scores[d]), int(table.photos[d])
        box = table.boxes_xyxy[d]
        jpeg = cut_out(_photo(material, photo), box, _annotated(figures, photo), box, (int(table.labels[d]), name, score))
        result.append(Picture(jpeg, f"{name} {score:.2f}: {alarm.kind}", material.annotated[photo].image_id, f"alarm-{d}"))
    return result


def _miss_pictures(material: Material, figures: SplitFigures, missed: NDArray[np.int64]) -> list[Picture]:
    targets, outcome, result = figures.targets, figures.outcome, []
    sizes = areas(targets.boxes_xyxy)
    for t in missed[:PICTURES].tolist():
        photo, name, finder = int(targets.photos[t]), material.class_names[targets.labels[t]], int(outcome.finder[t])
        width, height = targets.boxes_xyxy[t, 2:] - targets.boxes_xyxy[t, :2]
        seen = f"found with {material.detections.scores[finder]:.2f}, too weak" if finder >= 0 else "not found at any score"
        jpeg = cut_out(_photo(material, photo), targets.boxes_xyxy[t], _annotated(figures, photo))
        title = f"{name}, {width:.0f} x {height:.0f} pixels: {seen}"
        result.append(Picture(jpeg, title, material.annotated[photo].image_id, f"miss-{t}"))
    assert all(np.diff(sizes[missed]) <= 0)
    return result


def _hard_pictures(material: Material) -> list[Picture]:
    """One of each hard condition, the worst first."""
    pictures = []
    for row in material.robustness["conditions"] if material.robustness else ():
        path = material.folder / row["picture"]
        try:
            jpeg = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: expected the picture that {ROBUSTNESS_FILE} names, cannot be read ({error.strerror}): evaluate again"
            ) from error
        pictures.append(Picture(jpeg, f"{row['name']}: {row['severity']}", row["picture_of"], f"hard-{row['name']}"))
    return pictures


def _photo(material: Material, number: int) -> NDArray[np.uint8]:
    return read_image(material.annotated[number].image)


def _annotated(figures: SplitFigures, photo: int) -> NDArray[np.float64]:
    return figures.targets.boxes_xyxy[figures.targets.photos == photo]


def _suspect_row(material: Material, suspect: FalseAlarm, pictured: set[str]) -> dict[str, Any]:
    table, d = material.detections, suspect.detection
    return {
        "photo": material.annotated[table.photos[d]].image_id,
        "box": ", ".join(f"{v:.0f}" for v in table.boxes_xyxy[d]),
        "found": material.class_names[table.labels[d]],
        "score": float(table.scores[d]),
        "kind": suspect.kind,
        "anchor": f"alarm-{d}" if f"alarm-{d}" in pictured else None,
    }


def _suspects_csv(material: Material, suspects: Sequence[FalseAlarm]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["photo", "annotation", "x1", "y1", "x2", "y2", "found", "score", "annotation_says"])
    table = material.detections
    for suspect in suspects:
        d = suspect.detection
        photo = material.annotated[table.photos[d]]
        box = [f"{v:.1f}" for v in table.boxes_xyxy[d]]
        found = material.class_names[table.labels[d]]
        writer.writerow([shown(photo.image), photo.source, *box, found, f"{table.scores[d]:.4f}", suspect.kind])
    return text.getvalue()


def results_text(material: Material, figures: SplitFigures) -> str:
    """The figures by the VOC protocol in plain text, as the original system left them."""
    lines = ["# AP and precision/recall per class (VOC: IoU 0.5, all points, scores from 0.3, difficult ignored)"]
    for name, curve in zip(material.class_names, figures.voc, strict=True):
        ap = "no object" if curve.average_precision is None else f"{100 * curve.average_precision:.2f}%"
        lines += [f"{ap} = {name} AP"]
        for word, values in (("Precision", curve.precision), ("Recall", curve.recall)):
            lines.append(f" {word}: [{', '.join(f'{v:.2f}' for v in values)}]")
    mean, coco_50, coco = mean_average_precision(figures.voc), figures.coco.mean(0), figures.coco.mean()
    lines += ["", "# mAP of all classes", f"mAP = {_percent_2(mean)}"]
    lines += ["", "# Beside it, by the COCO protocol (101 recalls, all scores)"]
    lines += [f"mAP@0.5 = {_percent_2(coco_50)}", f"mAP@0.5:0.95 = {_percent_2(coco)}"]
    lines += ["", "# Number of ground-truth objects per class"]
    lines += [f"{n}: {c.objects}" for n, c in zip(material.class_names, figures.voc, strict=True)]
    lines += ["", "# Number of predicted objects per class"]
    for n, c in zip(material.class_names, figures.voc, strict=True):
        lines.append(f"{n}: {c.hits + c.false_alarms} (tp:{c.hits}, fp:{c.false_alarms})")
    if material.robustness:
        lines += robustness_text(material.robustness)
    return "\n".join(lines) + "\n"


def _percent_2(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.2f}%"


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
