"""The exception for mistakes of whoever configures the box."""

from ppe_yolo.core.errors import UserError


class EdgeError(UserError):
    """A mistake that whoever configures the box can fix. At start the process prints it in one line and exits with code 2."""
