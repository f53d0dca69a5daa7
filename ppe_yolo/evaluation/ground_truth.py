"""The images of an evaluation with their objects, and what was evaluated on them. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ppe_yolo.evaluation.metrics.matching import DetectionTable, Ints, TargetTable


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """An evaluated image.

    Attributes:
        name: Its name, wherever the data set lies. In an evaluation of several data sets it starts with the domain's name.
        file_name: Path or URL.
        height: Pixels.
        width: Pixels.
        domain: Name of its data set in an evaluation of several data sets; else empty.
    """

    name: str
    file_name: str
    height: int
    width: int
    domain: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationInfo:
    """What was evaluated.

    Attributes:
        model: The model's name.
        split: The split.
        tiles: See `TiledDetector`; 1 for whole images alone.
        checkpoint_blake2b: Hash of the checkpoint that the model is, or was made from.
        model_blake2b: Hash of the evaluated file: a quantised model shares its checkpoint with the model it was made from.
        input_size: (height, width) of the network's input, pixels; None in files written before 0.2.
        display_names: Class name -> the name that people read.
        alarm_thresholds: Class name -> threshold in the model file, for all classes or for none.
    """

    model: str = ""
    split: str = ""
    tiles: int = 1
    checkpoint_blake2b: str | None = None
    model_blake2b: str | None = None
    input_size: tuple[int, int] | None = None
    display_names: Mapping[str, str] = field(default_factory=dict)
    alarm_thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The images of an evaluation and their objects.

    Attributes:
        images: The images, in the order of their ids.
        targets: Their objects.
        class_names: Names of the labels.
        info: What was evaluated on them.
        data_blake2b: Hash of the classes and of the name, size and objects of each image. Neither the order of images and
            objects nor the place of the files changes it. The pixels are not part of it.
    """

    images: tuple[ImageRecord, ...]
    targets: TargetTable
    class_names: tuple[str, ...]
    info: EvaluationInfo = EvaluationInfo()
    data_blake2b: str = ""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of their first image."""
        return tuple(dict.fromkeys(image.domain for image in self.images))

    @property
    def domain_of(self) -> Ints:
        """Index of each image's domain [images]."""
        index = {name: i for i, name in enumerate(self.domains)}
        return np.array([index[image.domain] for image in self.images], dtype=np.int64)

    def sorted_by_name(self, detections: DetectionTable) -> tuple["GroundTruth", DetectionTable]:
        """The same images and detections with the images in the order of their names, as comparisons need them."""
        boxes: list[list[list[float]]] = [[] for _ in self.images]
        for image, box in zip(self.targets.images.tolist(), self.targets.boxes_xyxy.tolist(), strict=True):
            boxes[image].append(box)
        keys = [(i.name, i.width, i.height, sorted(b)) for i, b in zip(self.images, boxes, strict=True)]
        order = np.array(sorted(range(len(self)), key=keys.__getitem__), dtype=np.int64)
        new_index = np.argsort(order)
        targets = replace(self.targets, images=new_index[self.targets.images])
        targets = targets.select(np.argsort(targets.images, kind="stable"))
        detections = replace(detections, images=new_index[detections.images])
        detections = detections.select(np.lexsort((detections.images, -detections.scores)))
        return replace(self, images=tuple(self.images[i] for i in order), targets=targets), detections
