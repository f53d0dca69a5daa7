import pytest

from ppe_yolo.core.words import plural


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), ("1", "1 frame"), ("0.5", "0.5 frames")]
)
def test_plural_is_used_except_for_one(number: int | str, text: str) -> None:
    assert plural(number, "frame") == text
