"""Versions of a data set, in folders and in memory: names, invalid input, retries."""

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.store import store as module
from ppe_yolo.data.store.manifest import AT_ONCE, StoredFile, is_safe, list_files, parse_manifest, version_of
from ppe_yolo.data.store.store import TRIES, Store

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", FIPS 180-2
STEMS = [f"p{i}" for i in range(3)]


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._with_retries.retry, "sleep", lambda seconds: None)


@pytest.fixture
def folder(tmp_path: Path, make_voc: Callable[..., Path]) -> Path:
    return make_voc(tmp_path / "pushed", STEMS, {"trainval": STEMS[:2], "test": STEMS[2:]})


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/helmets"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def manifest(*files: StoredFile, version: str | None = None, **changes: Any) -> tuple[bytes, str]:
    """A manifest and its version."""
    made = {"schema": 1, "created": "2026-11-25T07:00:00+00:00", "files": [asdict(f) for f in files], **changes}
    return json.dumps(made).encode(), version or version_of(files)


def test_list_files_with_hashes_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ä x.jpg").write_text("abc")
    (tmp_path / "a.xml").write_text("")
    for hidden in (".DS_Store", "b/.part", ".git/config"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_text("x")
    empty, image = list_files(tmp_path)
    assert (empty.path, empty.size) == ("a.xml", 0)
    assert image == StoredFile("b/ä x.jpg", 3, ABC)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    with pytest.raises(UserError, match="link: expected a folder, got a link to a folder"):
        list_files(tmp_path)


def test_version_of_depends_on_content_only() -> None:
    one, two = StoredFile("a", 3, ABC), StoredFile("b", 3, ABC)
    assert version_of([one, two]) == version_of([two, one])
    others = [[one], [one, StoredFile("c", 3, ABC)], [one, StoredFile("b", 4, ABC)], [one, StoredFile("b", 3, ABC[::-1])], []]
    assert len({version_of(files) for files in [[one, two], *others]}) == 6


def test_push_and_pull_restore_every_file_once(folder: Path, tmp_path: Path, url: str) -> None:
    store, before = Store(url), contents(folder)
    assert store.versions() == []
    pushed = store.push(folder)
    assert pushed.moved == len(before) == 8
    assert pushed.moved_bytes == sum(map(len, before.values()))
    assert Store(url).push(folder).moved == 0
    assert Store(url).pull(tmp_path / "back").moved == 8
    assert contents(tmp_path / "back") == before == contents(folder)
    assert Store(url).pull(tmp_path / "back").moved == 0

    # other content is another version; the first one does not change
    (folder / "JPEGImages" / "p1.jpg").write_bytes(b"another image")
    again = Store(url).push(folder)
    assert [m.version for m in Store(url).versions()] == [pushed.manifest.version, again.manifest.version]
    Store(url).pull(tmp_path / "old", pushed.manifest.version)
    Store(url).pull(tmp_path / "new")
    assert contents(tmp_path / "old") == before
    assert contents(tmp_path / "new") == contents(folder) != before


def test_failed_push_is_invisible_and_resumes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, written = f"memory://{uuid.uuid4().hex}", []
    memory = fsspec.filesystem("memory")
    whole = type(memory).pipe_file

    def breaking(self: Any, path: str, value: bytes, **options: Any) -> None:
        if len(written) >= 3:
            raise PermissionError(13, "Permission denied")
        written.append(path)
        whole(self, path, value, **options)

    monkeypatch.setattr(type(memory), "pipe_file", breaking)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    with pytest.raises(UserError, match=r"memory://.*: the store failed \(PermissionError: Permission denied\)"):
        Store(url).push(folder)
    assert Store(url).versions() == []
    monkeypatch.undo()
    assert Store(url).push(folder).moved == 8 - 3
    Store(url).pull(tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ConnectionResetError("reset"), TRIES),
        (type("Throttled", (Exception,), {"status_code": 429})(), TRIES),
        (type("Busy", (Exception,), {"status_code": 503})(), TRIES),
        (type("Refused", (Exception,), {"status_code": 403})(), 1),
        (PermissionError(13, "no"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_transient_errors_are_retried(error: Exception, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def failing(*_: Any, **__: Any) -> None:
        made.append(1)
        raise error

    store = Store("memory://somewhere")
    monkeypatch.setattr(store._fs, "find", failing)
    with pytest.raises(UserError, match="memory://somewhere: the store failed"):
        store.versions()
    assert len(made) == calls


def test_transient_errors_are_invisible(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, tries = f"memory://{uuid.uuid4().hex}", {}
    Store(url).push(folder)
    memory = type(fsspec.filesystem("memory"))
    whole = memory.cat_file

    def failing_at_first(self: Any, path: str, **options: Any) -> bytes:
        tries[path] = tries.get(path, 0) + 1
        if tries[path] < TRIES:
            raise TimeoutError
        return whole(self, path, **options)

    monkeypatch.setattr(memory, "cat_file", failing_at_first)
    Store(url).pull(tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)


def test_pull_damaged_file_raises_and_keeps_nothing(folder: Path, tmp_path: Path, url: str) -> None:
    version = Store(url).push(folder).manifest.version
    damaged = f"{url}/{version}/Annotations/p1.xml"
    with fsspec.open(damaged, "rb") as file:
        data = file.read()
    with fsspec.open(damaged, "wb") as file:
        file.write(data[:-1] + b"?")
    with pytest.raises(UserError, match=r"p1\.xml: damaged in the store \(SHA-256 differs\): remove the file from the store"):
        Store(url).pull(tmp_path / "back")
    assert not (tmp_path / "back" / "Annotations" / "p1.xml").exists()
    filesystem, path = fsspec.url_to_fs(damaged)
    filesystem.rm(path)
    with pytest.raises(UserError, match=r"p1\.xml: missing in the store"):
        Store(url).pull(tmp_path / "back")
    assert Store(url).push(folder).moved == 1
    Store(url).pull(tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)


def test_pull_replaces_no_other_files(folder: Path, tmp_path: Path, url: str) -> None:
    Store(url).push(folder)
    for name, content in (("JPEGImages/p0.jpg", b"my own"), ("notes.txt", b"mine")):
        mine = tmp_path / Path(name).stem
        (mine / name).parent.mkdir(parents=True)
        (mine / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: differs from version [0-9a-f]{{16}}: pull into an empty folder"):
            Store(url).pull(mine)
        assert contents(mine) == {name: content}
    outside, target = tmp_path / "outside", tmp_path / "target"
    for path in (outside, target):
        path.mkdir()
    (target / "JPEGImages").symlink_to(outside)
    with pytest.raises(UserError, match=r"JPEGImages: expected a folder, got a link"):
        Store(url).pull(target)
    assert contents(outside) == {}


def test_push_file_changed_meanwhile_raises(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed_too_early(folder: Path) -> list[StoredFile]:
        files = list_files(folder)
        (folder / "Annotations" / "p2.xml").write_text("changed")
        return files

    monkeypatch.setattr(module, "list_files", listed_too_early)
    store = Store(str(tmp_path / "store"))
    with pytest.raises(UserError, match=r"p2\.xml: the file changed during the push"):
        store.push(folder)
    assert store.versions() == []


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_push_into_store_in_the_data_set_raises(folder: Path, scheme: str) -> None:
    with pytest.raises(UserError, match=r"^/.*/pushed/store: expected a folder outside of the data set, got one inside /"):
        Store(f"{scheme}{folder / 'store'}").push(folder)
    assert not (folder / "store").exists()


def test_push_and_pull_without_data_set_raise(tmp_path: Path) -> None:
    (tmp_path / "voc_train.txt").write_text("a.jpg 1,2,3,4,0\n")
    for path, message in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "got annotation lists")):
        with pytest.raises(UserError, match=message):
            Store(str(tmp_path / "store")).push(path)
    with pytest.raises(UserError, match="expected a version of a data set, got none"):
        Store(str(tmp_path / "store")).pull(tmp_path / "x")
    for version in ("0123456789abcdef", "../../folder"):
        with pytest.raises(UserError, match="no such version"):
            Store(str(tmp_path / "store")).pull(tmp_path / "x", version)


def test_store_url_with_secret_raises() -> None:
    with pytest.raises(UserError, match=r"^az://c/d: .*expected a URL without a query") as caught:
        Store("az://c/d?sv=2026&sig=hunter2")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UserError, match=r"^nope://x: cannot be opened"):
        Store("nope://x")


@pytest.mark.parametrize(
    "path",
    ["../a", "a/../../b", "/etc/passwd", "a//b", "a/", "", ".", "a/./b", "C:/a", "C:a", "..\\a", "a\\b", "a\0b", ".ssh/config"],
)
def test_pull_path_out_of_folder_raises(path: str, tmp_path: Path) -> None:
    assert not is_safe(path)
    url = str(tmp_path / "store")
    data, version = manifest(StoredFile(path, 3, ABC))
    (tmp_path / "store" / "manifests").mkdir(parents=True)
    (tmp_path / "store" / "manifests" / f"{version}.json").write_bytes(data)
    with pytest.raises(UserError, match="leads out of the folder"):
        Store(url).pull(tmp_path / "target" / "inner", version)
    assert not (tmp_path / "target").exists()


@given(st.lists(st.sampled_from([*"a./\\:C\0 ä", "..", "//", "./"]), max_size=8).map("".join))
def test_safe_path_stays_in_folder(path: str) -> None:
    if is_safe(path):
        root = Path("/somewhere/deep")
        assert (root / path).is_relative_to(root)
        assert ".." not in (root / path).parts
        assert (root / path).relative_to(root).as_posix() == path


GOOD = StoredFile("a.jpg", 3, ABC)
BAD_MANIFESTS = {
    "no JSON": (b"{", "x"),
    "no object": (b"[]", "x"),
    "another schema": manifest(GOOD, schema=2),
    "of another version": manifest(GOOD, version="0" * 16),
    "no date": manifest(GOOD, created="yesterday"),
    "no files": (json.dumps({"schema": 1, "created": "2026-11-25"}).encode(), "x"),
    "twice the same": manifest(GOOD, GOOD),
    "negative": manifest(StoredFile("a.jpg", -1, ABC)),
    "a number for a path": manifest(GOOD, files=[{"path": 7, "size": 3, "sha256": ABC}]),
}


@pytest.mark.parametrize("kind", BAD_MANIFESTS)
def test_parse_manifest_invalid_raises(kind: str) -> None:
    with pytest.raises(UserError, match=r"^az://c/m\.json: "):
        parse_manifest(*BAD_MANIFESTS[kind], "az://c/m.json")
    assert parse_manifest(*manifest(GOOD), "where").files == (GOOD,)


def test_push_transfers_in_parallel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transfer waits until AT_ONCE of them have started."""
    import threading

    barrier = threading.Barrier(min(AT_ONCE, 8), timeout=60)
    memory = type(fsspec.filesystem("memory"))
    whole = memory.pipe_file

    def together(self: Any, path: str, value: bytes, **options: Any) -> None:
        if "manifests" not in path:
            barrier.wait()
        whole(self, path, value, **options)

    monkeypatch.setattr(memory, "pipe_file", together)
    assert Store(f"memory://{uuid.uuid4().hex}").push(folder).moved == 8
