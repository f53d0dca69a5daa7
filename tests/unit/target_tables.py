"""Tables of objects for the tests of the figures."""

from ppe_yolo.evaluation.metrics.matching import Flags, Floats, Ints, TargetTable


def targets_from(images: Ints, boxes_xyxy: Floats, labels: Ints, difficult: Flags) -> TargetTable:
    """Returns the table of objects; one row per object."""
    return TargetTable(images=images, boxes_xyxy=boxes_xyxy, labels=labels, difficult=difficult)
