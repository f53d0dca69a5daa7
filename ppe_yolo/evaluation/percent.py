"""Fractions as people read them."""

import math


def percent(value: float | None, decimals: int = 1, unit: str = " %") -> str:
    """A fraction in percent; a dash if it is undefined (None or NaN)."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{decimals}f}{unit}"
