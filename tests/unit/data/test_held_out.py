"""The validation images of a training are found again, and never others."""

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.held_out import count_trained_on, describe_validation, divide, validation_images
from ppe_yolo.data.loading.datamodule import DetectionDataModule

STEMS = [f"p{i:02d}" for i in range(20)]


def opened(root):
    return AnnotatedDataset.open(root, progress=False)


def names(images):
    return {image.image_id for image in images}


def test_validation_images_are_those_of_the_training(make_voc, tmp_path):
    root = make_voc(tmp_path, STEMS, {"trainval": STEMS[:16], "test": STEMS[16:]})
    module = DetectionDataModule(str(root), val_fraction=0.25, seed=3)
    module.setup("fit")
    dataset = opened(root)
    images = validation_images(dataset, "best.ckpt", module.validation)
    assert [p.image for p in images] == [p.image for p in module.val_images]
    assert len(images) == 4 and not names(images) & names(module.train_images)
    assert not names(images) & set(STEMS[16:])
    # given by the user, for a model without provenance
    assert validation_images(dataset, "best.ckpt", None, 0.25, 3) == images
    assert names(validation_images(dataset, "best.ckpt", None, 0.25, 4)) != names(images)


def test_validation_images_without_provenance_need_fraction_and_seed(make_voc, tmp_path):
    dataset = opened(make_voc(tmp_path, STEMS, {"trainval": STEMS}))
    for given in ((None, None), (0.1, None), (None, 0)):
        with pytest.raises(UserError, match=r"best.ckpt does not record its validation images.*--val-fraction and --seed"):
            validation_images(dataset, "best.ckpt", None, *given)


def test_validation_images_of_other_data_raise(make_voc, tmp_path):
    dataset = opened(make_voc(tmp_path, STEMS, {"trainval": STEMS}))
    recorded = describe_validation(divide(dataset, 0.2, 0)[1], 0.2, 0)
    removed = min(names(divide(dataset, 0.2, 0)[1]))
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("\n".join(s for s in STEMS if s != removed))
    with pytest.raises(UserError, match=r"these are not the images that best.ckpt was validated on"):
        validation_images(opened(tmp_path), "best.ckpt", recorded)
    with pytest.raises(UserError, match=r"seed: expected 0, the value that best.ckpt was trained with, got 1"):
        validation_images(dataset, "best.ckpt", recorded, None, 1)


def test_validation_images_use_split_val(make_voc, tmp_path):
    root = make_voc(tmp_path, STEMS, {"train": STEMS[:15], "val": STEMS[15:]})
    dataset = opened(root)
    training, validation = divide(dataset, 0.1, 0)
    assert names(validation) == set(STEMS[15:]) and names(training) == set(STEMS[:15])
    assert validation_images(dataset, "m", None) == validation
    assert validation_images(dataset, "m", describe_validation(validation, 0.1, 0)) == validation
    (root / "ImageSets/Main/train.txt").unlink()  # of a data set for evaluation alone
    assert names(validation_images(opened(root), "m", describe_validation(validation, 0.1, 0))) == names(validation)
    # a model that was trained before the split existed
    with pytest.raises(UserError, match="these are not the images"):
        validation_images(dataset, "m", describe_validation(training[:2], 0.1, 0))


def test_count_trained_on_other_division_counts_former_training_images(make_voc, tmp_path):
    dataset = opened(make_voc(tmp_path, STEMS, {"trainval": STEMS}))
    before, now = divide(dataset, 0.2, 0)[1], divide(dataset, 0.4, 1)[1]
    earlier = [
        {"val_fraction": 0.2, "seed": 0, "photos": 3, "names": "of another data set"},
        describe_validation(before, 0.2, 0),
    ]
    assert count_trained_on(dataset, before, earlier) == 0
    assert count_trained_on(dataset, now, earlier) == len(names(now) - names(before)) > 0
    assert count_trained_on(dataset, now, earlier[:1]) == 0  # this data set was not part of that training
