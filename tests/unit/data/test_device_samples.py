import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.voc_xml import AnnotatedObject, write_voc_annotation
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.device_samples import collect


def message(tmp_path: Path, name: str, frames: int, unsure: int, device: str = "gate-1") -> str:
    """A line as IoT Hub writes it to storage."""
    image = np.random.default_rng(len(name)).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    xml = tmp_path / "draft.xml"
    objects = [AnnotatedObject("none", (10, 10, 40, 40))]
    write_voc_annotation(xml, image_name=f"{name}.jpg", image_size=image.shape, objects=objects, source="draft", mode=0o600)
    body = {
        "schema_version": 1, "kind": "sample", "id": name, "time": "20261128T120000000000", "camera": "gate",
        "frames": frames, "unsure_frames": unsure, "file": f"{name}.jpg", "annotation_xml": xml.read_text(),
        "image_base64": base64.b64encode(bytes(cv2.imencode(".jpg", image)[1])).decode(),
    }  # fmt: skip
    return json.dumps({"Body": body, "SystemProperties": {"connectionDeviceId": device}, "Properties": {"kind": "sample"}})


def test_collect_writes_a_data_set_and_the_share_of_unsure_frames(tmp_path: Path) -> None:
    folder = tmp_path / "hub/0/2026/11"
    folder.mkdir(parents=True)
    first = message(tmp_path, "gate_1", 300, 30)
    other = message(tmp_path, "yard_22", 100, 50, device="gate-2")
    alert = json.dumps({"Body": {"kind": "alert", "id": "x"}, "SystemProperties": {"connectionDeviceId": "gate-1"}})
    (folder / "28.json").write_text("\n".join([first, alert, "cut o"]))
    (folder / "29.json").write_text("\n".join([first, other]))  # the first one was delivered twice
    found = collect(tmp_path / "hub", tmp_path / "out")
    assert (found.devices, found.samples, found.frames, found.unsure_frames, found.unreadable) == (2, 2, 400, 80, 1)
    assert json.loads((tmp_path / "out/samples.json").read_text())["unsure_share"] == pytest.approx(0.2)
    dataset = AnnotatedDataset.open(tmp_path / "out", on_error="skip", progress=False)
    assert dataset.errors == []
    images = [i for split in dataset.splits.values() for i in split]
    assert sorted(p.name for p in (tmp_path / "out/JPEGImages").iterdir()) == ["gate-1_gate_1.jpg", "gate-2_yard_22.jpg"]
    assert {o.box_xyxy for i in images for o in i.objects} == {(10, 10, 40, 40)}


def test_collect_device_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/a.json").write_text(message(tmp_path, "gate_1", 1, 1, device="../../x"))
    assert collect(tmp_path / "hub", tmp_path / "out").samples == 1
    assert [p.name for p in (tmp_path / "out/JPEGImages").iterdir()] == ["..-..-x_gate_1.jpg"]


def test_collect_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        collect(tmp_path / "hub", tmp_path / "out")
