"""The data of a quantisation: training images to find ranges on, validation images to evaluate on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.held_out import VALIDATION_KEY, training_split, validation_images
from ppe_yolo.evaluation.data_sets import DataSpec


@dataclass(frozen=True)
class CalibrationData:
    """Images of all data sets of a training.

    Attributes:
        training: Images that the model was trained on.
        validation: Images that it was validated on.
    """

    training: list[AnnotatedImage]
    validation: list[AnnotatedImage]


def open_calibration(
    data: Sequence[DataSpec], contract: ModelContract, model: str, val_fraction: float | None, seed: int | None
) -> CalibrationData:
    """Audits the data sets of a training and finds its training and validation images again.

    Args:
        data: The data sets.
        contract: Of the model.
        model: Its name, for messages.
        val_fraction: See `validation_images`.
        seed: See `validation_images`.

    Raises:
        UserError: A data set has errors or other classes, is not the model's, or none has a validation image with an object.
    """
    training: list[AnnotatedImage] = []
    validation: list[AnnotatedImage] = []
    for spec in data:
        class_map = load_class_map(spec.class_map).require_classes(contract.class_names, model)
        dataset = AnnotatedDataset.open(spec.root, class_map)
        held_out = validation_images(dataset, model, contract.provenance.get(VALIDATION_KEY), val_fraction, seed)
        validation += held_out
        paths = {image.image for image in held_out}
        training += [image for image in dataset.split(training_split(dataset)) if image.image not in paths]
    if not any(not o.difficult for image in validation for o in image.objects):
        raise UserError(
            file=", ".join(spec.root for spec in data),
            expected="validation images with objects",
            got="none",
            hint="use the data of the training",
        )
    return CalibrationData(training, validation)


def choose_images(images: Sequence[AnnotatedImage], count: int, seed: int) -> list[AnnotatedImage]:
    """Some of the images; the same seed gives the same images."""
    rng = np.random.default_rng(seed)
    return [images[i] for i in sorted(rng.choice(len(images), min(count, len(images)), replace=False))]
