"""The exceptions for what keeps the box from starting."""

from ppe_yolo.core.errors import UserError


class EdgeError(UserError):
    """An error that the user of the box can fix. At start it is printed in one line, and the exit code is 2."""


class NotReadyError(EdgeError):
    """What keeps the box from starting may pass, such as a disk that is read-only, or a driver that is not loaded yet.

    The exit code is 1, so that a supervisor tries again.
    """
