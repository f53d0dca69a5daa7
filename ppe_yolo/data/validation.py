"""Which photos a training validates on, and finding the same ones again for its model. No torch."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.audit import AuditReport
from ppe_yolo.data.splits import hold_out

VAL = "val"
VALIDATION_KEY = "validation"  # in a contract's provenance: what `describe_validation` says


def training_split(report: AuditReport) -> str:
    """The split to train on, or to divide."""
    if {"train", VAL} <= set(report.images):
        return "train"
    return "trainval" if "trainval" in report.images else "train"


def divide(report: AuditReport, val_fraction: float, seed: int) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Photos to train on and photos to validate on: the split `val` where there is one, else a part held out.

    Args:
        report: Of the whole data set, since photos that look alike stay together, across splits, too.
        val_fraction: Part to hold out.
        seed: Another seed, another part.

    Raises:
        UserError: There is nothing to train on.
    """
    images = report.split(training_split(report))
    if VAL in report.images:
        validation = report.split(VAL)
        validated = {i.image for i in validation}
        return [i for i in images if i.image not in validated], validation
    groups = np.array([report.groups[i.image] for i in images])
    larger, held = hold_out([i.image_id for i in images], groups, val_fraction, seed)
    return [images[i] for i in larger], [images[i] for i in held]


def describe_validation(validation: Sequence[AnnotatedImage], val_fraction: float, seed: int) -> dict[str, Any]:
    """What a model remembers about the photos that it was validated on, in plain types."""
    return {"val_fraction": val_fraction, "seed": seed, "photos": len(validation), "names": _hash_of_names(validation)}


def validation_photos(
    report: AuditReport,
    model: str,
    remembered: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None,
    val_fraction: float | None = None,
    seed: int | None = None,
) -> list[AnnotatedImage]:
    """The photos of a data set that a model was validated on, and none that it was trained on.

    Args:
        report: Of the whole data set.
        model: The model's name, for messages.
        remembered: What `describe_validation` returned in the training for each of its data sets (a single description in
            files written before 0.2); None if the model does not tell.
        val_fraction: As in the training, for a model that does not tell.
        seed: As in the training, for a model that does not tell.

    Raises:
        UserError: They cannot be known, or are others than those that the model remembers.
    """
    if remembered is None:
        if VAL in report.images:
            return report.split(VAL)
        if val_fraction is None or seed is None:
            raise UserError(
                f"{model}: does not tell which photos it was validated on, and {report.root} has no split {VAL}: give "
                "--val-fraction and --seed as they were in its training (val_fraction and seed_everything in its config.yaml)"
            )
        return divide(report, val_fraction, seed)[1]
    descriptions = [remembered] if isinstance(remembered, Mapping) else list(remembered)
    first = descriptions[0]  # all data sets of a training share fraction and seed
    for flag, given, kept in (
        ("--val-fraction", val_fraction, first["val_fraction"]),
        ("--seed", seed, first["seed"]),
    ):
        if given is not None and given != kept:
            raise UserError(f"{flag}: {model} was validated with {kept}, got {given}: leave the option out")
    photos = divide(report, first["val_fraction"], first["seed"])[1]
    if _hash_of_names(photos) not in {description["names"] for description in descriptions}:
        counts = ", ".join(str(description["photos"]) for description in descriptions)
        raise UserError(
            f"{report.root}: these are not the photos that {model} was validated on ({counts} then, "
            f"{len(photos)} now, or others): some that it was trained on may be among them: use the data of its training"
        )
    return photos


def _hash_of_names(photos: Sequence[AnnotatedImage]) -> str:
    names = "\n".join(sorted(p.image_id for p in photos))
    return hashlib.blake2b(names.encode(), digest_size=16).hexdigest()
