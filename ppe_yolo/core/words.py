"""Numbers, durations and the messages of other libraries in sentences."""


def plural(number: int | str, noun: str) -> str:
    """Returns a number, which may be formatted, with its noun: "1 camera", "2 cameras", "0.5 frames"."""
    return f"{number} {noun}{'' if str(number) == '1' else 's'}"


def duration(seconds: float) -> str:
    """Returns a duration in one unit: "90 seconds", "10 minutes", "63 hours"."""
    for unit, length in (("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return plural(f"{seconds / length:.0f}", unit)
    return plural(f"{seconds:.0f}", "second")


def one_line(error: Exception, max_length: int = 200) -> str:
    """Returns the message of an exception from another library as one short line, or its type if it has no message."""
    return (" ".join(str(error).split()) or type(error).__name__)[:max_length]
