"""The loop back: pictures for the next training set, as Pascal VOC that our own reader takes."""

import cv2
import numpy as np
import pytest
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.pictures.sampler import Sampler, SamplerConfig

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.sources.voc import read_voc_annotation

CONTRACT = ModelContract(("helmet", "none"), (64, 64))
NOISE = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
UNSURE = Detections(
    np.array([[0, 0, 20, 30], [50, 20, 90.4, 80]], np.float32), np.array([0.9, 0.3], np.float32), np.array([0, 1])
)
SURE = Detections(UNSURE.boxes_xyxy[:1], UNSURE.scores[:1], UNSURE.labels[:1])


def frame(time, camera="gate"):
    return Frame(camera, 0, time, 0.0, NOISE)


def test_it_is_off_unless_switched_on(tmp_path):
    assert Sampler(SamplerConfig(), tmp_path, CONTRACT).offer(frame(0.0), UNSURE) is None
    assert list(tmp_path.iterdir()) == []


def test_an_unsure_picture_is_kept_with_a_draft_that_our_reader_takes(tmp_path):
    photo = Sampler(SamplerConfig(enabled=True), tmp_path, CONTRACT).offer(frame(1_700_000_000.5), UNSURE)
    assert photo == tmp_path / "samples/JPEGImages/gate_20231114T221320500000.jpg"
    draft = read_voc_annotation(tmp_path / "samples/Annotations" / f"{photo.stem}.xml")
    assert [o.class_name for o in draft.objects] == ["helmet", "none"]
    assert [o.box_xyxy for o in draft.objects] == [(0, 0, 20, 30), (50, 20, 90, 80)]
    image = cv2.imread(str(photo))
    assert image.shape == NOISE.shape
    assert abs(image[5:25, 3:17].std() - NOISE[5:25, 3:17].std()) > 20  # the heads are hidden


def test_what_is_kept_is_a_data_set_without_errors_slivers_left_out(tmp_path):
    sliver = Detections(
        np.array([[0, 0, 0.4, 30], [20, 20, 50, 60]], np.float32), np.array([0.3, 0.25], np.float32), np.array([1, 0])
    )
    sampler = Sampler(SamplerConfig(enabled=True, per_hour=3600), tmp_path, CONTRACT)
    for number, found in enumerate((UNSURE, sliver)):
        picture = np.random.default_rng(number).integers(0, 256, NOISE.shape, dtype=np.uint8)
        assert sampler.offer(Frame("gate", number, 10.0 * number, 0.0, picture), found) is not None
    dataset = AnnotatedDataset.open(tmp_path / "samples", on_error="skip", progress=False)
    assert dataset.errors == [] and dataset.left_out == 0
    boxes = sorted(o.box_xyxy for images in dataset.splits.values() for i in images for o in i.objects)
    assert boxes == [(0, 0, 20, 30), (20, 20, 50, 60), (50, 20, 90, 80)]


def test_a_sure_one_is_not_kept(tmp_path):
    assert Sampler(SamplerConfig(enabled=True), tmp_path, CONTRACT).offer(frame(0.0), SURE) is None


def test_each_camera_has_its_rate(tmp_path):
    sampler = Sampler(SamplerConfig(enabled=True, per_hour=60), tmp_path, CONTRACT)
    kept = [
        sampler.offer(frame(t, c), UNSURE) is not None for t, c in ((0, "a"), (59.9, "a"), (59.9, "b"), (60, "a"), (61, "b"))
    ]
    assert kept == [True, False, True, True, False]


def test_the_oldest_give_way(tmp_path):
    sampler = Sampler(SamplerConfig(enabled=True, per_hour=3600, keep=3), tmp_path, CONTRACT)
    for t in range(6):
        sampler.offer(frame(float(t * 10)), UNSURE)
    names = {p.stem[-12:-6] for p in (tmp_path / "samples/JPEGImages").iterdir()}
    assert names == {"000030", "000040", "000050"}
    assert len(list((tmp_path / "samples/Annotations").iterdir())) == 3


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path, caplog):
    (tmp_path / "samples").write_text("a file in the way")
    assert Sampler(SamplerConfig(enabled=True), tmp_path, CONTRACT).offer(frame(0.0), UNSURE) is None
    assert "gate: a sample could not be kept" in caplog.text


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="unsure_from must not be above unsure_to"):
        SamplerConfig(unsure_from=0.6)
