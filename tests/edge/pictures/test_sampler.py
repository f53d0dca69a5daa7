import cv2
import numpy as np
import pytest
from helpers import HIDDEN
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
    return Frame(camera=camera, number=0, time=time, monotonic=0.0, image=NOISE)


def a_sampler(folder, hidden=HIDDEN, **settings):
    return Sampler(SamplerConfig(**{"enabled": True, **settings}), folder, CONTRACT, hidden)


def offer(sampler, offered, detections):
    return sampler.keep(offered, detections) if sampler.wants(offered, detections) else None


def test_sampler_is_off_by_default(tmp_path):
    assert offer(Sampler(SamplerConfig(), tmp_path, CONTRACT, hidden=HIDDEN), frame(0.0), UNSURE) is None
    assert list(tmp_path.iterdir()) == []


def test_uncertain_frame_is_kept_with_readable_draft_annotation(tmp_path):
    image_file = offer(a_sampler(tmp_path), frame(1_700_000_000.5), UNSURE)
    assert image_file == tmp_path / "samples/JPEGImages/gate_20231114T221320500000.jpg"
    draft = read_voc_annotation(tmp_path / "samples/Annotations" / f"{image_file.stem}.xml")
    assert [o.class_name for o in draft.objects] == ["helmet", "none"]
    assert [o.box_xyxy for o in draft.objects] == [(0, 0, 20, 30), (50, 20, 90, 80)]
    image = cv2.imread(str(image_file))
    assert image.shape == NOISE.shape
    assert image[5:25, 3:17].std() < 20  # the heads are pixelated; noise remains near 50


def test_sample_hides_classes_of_privacy_alone(tmp_path):
    sampler = a_sampler(tmp_path, frozenset({1}))
    image = cv2.imread(str(offer(sampler, frame(0.0), UNSURE)))
    assert image[5:25, 3:17].std() > 40 > 20 > image[25:75, 55:85].std()  # a helmet, a bare head


def test_samples_are_data_set_without_errors_or_slivers(tmp_path):
    sliver = Detections(
        np.array([[0, 0, 0.4, 30], [20, 20, 50, 60]], np.float32), np.array([0.3, 0.25], np.float32), np.array([1, 0])
    )
    sampler = a_sampler(tmp_path, per_hour=3600)
    for number, detections in enumerate((UNSURE, sliver)):
        image = np.random.default_rng(number).integers(0, 256, NOISE.shape, dtype=np.uint8)
        shown = Frame(camera="gate", number=number, time=10.0 * number, monotonic=0.0, image=image)
        assert offer(sampler, shown, detections) is not None
    dataset = AnnotatedDataset.open(tmp_path / "samples", on_error="skip", progress=False)
    assert dataset.errors == [] and dataset.left_out == 0
    boxes = sorted(o.box_xyxy for images in dataset.splits.values() for i in images for o in i.objects)
    assert boxes == [(0, 0, 20, 30), (20, 20, 50, 60), (50, 20, 90, 80)]


def test_certain_frame_is_not_kept(tmp_path):
    assert offer(a_sampler(tmp_path), frame(0.0), SURE) is None


def test_rate_is_limited_per_camera(tmp_path):
    sampler = a_sampler(tmp_path, per_hour=60)
    kept = [
        offer(sampler, frame(t, c), UNSURE) is not None for t, c in ((0, "a"), (59.9, "a"), (59.9, "b"), (60, "a"), (61, "b"))
    ]
    assert kept == [True, False, True, True, False]


def test_oldest_samples_are_deleted(tmp_path):
    sampler = a_sampler(tmp_path, per_hour=3600, keep=3)
    for t in range(6):
        offer(sampler, frame(float(t * 10)), UNSURE)
    names = {p.stem[-12:-6] for p in (tmp_path / "samples/JPEGImages").iterdir()}
    assert names == {"000030", "000040", "000050"}
    assert len(list((tmp_path / "samples/Annotations").iterdir())) == 3


def test_unwritable_folder_is_logged_and_raises_nothing(tmp_path, caplog):
    (tmp_path / "samples").write_text("a file in the way")
    assert offer(a_sampler(tmp_path), frame(0.0), UNSURE) is None
    assert "gate: cannot store a sample" in caplog.text


def test_bounds_in_wrong_order_are_rejected():
    with pytest.raises(ValueError, match="unsure_from must not be above unsure_to"):
        SamplerConfig(unsure_from=0.6)
