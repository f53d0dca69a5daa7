"""The one exception that stands for a mistake of whoever set the box up, not of the program."""


class EdgeError(Exception):
    """A mistake that can be mended: one line that names the object, what was expected, what came; exit code 2 at start."""
