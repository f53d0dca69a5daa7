import pytest

from ppe_yolo.core.words import duration, plural


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), ("1", "1 frame"), ("0.5", "0.5 frames")]
)
def test_plural_is_used_except_for_one(number: int | str, text: str) -> None:
    assert plural(number, "frame") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 seconds"),
        (1.0, "1 second"),
        (119.0, "119 seconds"),
        (120.0, "2 minutes"),
        (7199.0, "120 minutes"),
        (7200.0, "2 hours"),
        (226_800.0, "63 hours"),
    ],
)
def test_duration_is_in_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
