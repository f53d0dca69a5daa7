"""What a report is made from: detections.json, the ground_truth.json next to it, and the annotated images. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.dataset import AnnotatedDataset, OnError
from ppe_yolo.data.held_out import VAL, training_split
from ppe_yolo.evaluation.data_sets import DataSpec, Domain, all_images, ground_truth_of, open_data_sets
from ppe_yolo.evaluation.files.detections import read_detections
from ppe_yolo.evaluation.files.folder import GROUND_TRUTH_FILE
from ppe_yolo.evaluation.files.ground_truth import read_ground_truth
from ppe_yolo.evaluation.files.robustness import Robustness, read_robustness
from ppe_yolo.evaluation.ground_truth import EvaluationInfo, GroundTruth
from ppe_yolo.evaluation.metrics.matching import DetectionTable


@dataclass(frozen=True, kw_only=True)
class Material:
    """An evaluated split.

    Attributes:
        truth: Its images and objects, and what was evaluated on them.
        detections: The detections.
        domains: Its data sets.
        annotated: Its images, in the order of `truth`.
        robustness: The content of robustness.json, or None without one.
        folder: Where the images that robustness.json names are.
    """

    truth: GroundTruth
    detections: DetectionTable
    domains: Sequence[Domain]
    annotated: Sequence[AnnotatedImage]
    robustness: Robustness | None = None
    folder: Path = Path()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.truth.class_names

    @property
    def display_names(self) -> tuple[str, ...]:
        """Names of the labels, as people read them."""
        return tuple(self.truth.info.display_names.get(name, name) for name in self.truth.class_names)

    @property
    def data(self) -> str:
        """The data sets."""
        return ", ".join(domain.root for domain in self.domains)


def read_material(
    detections: Path,
    data: str | Sequence[DataSpec],
    *,
    split: str,
    on_error: OnError = "stop",
) -> Material:
    """Reads the files of `ppe-yolo evaluate` and the data that they belong to.

    The annotation is that of the data, as it is now. Without a ground_truth.json next to the detections, image_id counts the
    images of the split in the order of the data.

    Raises:
        UserError: A file cannot be read, or belongs to other images, classes or another split.
    """
    data_sets = open_data_sets(data, None, split=split, on_error=on_error)
    class_map = next(iter(data_sets.values())).class_map
    class_names = class_map.class_names
    path = detections.with_name(GROUND_TRUTH_FILE)
    if path.exists():
        recorded = read_ground_truth(path)
        _check(recorded, path, split, class_names)
        info, domains = recorded.info, _recorded_domains(recorded, path, data_sets, split)
    else:
        info = EvaluationInfo(split=split, display_names=class_map.display_names)
        domains = [_whole_domain(name, one, split, path, detections.name) for name, one in data_sets.items()]
    truth = ground_truth_of(domains, class_names, info)
    return Material(
        truth=truth,
        detections=read_detections(detections, len(truth), class_names),
        domains=domains,
        annotated=all_images(domains),
        robustness=read_robustness(detections.parent),
        folder=detections.parent,
    )


def _check(recorded: GroundTruth, path: Path, split: str, class_names: tuple[str, ...]) -> None:
    was = recorded.info.split
    if was != split:
        raise UserError(
            f"holds the split {was}, asked for {split}", file=path, hint=f"give --split {was}, or evaluate that split"
        )
    if recorded.class_names != class_names:
        raise UserError(
            f"holds the classes {', '.join(recorded.class_names)}, the class map has {', '.join(class_names)}",
            file=path,
            hint="choose the class map with --class-map",
        )


def _whole_domain(name: str, dataset: AnnotatedDataset, split: str, path: Path, detections: str) -> Domain:
    """Without a record: the split as the data has it."""
    if split == VAL and VAL not in dataset.splits:
        raise UserError(
            f"missing next to {detections}, but it records which images were held out for validation ({dataset.root} has no "
            f"split {VAL})",
            file=path,
            hint="evaluate again",
        )
    return Domain.of(name, dataset, dataset.split(split))


def _recorded_domains(recorded: GroundTruth, path: Path, data_sets: Mapping[str, AnnotatedDataset], split: str) -> list[Domain]:
    """The images of the record, in its order; their annotation comes from the data."""
    several = len(data_sets) > 1
    given = {name if several else "": name for name in data_sets}  # name in the record -> name
    if set(recorded.domains) != set(given):
        evaluated = ", ".join(recorded.domains)
        raise UserError(
            file=path,
            expected=f"--data for each evaluated data set ({evaluated})" if evaluated else "one --data, as evaluated",
            got=", ".join(dataset.root for dataset in data_sets.values()),
        )
    domains = []
    for domain in recorded.domains:
        dataset = data_sets[given[domain]]
        prefix = f"{domain}/" if domain else ""
        names = [i.name.removeprefix(prefix) for i in recorded.images if i.domain == domain]
        held_out = split == VAL and VAL not in dataset.splits
        images = {a.image_id: a for a in dataset.split(training_split(dataset) if held_out else split)}
        missing = [n for n in names if n not in images]
        more = [] if held_out else sorted(set(images) - set(names))
        if missing or more:
            what = f"{missing[0]!r} is not in the split" if missing else f"{more[0]!r} was not measured"
            raise UserError(
                f"holds other images than {dataset.root} ({what})",
                file=path,
                hint="evaluate again, or give the data that was evaluated",
            )
        domains.append(Domain.of(given[domain], dataset, [images[n] for n in names]))
    return domains
