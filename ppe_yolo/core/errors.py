"""The one exception that stands for a mistake of the user, not of the program."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the file, the object, what was expected, what came and what to do. The command
    line prints it without a traceback and exits with code 2.
    """
