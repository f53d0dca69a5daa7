"""Numbers in sentences."""


def plural(number: int | str, noun: str) -> str:
    """Returns a number, which may be formatted, with its noun: "1 camera", "2 cameras", "0.5 frames"."""
    return f"{number} {noun}{'' if str(number) == '1' else 's'}"
