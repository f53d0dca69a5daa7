"""The exception for errors in the configuration of the box."""

from ppe_yolo.core.errors import UserError


class EdgeError(UserError):
    """An error that the user of the box can fix. At start it is printed in one line, and the exit code is 2."""
