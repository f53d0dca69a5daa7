"""Which images a training uses and which it validates on, and how to find the latter for its model. No torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.splits import hold_out, near_any

VAL, TEST = "val", "test"
Provenance = Sequence[Mapping[str, Any]] | Mapping[str, Any]  # see `validation_images`
VALIDATION_KEY = "validation"  # in the provenance of a contract: the result of `describe_validation`


@dataclass(frozen=True, kw_only=True)
class Part:
    """The share of one data set in a training.

    Attributes:
        training: Images to train on.
        validation: Images to validate on.
        alike: Number of images that are left out because they look like a validation or test image of any of the data sets.
    """

    training: list[AnnotatedImage]
    validation: list[AnnotatedImage]
    alike: int


def divide_all(datasets: Sequence[AnnotatedDataset], val_fraction: float, seed: int) -> list[Part]:
    """Divides each data set of a training. Leaves out training images that look like validation or test images of another.

    Args:
        datasets: The data sets.
        val_fraction: See `divide`.
        seed: See `divide`.

    Raises:
        UserError: There is nothing to train on.
    """
    divided = [divide(dataset, val_fraction, seed) for dataset in datasets]
    parts = []
    for own, (dataset, (training, validation)) in enumerate(zip(datasets, divided, strict=True)):
        # its own validation images are in other groups of images that look alike than its training images
        reserved = {
            other.hashes[image.image]
            for number, (other, (_, held_out)) in enumerate(zip(datasets, divided, strict=True))
            if number != own
            for image in (*held_out, *other.splits.get(TEST, ()))
        }
        if own > 0:  # the splits of the first data set are used as they are; the audit warns of images that look alike
            reserved |= {dataset.hashes[image.image] for image in dataset.splits.get(TEST, ())}
        alike = near_any([dataset.hashes[image.image] for image in training], sorted(reserved))
        kept = [image for image, is_alike in zip(training, alike, strict=True) if not is_alike]
        parts.append(Part(training=kept, validation=validation, alike=int(alike.sum())))
    return parts


def training_split(dataset: AnnotatedDataset) -> str:
    """The split to train on, or to divide into training and validation."""
    if {"train", VAL} <= set(dataset.splits):
        return "train"
    return "trainval" if "trainval" in dataset.splits else "train"


def divide(dataset: AnnotatedDataset, val_fraction: float, seed: int) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Images to train on and images to validate on: the split `val` if there is one, else a part held out.

    Args:
        dataset: The whole data set, since images that look alike stay together across splits, too.
        val_fraction: Fraction of the images to hold out.
        seed: Seed of the choice.

    Raises:
        UserError: There is nothing to train on.
    """
    images = dataset.split(training_split(dataset))
    if VAL in dataset.splits:
        validation = dataset.split(VAL)
        paths = {image.image for image in validation}
        return [image for image in images if image.image not in paths], validation
    groups = np.array([dataset.groups[image.image] for image in images])
    larger, held_out = hold_out([image.image_id for image in images], groups, val_fraction, seed)
    return [images[i] for i in larger], [images[i] for i in held_out]


def describe_validation(validation: Sequence[AnnotatedImage], val_fraction: float, seed: int) -> dict[str, Any]:
    """Description of the validation images for the provenance of a model, in plain types."""
    # "photos": existing models have this key in their provenance
    return {"val_fraction": val_fraction, "seed": seed, "photos": len(validation), "names": _hash_of_names(validation)}


def validation_images(
    dataset: AnnotatedDataset,
    model: str,
    provenance: Provenance | None,
    val_fraction: float | None = None,
    seed: int | None = None,
) -> list[AnnotatedImage]:
    """The images of a data set that a model was validated on, and none that it was trained on.

    Args:
        dataset: The whole data set.
        model: Name of the model, for messages.
        provenance: The description of the validation images for each data set of the training, see `describe_validation`. Files
            written before 0.2 hold a single description; None for models without one.
        val_fraction: The value of the training, for models without a description.
        seed: The value of the training, for models without a description.

    Raises:
        UserError: The images are unknown, or differ from those in the description.
    """
    if provenance is None:
        if VAL in dataset.splits:
            return dataset.split(VAL)
        if val_fraction is None or seed is None:
            raise UserError(
                f"{model} does not record its validation images, and the data set has no split {VAL}",
                file=dataset.root,
                hint="give --val-fraction and --seed of its training (val_fraction and seed_everything in its config.yaml)",
            )
        return divide(dataset, val_fraction, seed)[1]
    described = descriptions(provenance)
    first = described[0]  # all data sets of a training share fraction and seed
    for setting, value, recorded in (
        ("val_fraction", val_fraction, first["val_fraction"]),
        ("seed", seed, first["seed"]),
    ):
        if value is not None and value != recorded:
            raise UserError(
                setting=setting,
                expected=f"{recorded}, the value that {model} was trained with",
                got=str(value),
                hint="leave the option out",
            )
    has_val = VAL in dataset.splits  # the other splits may be missing
    images = dataset.split(VAL) if has_val else divide(dataset, first["val_fraction"], first["seed"])[1]
    if _hash_of_names(images) not in {description["names"] for description in described}:
        counts = ", ".join(str(description["photos"]) for description in described)
        raise UserError(
            f"these are not the images that {model} was validated on (then {counts}, now {len(images)} or different ones), so "
            "the model may have been trained on some of them",
            file=dataset.root,
            hint="use the data of its training",
        )
    return images


def count_trained_on(dataset: AnnotatedDataset, validation: Sequence[AnnotatedImage], earlier: Provenance) -> int:
    """Number of validation images that an earlier training used for training, because it divided the data set differently.

    Args:
        dataset: The whole data set.
        validation: The images to validate on now.
        earlier: What the earlier training recorded, see `validation_images`.

    Returns:
        0 if the data set was not part of that training, or was different.
    """
    described = descriptions(earlier)
    training, held_out = divide(dataset, described[0]["val_fraction"], described[0]["seed"])
    if _hash_of_names(held_out) not in {description["names"] for description in described}:
        return 0
    return len({image.image for image in training} & {image.image for image in validation})


def descriptions(provenance: Provenance) -> Sequence[Mapping[str, Any]]:
    """What a training recorded of the validation images of each data set, see `validation_images`."""
    return [provenance] if isinstance(provenance, Mapping) else provenance


def _hash_of_names(images: Sequence[AnnotatedImage]) -> str:
    names = "\n".join(sorted(image.image_id for image in images))
    return hashlib.blake2b(names.encode(), digest_size=16).hexdigest()
