"""The photos that a training validated on are found again, and never others."""

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.audit import audit
from ppe_yolo.data.class_map import load_class_map
from ppe_yolo.data.datamodule import DetectionDataModule
from ppe_yolo.data.validation import describe_validation, divide, validation_photos

STEMS = [f"p{i:02d}" for i in range(20)]


def looked_at(root):
    return audit(root, load_class_map("default"), progress=False)


def names(photos):
    return {p.image_id for p in photos}


def test_the_same_photos_as_in_the_training(make_voc, tmp_path):
    root = make_voc(tmp_path, STEMS, {"trainval": STEMS[:16], "test": STEMS[16:]})
    module = DetectionDataModule(str(root), val_fraction=0.25, seed=3)
    module.setup("fit")
    report = looked_at(root)
    found = validation_photos(report, "best.ckpt", module.validation)
    assert [p.image for p in found] == [p.image for p in module.val_images]
    assert len(found) == 4 and not names(found) & names(module.train_images)
    assert not names(found) & set(STEMS[16:])
    # said by the user for a model that does not tell
    assert validation_photos(report, "best.ckpt", None, 0.25, 3) == found
    assert names(validation_photos(report, "best.ckpt", None, 0.25, 4)) != names(found)


def test_a_model_that_does_not_tell(make_voc, tmp_path):
    report = looked_at(make_voc(tmp_path, STEMS, {"trainval": STEMS}))
    for given in ((None, None), (0.1, None), (None, 0)):
        with pytest.raises(UserError, match=r"best.ckpt: does not tell .*--val-fraction and --seed"):
            validation_photos(report, "best.ckpt", None, *given)


def test_another_data_set_is_refused(make_voc, tmp_path):
    report = looked_at(make_voc(tmp_path, STEMS, {"trainval": STEMS}))
    remembered = describe_validation(divide(report, 0.2, 0)[1], 0.2, 0)
    removed = min(names(divide(report, 0.2, 0)[1]))
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("\n".join(s for s in STEMS if s != removed))
    with pytest.raises(UserError, match=r"these are not the photos that best.ckpt was validated on"):
        validation_photos(looked_at(tmp_path), "best.ckpt", remembered)
    with pytest.raises(UserError, match=r"--seed: best.ckpt was validated with 0, got 1"):
        validation_photos(report, "best.ckpt", remembered, None, 1)


def test_a_split_of_that_name(make_voc, tmp_path):
    root = make_voc(tmp_path, STEMS, {"train": STEMS[:15], "val": STEMS[15:]})
    report = looked_at(root)
    training, validation = divide(report, 0.1, 0)
    assert names(validation) == set(STEMS[15:]) and names(training) == set(STEMS[:15])
    assert validation_photos(report, "m", None) == validation
    assert validation_photos(report, "m", describe_validation(validation, 0.1, 0)) == validation
    # a model that was trained before there was the split
    with pytest.raises(UserError, match="these are not the photos"):
        validation_photos(report, "m", describe_validation(training[:2], 0.1, 0))
