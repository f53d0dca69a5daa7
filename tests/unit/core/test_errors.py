"""The message of a user's mistake follows from its fields."""

from pathlib import Path

from ppe_yolo.core.errors import UserError


def test_user_error_message_names_file_item_expected_got_and_hint_in_that_order() -> None:
    error = UserError(file=Path("a.xml"), item="object 2 (hat)", expected="x1 < x2", got="(9, 3)", hint="fix the box")
    assert str(error) == "a.xml: object 2 (hat): expected x1 < x2, got (9, 3): fix the box"
    assert (error.file, error.item) == ("a.xml", "object 2 (hat)")


def test_user_error_with_problem_only_shows_it_unchanged() -> None:
    assert str(UserError("a.xml: cannot be read")) == "a.xml: cannot be read"


def test_user_error_describe_shows_setting_as_given_flag() -> None:
    error = UserError(setting="class_map", expected="a name", got="'x'")
    assert str(error) == "class_map: expected a name, got 'x'"
    assert error.describe("--data.class_map") == "--data.class_map: expected a name, got 'x'"
