"""Files are whole or not there."""

import json

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, write_json, write_text


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new" / "report.json"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".json"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "report.json"
    write_text(path, "old")
    with pytest.raises(failure), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path):
    write_text(tmp_path / "file", "")
    for path, reason in (
        (tmp_path / "file" / "report.json", "File exists"),
        (tmp_path / "file" / "deeper" / "report.json", "Not a directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(UserError) as error:
            write_text(path, "text")
        assert str(error.value) == f"{path}: cannot be written ({reason})"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_is_for_every_reader(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"class": "Schutzhelm ü", "ap": None})
    assert "Schutzhelm ü" in path.read_text(encoding="utf-8") and path.read_text(encoding="utf-8").endswith("}\n")
    assert json.loads(path.read_text(encoding="utf-8")) == {"class": "Schutzhelm ü", "ap": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"ap": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["ap"] is None
