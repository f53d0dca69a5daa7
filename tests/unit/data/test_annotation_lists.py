"""Annotation lists of the original helmet system."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.sources.annotation_list import read_annotation_line, write_annotation_list
from ppe_yolo.data.sources.base import AnnotationError
from ppe_yolo.data.sources.open_source import open_source

LIST = Path("/lists/voc_train.txt")


def image(path: str, *objects: AnnotatedObject) -> AnnotatedImage:
    return AnnotatedImage(image=path, objects=objects, source=LIST, image_id=path)


def read(line: str) -> AnnotatedImage:
    return read_annotation_line(line, LIST, 7)


def test_annotation_list_matches_original_bytes(tmp_path: Path) -> None:
    url = "https://ppe.blob.core.windows.net/container/JPEGImages/000001.jpg"
    helmet, none = AnnotatedObject("helmet", (1, 22, 333, 44)), AnnotatedObject("none", (5.5, 6, 7, 8))
    write_annotation_list(tmp_path / "voc_train.txt", [image(url, helmet, none), image("/photos/b.jpg")])
    assert (tmp_path / "voc_train.txt").read_bytes() == (
        b"https://ppe.blob.core.windows.net/container/JPEGImages/000001.jpg 1,22,333,44,helmet 5.5,6,7,8,none\n/photos/b.jpg\n"
    )
    assert read(f"{url} 1,22,333,44,helmet 5.5,6,7,8,none\n") == image(url, helmet, none)


def test_read_line_accepts_paths_with_spaces_commas_and_urls(tmp_path: Path) -> None:
    box = "1,2,3,4,helmet"
    assert read(f"/a/site photos/5 May.jpg {box}").image == "/a/site photos/5 May.jpg"
    assert read(f"photos/b.jpg {box}").image == "/lists/photos/b.jpg"  # relative to the folder of the list
    assert read(f"photos/a,b,c,d.jpg {box}").image == "/lists/photos/a,b,c,d.jpg"
    assert read("photos/a,b,c,d.jpg").objects == ()
    assert read(f"abfs://box@account.dfs.core.windows.net/a b.jpg {box}").image.startswith("abfs://box@account")
    assert read(f"https://host/a.jpg?size=1,2,3,4&sig=x {box}").image == "https://host/a.jpg?size=1,2,3,4&sig=x"
    assert read("/a/b.jpg\r").image == "/a/b.jpg"


def test_read_line_image_id_ignores_signature_of_url() -> None:
    ids = {read(f"https://host/a.jpg?sig={s} 1,2,3,4,helmet").image_id for s in ("old", "new")}
    assert ids == {"https://host/a.jpg"}


def test_annotation_list_quotes_spaces_and_commas_in_names(tmp_path: Path) -> None:
    name = "No Safety, 100% 帽子"
    write_annotation_list(tmp_path / "l.txt", [image("/a.jpg", AnnotatedObject(name, (1, 2, 3, 4)))])
    line = (tmp_path / "l.txt").read_text(encoding="utf-8")
    assert line == "/a.jpg 1,2,3,4,No%20Safety%2C%20100%25%20帽子\n"
    assert read(line).objects[0].class_name == name


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1,2,3,4,helmet", "got boxes without a path"),
        ("a.jpg 1,2,three,4,helmet", "expected a box x1,y1,x2,y2,class, got '1,2,three,4,helmet'"),
        ("a.jpg 1,2,3,4", "expected a box x1,y1,x2,y2,class, got '1,2,3,4'"),
        ("a.jpg 1,2,3,4,5,helmet", "expected a box x1,y1,x2,y2,class, got '1,2,3,4,5,helmet'"),
        ("a.jpg 1,2,nan,4,helmet 1,2,3,4,none", "got '1,2,nan,4,helmet'"),
        ("a.jpg 1,2,1e999,4,helmet", "expected finite numbers, got '1,2,1e999,4,helmet'"),
        ("https://u:secret@host/a.jpg?sig=secret 1,2,3,4,", "got '1,2,3,4,'"),
    ],
)
def test_read_line_malformed_raises_with_file_and_line(line: str, why: str) -> None:
    with pytest.raises(AnnotationError) as raised:
        read(line)
    assert raised.value.file == "/lists/voc_train.txt:7"
    assert str(raised.value).startswith("/lists/voc_train.txt:7: ")
    assert why in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("path", ["/a\nb.jpg", " /a.jpg", "/a.jpg ", "/a 1,2,3,4,x"])
def test_write_list_path_that_cannot_be_read_back_raises(tmp_path: Path, path: str) -> None:
    with pytest.raises(AnnotationError, match="rename the image"):
        write_annotation_list(tmp_path / "l.txt", [image(path)])
    assert not (tmp_path / "l.txt").exists()


NUMBERS = st.integers(-9, 9999).map(float) | st.floats(-9, 9999).map(lambda v: round(v, 4))
NAMES = st.text(st.characters(codec="utf-8"), min_size=1)
PATHS = st.from_regex(r"/[a-z ,%é]{0,8}/[a-z0-9]{1,5}( [a-z]{1,3})?\.(jpg|PNG)", fullmatch=True)
OBJECTS = st.builds(AnnotatedObject, NAMES, st.tuples(*[NUMBERS] * 4))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(st.tuples(PATHS, st.lists(OBJECTS, max_size=3)), min_size=1, max_size=3))
def test_annotation_list_written_and_read_is_unchanged(tmp_path: Path, images: list[tuple[str, list[AnnotatedObject]]]) -> None:
    path = tmp_path / "round.txt"
    write_annotation_list(path, [image(p, *objects) for p, objects in images])
    lines = path.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    again = [read_annotation_line(line, path, n) for n, line in enumerate(lines, start=1)]
    assert [(i.image, list(i.objects)) for i in again] == images


def test_open_source_reads_folder_of_lists(tmp_path: Path) -> None:
    (tmp_path / "voc_trainval.txt").write_text("a.jpg 1,2,3,4,helmet\n\nb.jpg\n")
    (tmp_path / "voc_test.txt").write_text("﻿c.jpg\n", encoding="utf-8")
    source = open_source(tmp_path)
    assert source.splits == {"test": ["test:1"], "trainval": ["trainval:1", "trainval:3"]}
    with pytest.raises(AnnotationError, match=r"voc_trainval.txt:3: no such image .*/b.jpg: add the image, or remove the line"):
        source.read("trainval:3")
    (tmp_path / "more_test.txt").write_text("d.jpg\n")
    with pytest.raises(UserError, match=r"one list for the split test, got more_test.txt and voc_test.txt: merge them"):
        open_source(tmp_path)


@pytest.mark.parametrize(("content", "why"), [(b"\n \n", "got an empty file"), (b"\xff\xfea", "expected a UTF-8 text file")])
def test_open_source_unreadable_list_raises(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "voc_test.txt").write_bytes(content)
    with pytest.raises(UserError, match=why) as raised:
        open_source(tmp_path)
    assert str(tmp_path / "voc_test.txt") in str(raised.value)


def test_open_source_folder_without_data_set_raises(tmp_path: Path) -> None:
    for root, got in ((tmp_path, "a folder with none of these"), (tmp_path / "no", "no such folder")):
        with pytest.raises(UserError, match=f"expected a Pascal VOC folder .* got {got}"):
            open_source(root)


def test_annotation_list_mutated_files_are_read_or_raise(tmp_path: Path) -> None:
    path, rng, outcomes = tmp_path / "voc_test.txt", random.Random(6), {"read": 0, "refused": 0}
    good = b"a.jpg 1,2,30,40,helmet 5,5,9,9.5,none\nb c.jpg\n"
    for name in ("a.jpg", "b c.jpg"):
        (tmp_path / name).write_bytes(b"")
    pieces = [b"", b"0", b"7", b"-", b"x", b",", b" ", b"\n", b"\xff", b"\x00", b"9" * 400, b"nan", b"../", b"%", b"1e999"]
    for _ in range(int(os.environ.get("PPE_YOLO_FUZZ", "300"))):
        at = rng.randrange(len(good) + 1)
        path.write_bytes(good[:at] + rng.choice(pieces) + good[at + rng.randint(0, 2) :])
        try:
            source = open_source(tmp_path)
            for key in source.splits["test"]:
                source.read(key)
            outcomes["read"] += 1
        except UserError as error:
            assert str(tmp_path) in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10
