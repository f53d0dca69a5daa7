"""Atomic writes and hashes of files."""

import json
import os

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path, replacing, sha256_file, write_json, write_text


def test_atomic_path_keeps_old_file_until_block_ends(tmp_path):
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
def test_atomic_path_after_failure_leaves_old_file_only(tmp_path, failure):
    path = tmp_path / "report.json"
    write_text(path, "old")
    with pytest.raises(failure), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_atomic_path_without_write_access_raises_user_error_with_path_and_reason(tmp_path):
    write_text(tmp_path / "file", "")
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "file" / "report.json", "File exists"),
        (tmp_path / "file" / "deeper" / "report.json", "Not a directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "a device or a pipe, not a file"),
    ):
        with pytest.raises(UserError) as error:
            write_text(path, "text")
        assert str(error.value) == f"{path}: cannot be written ({reason})"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "pipe"] and (tmp_path / "pipe").is_fifo()


def test_write_json_writes_utf8_and_rejects_nan(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"class": "Schutzhelm ü", "ap": None})
    assert "Schutzhelm ü" in path.read_text(encoding="utf-8") and path.read_text(encoding="utf-8").endswith("}\n")
    assert json.loads(path.read_text(encoding="utf-8")) == {"class": "Schutzhelm ü", "ap": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"ap": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["ap"] is None


def test_replacing_without_write_access_raises_os_error_and_sets_mode(tmp_path):
    path = tmp_path / "secret"
    with replacing(path, 0o600) as temporary:
        temporary.write_bytes(b"content")
    assert path.read_bytes() == b"content" and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotADirectoryError), replacing(path / "deeper" / "file"):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_file_matches_known_hash(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
