"""The exceptions for what keeps the box from starting."""

from ppe_yolo.core.errors import UserError


class EdgeError(UserError):
    """An error that the user of the box can fix. At start it is printed in one line, and the exit code is 2."""


class DiskError(EdgeError):
    """The disk is full, read-only or broken at start. That may pass: the exit code is 1, so that a supervisor tries again."""
