"""Writing Pascal VOC files; tests/unit/data/test_voc_reader.py has the round trip."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.voc_xml import AnnotatedObject, write_voc_annotation


def test_write_voc_annotation_has_size_objects_source_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    objects = [AnnotatedObject("helmet", (1, 2.5, 30, 40)), AnnotatedObject("none", (5, 6, 7, 8), difficult=True)]
    write_voc_annotation(path, image_name="a.jpg", image_size=(48, 64, 3), objects=objects, source="a model", mode=0o600)
    root = ElementTree.parse(path).getroot()
    assert [root.findtext(f"size/{key}") for key in ("height", "width", "depth")] == ["48", "64", "3"]
    assert (root.findtext("filename"), root.findtext("source/annotation")) == ("a.jpg", "a model")
    boxes = [[node.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")] for node in root.iter("object")]
    assert boxes == [["1", "2.5", "30", "40"], ["5", "6", "7", "8"]]
    assert [node.findtext("difficult") for node in root.iter("object")] == ["0", "1"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_write_voc_annotation_without_write_access_raises_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.xml: cannot be written"):
        write_voc_annotation(tmp_path / "file" / "a.xml", image_name="a.jpg", image_size=(1, 1, 3), objects=[])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
