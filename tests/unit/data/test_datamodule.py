"""The data of a training: which photos it uses, which it leaves alone, and when it stops."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.datamodule import DetectionDataModule
from ppe_yolo.data.dataset import DomainSampler

BOX = (8, 8, 30, 30)


def made(root: Path, **options: Any) -> DetectionDataModule:
    module = DetectionDataModule(str(root), input_size=(64, 64), num_workers=0, **options)
    module.setup("fit")
    return module


def ids(module: DetectionDataModule) -> tuple[set[str], set[str]]:
    """Names of the photos to train on and to validate on."""
    training, validation = ([i.image_id for i in part] for part in (module.train_images, module.val_images))
    assert len(set(training)) == len(training)
    assert len(set(validation)) == len(validation)
    return set(training), set(validation)


def letters(text: str) -> list[str]:
    return [f"{letter}{letter}" for letter in text]


def test_a_part_of_trainval_is_held_out_and_test_is_never_used(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefghijklmnopqrst")
    root = make_voc(tmp_path, stems, {"trainval": stems[:15], "test": stems[15:]})
    training, validation = ids(made(root, val_fraction=0.2, seed=1))
    assert len(validation) == 3
    assert training | validation == set(stems[:15])
    assert not training & validation
    assert ids(made(root, val_fraction=0.2, seed=1)) == (training, validation)
    assert ids(made(root, val_fraction=0.2, seed=2)) != (training, validation)


@pytest.mark.parametrize("training_lists", [{"train": "abc"}, {"trainval": "abcde"}, {"train": "abc", "trainval": "abcde"}])
def test_a_val_list_is_used(make_voc: Callable[..., Path], tmp_path: Path, training_lists: dict[str, str]) -> None:
    lists = {split: letters(text) for split, text in training_lists.items()}
    root = make_voc(tmp_path, letters("abcdef"), {**lists, "val": letters("de"), "test": letters("f")})
    assert ids(made(root)) == (set(letters("abc")), set(letters("de")))


def test_photos_without_objects_are_kept(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    objects = {stem: [("helmet", BOX)] if stem > "dd" else [] for stem in letters("abcdefgh")}
    root = make_voc(tmp_path, objects, {"trainval": list(objects)})
    module = made(root, val_fraction=0.25)
    assert len(module.train_images) + len(module.val_images) == 8
    assert sum(not i.objects for i in (*module.train_images, *module.val_images)) == 4


def test_errors_stop_or_are_skipped(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefgh")
    root = make_voc(tmp_path, stems, {"trainval": stems})
    (root / "Annotations" / "aa.xml").write_text("")
    (root / "JPEGImages" / "bb.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError) as stopped:
        made(root)
    message = str(stopped.value)
    assert message.startswith(f"{root}: 2 error(s) in the data: ")
    assert f"{root}/Annotations/aa.xml: expected a Pascal VOC annotation, got an empty file" in message
    assert f"{root}/JPEGImages/bb.jpg: cannot be decoded" in message
    assert message.endswith("or leave those photos out with --data.on_error skip")
    with pytest.warns(UserWarning, match="2 errors, 2 photos are skipped: see `ppe-yolo audit"):
        training, validation = ids(made(root, on_error="skip", val_fraction=0.2))
    assert training | validation == set(stems[2:])


def test_skip_does_not_train_on_photos_of_test(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefgh")
    root = make_voc(tmp_path, stems, {"trainval": stems[:7], "test": ["gg", "hh"]})
    shutil.copy(root / "JPEGImages" / "hh.jpg", root / "JPEGImages" / "aa.jpg")
    with pytest.warns(UserWarning, match="2 errors, 2 photos are skipped"):
        training, validation = ids(made(root, on_error="skip", val_fraction=0.2))
    assert training | validation == set(letters("bcdef"))


def test_datamodule_extra_root_trains_and_validates_without_images_seen_elsewhere(
    make_voc: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_voc(tmp_path / "a", letters("abcdef"), {"train": letters("abc"), "val": letters("de"), "test": ["ff"]})
    more = make_voc(tmp_path / "b", letters("deftuv"), {"train": letters("deft"), "val": ["uu"], "test": ["vv"]})
    with pytest.warns(UserWarning, match="3 images that look like one of validation or test are left out"):
        module = made(root, extra_roots=[str(more)])
    assert ids(module) == (set(letters("abct")), set(letters("deu")))
    assert module.train_counts == [3, 1]
    assert [description["photos"] for description in module.validation] == [2, 1]


def test_datamodule_extra_root_has_its_own_class_map(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a", letters("ab"), {"train": ["aa"], "val": ["bb"]})
    heads = {"cc": [("head", BOX)], "dd": [("head", BOX)]}
    more = make_voc(tmp_path / "b", heads, {"train": ["cc"], "val": ["dd"]})
    module = made(root, extra_roots={str(more): "hard-hat-workers"})
    assert [o.class_name for image in module.train_images for o in image.objects] == ["helmet", "none"]
    persons = tmp_path / "persons.yaml"
    persons.write_text("class_names: [person]\nmap: {head: person}")
    with pytest.raises(UserError, match=r"expected a class map with the classes helmet, none, got .* with person"):
        made(root, extra_roots={str(more): str(persons)})


def test_datamodule_data_set_without_objects_serves_background(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a", letters("ab"), {"train": ["aa"], "val": ["bb"]})
    empty = make_voc(tmp_path / "b", {"cc": [], "dd": []}, {"train": ["cc"], "val": ["dd"]})
    module = made(root, extra_roots=[str(empty)])
    assert [len(image.objects) for image in module.train_images] == [1, 0]


@pytest.mark.parametrize(
    ("power", "shares"),
    # 100 and 4 images: 104 * 10 / 12 = 86.7 at the square root, half each at 0
    [(1.0, [100, 4]), (0.5, [87, 17]), (0.0, [52, 52])],
)
def test_domain_sampler_power_sets_share_of_each_data_set(power: float, shares: list[int]) -> None:
    dataset: Any = range(104)
    for rank in range(2):
        sampler = DomainSampler(dataset, [100, 4], power, 2, rank, seed=0)
        assert sampler.shares() == shares
    drawn = [list(DomainSampler(dataset, [100, 4], power, 2, rank, seed=0)) for rank in range(2)]
    small = [index for part in drawn for index in part if index >= 100]
    assert len(small) == shares[1]
    counts = [small.count(index) for index in range(100, 104)]
    assert max(counts) - min(counts) <= 1
    assert [len(part) for part in drawn] == [52, 52]
    again = DomainSampler(dataset, [100, 4], power, 2, 0, seed=0)
    assert list(again) == drawn[0]
    again.set_epoch(1)
    assert list(again) != drawn[0]


def test_alike_photos_are_not_divided(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = [f"{scene}{i}" for scene in "abcdefgh" for i in range(2)]
    root = make_voc(tmp_path, stems, {"trainval": stems})
    for scene in "abcdefgh":
        shutil.copy(root / "JPEGImages" / f"{scene}0.jpg", root / "JPEGImages" / f"{scene}1.jpg")
    training, validation = ids(made(root, val_fraction=0.25))
    assert len(validation) == 4
    assert not {stem[0] for stem in training} & {stem[0] for stem in validation}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"multi_scale": (320, 300)}, r"data.multi_scale: expected \(smallest, largest\) in multiples of 32, got \(320, 300\)"),
        ({"multi_scale": (100, 320)}, r"data.multi_scale: .* got \(100, 320\)"),
        ({"val_fraction": 0.0}, "data.val_fraction: expected a part between 0 and 1, got 0.0"),
        ({"num_workers": -1}, "data.num_workers: expected 0 or more, got -1"),
        ({"batch_size": 0}, "data.batch_size: expected 1 or more, got 0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        DetectionDataModule("unused", **options)


def test_nothing_left_to_validate_on(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path, {"aa": [("helmet", BOX)], "bb": []}, {"train": ["aa"], "val": ["bb"]})
    with pytest.raises(
        UserError,
        match="no photo for validation has an object that is not difficult: give more",
    ):
        made(root)
    with pytest.raises(UserError, match="expected a split train, got test: add it to the data set"):
        made(make_voc(tmp_path / "b", ["aa"], {"test": ["aa"]}))


def test_loaders(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefghij")
    module = made(make_voc(tmp_path, stems, {"trainval": stems}), val_fraction=0.3, batch_size=2)
    counts = []
    for rank in range(2):
        module.trainer = SimpleNamespace(world_size=2, global_rank=rank, max_epochs=4, is_global_zero=rank == 0)  # type: ignore[assignment]
        training = list(module.train_dataloader())
        assert [tuple(b.images.shape) for b in training] == [(2, 3, 64, 64), (2, 3, 64, 64)]
        counts.append(sum(len(b.targets) for b in module.val_dataloader()))
    assert counts == [2, 1]  # each photo of validation once, over all processes
