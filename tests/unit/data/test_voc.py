"""The VOC reader on files written by people and tools, and on 2,000 broken files."""

import random
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppe_yolo.core.voc_xml import write_voc_annotation
from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.sources.base import AnnotationError
from ppe_yolo.data.sources.voc import MAX_XML_BYTES, read_voc_annotation

GOOD = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <folder>数据</folder><filename>img 7.jpg</filename><path>C:\\Users\\李\\img 7.jpg</path>
  <size><width>640</width><height>480</height><depth>3</depth></size>
  <object><name> No Safety Helmet </name><pose>Left</pose><difficult>1</difficult>
    <bndbox><xmin>0</xmin><ymin>1.5</ymin><xmax>1e2</xmax><ymax> 40 </ymax></bndbox>
    <part><name>eye</name><bndbox><xmin>x</xmin></bndbox></part></object>
  <object><bndbox><ymax>9</ymax><xmax>8</xmax><ymin>7</ymin><xmin>6</xmin></bndbox><name>шлем</name></object>
</annotation>"""
BOMB = """<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>'


def read(folder: Path, text: str | bytes) -> object:
    path = folder / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_voc_annotation(path)


def test_read_voc_accepts_variants_of_tools(tmp_path: Path) -> None:
    annotation = read(tmp_path, GOOD)
    assert annotation.filename == "img 7.jpg"
    assert annotation.size == (480, 640, 3)
    assert annotation.objects == (
        AnnotatedObject("No Safety Helmet", (0.0, 1.5, 100.0, 40.0), True),
        AnnotatedObject("шлем", (6.0, 7.0, 8.0, 9.0), False),
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_read_voc_accepts_encodings(tmp_path: Path, encoding: str) -> None:
    text = (
        f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?><annotation><filename>Müller</filename></annotation>'
    )
    assert read(tmp_path, text.encode(encoding)).filename == "Müller"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("", None),
        ("<size/>", None),
        ("<size><width>0</width><height>0</height><depth>3</depth></size>", (0, 0, 3)),
        ("<size><width>8</width><height>six</height><depth>1</depth></size>", None),
        ("<size><width>inf</width><height>6</height><depth>1</depth></size>", None),
        ("<size><width>8.0</width><height>6</height><depth>1</depth></size>", (6, 8, 1)),
    ],
)
def test_read_voc_accepts_complete_sizes_only(tmp_path: Path, size: str, expected: object) -> None:
    assert read(tmp_path, f"<annotation>{size}</annotation>").size == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "got an empty file"),
        (" \n\t", "got an empty file"),
        ("helmet 1 2 3 4", "expected XML, got something else"),
        (GOOD[:-20], "expected XML, got something else"),
        (b"\xff\xfe\x00", "expected XML, got something else"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "expected XML, got something else"),
        ("<annotations/>", "expected the root element <annotation>, got <annotations>"),
        (BOMB, "DTD or entities is not accepted"),
        (EXTERNAL, "DTD or entities is not accepted"),
        ("<!DOCTYPE annotation><annotation/>", "DTD or entities is not accepted"),
        (EXTERNAL.encode("utf-16"), "DTD or entities is not accepted"),
        (b'<?xml version="1.0" encoding="cp037"?>' + EXTERNAL.encode("cp037"), "expected XML, got something else"),
        (GOOD.replace(" No Safety Helmet ", " "), "object 1 (no name): expected a <name>, got none"),
        (GOOD.replace("<name>шлем</name>", ""), "object 2 (no name): expected a <name>, got none"),
        (GOOD.replace(">1e2<", ">nan<"), "object 1 (No Safety Helmet): expected a number in <xmax>, got 'nan'"),
        (GOOD.replace(">1e2<", ">1e999<"), "object 1 (No Safety Helmet): expected a number in <xmax>, got '1e999'"),
        (GOOD.replace("<ymin>7</ymin>", ""), "object 2 (шлем): expected a number in <ymin>, got None"),
        (GOOD.replace("<ymin>7</ymin>", "<ymin/>"), "object 2 (шлем): expected a number in <ymin>, got ''"),
        (GOOD.replace("<ymin>7</ymin>", "<ymin>seven</ymin>"), "expected a number in <ymin>, got 'seven'"),
    ],
)
def test_read_voc_invalid_raises_with_file_and_object(tmp_path: Path, text: str | bytes, why: str) -> None:
    with pytest.raises(AnnotationError) as raised:
        read(tmp_path, text)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'a.xml'}: ")
    assert why in message
    assert "\n" not in message


