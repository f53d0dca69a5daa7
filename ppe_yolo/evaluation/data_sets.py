"""The data sets of an evaluation: one domain each, with a class map of its own. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset, OnError
from ppe_yolo.data.held_out import VAL
from ppe_yolo.data.images import shown
from ppe_yolo.evaluation.ground_truth import EvaluationInfo, GroundTruth, ImageRecord
from ppe_yolo.evaluation.metrics.domain_figures import DomainFigures, domain_figures
from ppe_yolo.evaluation.metrics.matching import DetectionTable, TargetTable, target_table


@dataclass(frozen=True)
class DataSpec:
    """A data set to evaluate on.

    Attributes:
        root: See `open_source`.
        class_map: Name or file; the default one if None.
    """

    root: str
    class_map: str | None = None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The evaluated images of one data set.

    Attributes:
        name: See `open_data_sets`.
        root: Where the data set is.
        class_map: Name of its class map.
        images: Its images.
        sizes: (height, width) of each.
        skipped: Number of images that the audit rejected.
    """

    name: str
    root: str
    class_map: str
    images: list[AnnotatedImage]
    sizes: list[tuple[int, int]]
    skipped: int = 0

    @classmethod
    def of(cls, name: str, dataset: AnnotatedDataset, images: list[AnnotatedImage]) -> "Domain":
        """Returns the domain of some images of a data set."""
        return cls(
            name=name,
            root=dataset.root,
            class_map=dataset.class_map.name,
            images=images,
            sizes=[dataset.sizes[image.image] for image in images],
            skipped=dataset.left_out,
        )


def parse_data(texts: Sequence[str], class_map: str | None = None) -> list[DataSpec]:
    """Data sets from `DIR` or `DIR=CLASSMAP`; without a class map of its own, a data set gets the given one.

    A folder whose name contains `=` is taken as it is.
    """
    specs = []
    for text in texts:
        root, equals, own = text.rpartition("=")
        if equals and root and not Path(text).exists():
            specs.append(DataSpec(root, own))
        else:
            specs.append(DataSpec(text, class_map))
    return specs


def open_data_sets(
    data: str | Sequence[DataSpec],
    class_map: str | None,
    *,
    split: str,
    on_error: OnError,
    model_classes: tuple[tuple[str, ...], str] | None = None,
    progress: bool = False,
) -> dict[str, AnnotatedDataset]:
    """Opens and audits data sets.

    Args:
        data: One data set, with `class_map`, or several.
        class_map: Name or file, for one data set.
        split: The images to look at. For `val`, all splits are opened: which images were held out depends on look-alikes in
            every split.
        on_error: What happens if the audit finds errors in the split.
        model_classes: Class names that every class map must have, and the model that has them.
        progress: Whether to show a progress bar.

    Returns:
        Name of the domain -> data set. The name is that of the folder, with a number if another has the same.

    Raises:
        UserError: The data has errors, or the class maps have different classes.
    """
    specs = [DataSpec(data, class_map)] if isinstance(data, str) else list(data)
    if len({str(Path(spec.root).resolve()) for spec in specs}) < len(specs):
        raise UserError(setting="data", expected="each data set once", got=", ".join(spec.root for spec in specs))
    maps = [load_class_map(spec.class_map) for spec in specs]
    for spec, mapping in zip(specs, maps, strict=True):
        if model_classes is not None:
            mapping.require_classes(*model_classes)
        elif mapping.class_names != maps[0].class_names:
            raise UserError(
                file=spec.root,
                expected=f"a class map with the classes {', '.join(maps[0].class_names)}, like that of {specs[0].root}",
                got=f"{mapping.name}, with {', '.join(mapping.class_names)}",
                hint="give it its own with --data DIR=CLASSMAP",
            )
    result: dict[str, AnnotatedDataset] = {}
    for spec, mapping in zip(specs, maps, strict=True):
        splits = None if split == VAL else [split]
        dataset = AnnotatedDataset.open(spec.root, mapping, splits=splits, on_error=on_error, progress=progress)
        base = Path(spec.root).resolve().name or spec.root
        names = (base, *(f"{base}-{number}" for number in range(2, len(specs) + 2)))
        result[next(name for name in names if name not in result)] = dataset
    return result


def ground_truth_of(domains: Sequence[Domain], class_names: Sequence[str], info: EvaluationInfo) -> GroundTruth:
    """All images of all domains, one domain after the other; with several, names start with the domain's."""
    several = len(domains) > 1
    records = tuple(
        ImageRecord(
            name=f"{domain.name}/{image.image_id}" if several else image.image_id,
            file_name=shown(image.image),
            height=size[0],
            width=size[1],
            domain=domain.name if several else "",
        )
        for domain in domains
        for image, size in zip(domain.images, domain.sizes, strict=True)
    )
    images = all_images(domains)
    return GroundTruth(images=records, targets=target_table(images, class_names), class_names=tuple(class_names), info=info)


def all_images(domains: Sequence[Domain]) -> list[AnnotatedImage]:
    """The images of all domains; with several, their ids start with the domain's name, and so are unique."""
    if len(domains) == 1:
        return domains[0].images
    return [replace(image, image_id=f"{d.name}/{image.image_id}") for d in domains for image in d.images]


def figures_by_domain(
    domains: Sequence[Domain],
    detections: DetectionTable,
    targets: TargetTable,
    *,
    input_size: tuple[int, int],
    class_names: Sequence[str],
    thresholds: dict[str, float],
) -> list[DomainFigures]:
    """The figures of each domain; tables count the images of all domains."""
    result, start = [], 0
    for domain in domains:
        end = start + len(domain.images)
        own = detections.select((detections.images >= start) & (detections.images < end))
        wanted = targets.select((targets.images >= start) & (targets.images < end))
        result.append(
            domain_figures(
                domain.name,
                replace(own, images=own.images - start),
                replace(wanted, images=wanted.images - start),
                np.array(domain.sizes),
                input_size=input_size,
                class_names=class_names,
                thresholds=thresholds,
            )
        )
        start = end
    return result