def test_read_voc_too_large_raises(tmp_path: Path) -> None:
    big = "<annotation>" + " " * MAX_XML_BYTES + "</annotation>"
    with pytest.raises(AnnotationError, match=f"at most {MAX_XML_BYTES} bytes of XML, got {len(big)}"):
        read(tmp_path, big)


def test_read_voc_accepts_deep_nesting(tmp_path: Path) -> None:
    depth = 200_000
    assert read(tmp_path, f"<annotation>{'<a>' * depth}{'</a>' * depth}</annotation>").objects == ()


def test_read_voc_missing_file_or_folder_raises(tmp_path: Path) -> None:
    for path in (tmp_path / "none.xml", tmp_path):
        with pytest.raises(AnnotationError, match="cannot be read"):
            read_voc_annotation(path)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Cuts, swaps and inserts bytes and tags at random positions."""
    pieces = [b"<", b">", b"&", b"&amp;", b"<object>", b"</object>", b"<name>", b"<!DOCTYPE x>", b"nan", b"-1e999", b"\x00"]
    for _ in range(rng.randint(1, 2)):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:a] + data[b:]
        elif kind == 1:
            data = data[:b] + data[a:]
        elif kind in (2, 3):
            data = data[:a] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 4))) + data[a:]
        elif kind == 4:
            data = data[:a] + rng.choice(pieces) + data[a:]
        else:
            digits = [i for i, c in enumerate(data) if chr(c) in string.digits]
            at = rng.choice(digits) if digits else 0
            data = data[:at] + rng.choice([b"", b"-", b"x", b"9" * 400, b".", "٣".encode()]) + data[at + 1 :]
    return data


def test_read_voc_mutated_files_are_read_or_raise(tmp_path: Path) -> None:
    rng = random.Random(20)
    accepted = rejected = 0
    for _ in range(2000):
        try:
            annotation = read(tmp_path, mutate(GOOD.encode(), rng))
        except AnnotationError as error:
            rejected += 1
            assert str(error).startswith(str(tmp_path / "a.xml"))
        else:
            accepted += 1
            for item in annotation.objects:
                assert item.class_name == item.class_name.strip() != ""
                assert all(abs(v) < float("inf") for v in item.box_xyxy)
    # both outcomes must be frequent, otherwise this tests little
    assert accepted > 200
    assert rejected > 1000


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), min_size=1).filter(
    lambda s: s == s.strip() != ""
)
COORDINATES = st.integers(-5, 4000).map(float) | st.floats(-10, 5000).map(lambda v: round(v, 4))
OBJECTS = st.builds(AnnotatedObject, NAMES, st.tuples(*[COORDINATES] * 4), st.booleans())


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects=st.lists(OBJECTS, max_size=4), filename=NAMES, height=st.integers(1, 9999), width=st.integers(1, 9999))
def test_voc_annotation_read_back_is_unchanged(
    tmp_path: Path, objects: list[AnnotatedObject], filename: str, height: int, width: int
) -> None:
    path = tmp_path / "round.xml"
    write_voc_annotation(path, image_name=filename, image_size=(height, width, 3), objects=objects)
    annotation = read_voc_annotation(path)
    assert (annotation.filename, annotation.size) == (filename, (height, width, 3))
    assert annotation.objects == tuple(objects)
