"""The data of a training: images that are used, left out or held out, and errors."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.loading.datamodule import DetectionDataModule
from ppe_yolo.data.loading.samplers import DomainSampler

BOX = (8, 8, 30, 30)


def made(root: Path, **options: Any) -> DetectionDataModule:
    module = DetectionDataModule(str(root), input_size=(64, 64), num_workers=0, **options)
    module.setup("fit")
    return module


def ids(module: DetectionDataModule) -> tuple[set[str], set[str]]:
    """Names of the training and of the validation images."""
    training, validation = ([i.image_id for i in part] for part in (module.train_images, module.val_images))
    assert len(set(training)) == len(training)
    assert len(set(validation)) == len(validation)
    return set(training), set(validation)


def letters(text: str) -> list[str]:
    return [f"{letter}{letter}" for letter in text]


def test_datamodule_holds_out_part_of_trainval_and_never_uses_test(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefghijklmnopqrst")
    root = make_voc(tmp_path, stems, {"trainval": stems[:15], "test": stems[15:]})
    training, validation = ids(made(root, val_fraction=0.2, seed=1))
    assert len(validation) == 3
    assert training | validation == set(stems[:15])
    assert not training & validation
    assert ids(made(root, val_fraction=0.2, seed=1)) == (training, validation)
    assert ids(made(root, val_fraction=0.2, seed=2)) != (training, validation)


def test_datamodule_warns_of_validation_images_that_the_weights_were_trained_on(
    make_voc: Callable[..., Path], tmp_path: Path
) -> None:
    stems = letters("abcdefghij")
    root = make_voc(tmp_path, stems, {"trainval": stems})
    now = DetectionDataModule(str(root), num_workers=0, val_fraction=0.3, seed=1)
    now.earlier_validation = made(root, val_fraction=0.2, seed=5).validation
    with pytest.warns(UserWarning, match=r"before, `--data.val_fraction 0.2 --seed_everything 5`"):
        now.setup("fit")


@pytest.mark.parametrize("training_lists", [{"train": "abc"}, {"trainval": "abcde"}, {"train": "abc", "trainval": "abcde"}])
def test_datamodule_uses_split_val(make_voc: Callable[..., Path], tmp_path: Path, training_lists: dict[str, str]) -> None:
    lists = {split: letters(text) for split, text in training_lists.items()}
    root = make_voc(tmp_path, letters("abcdef"), {**lists, "val": letters("de"), "test": letters("f")})
    assert ids(made(root)) == (set(letters("abc")), set(letters("de")))


def test_datamodule_second_process_or_rank_decodes_nothing(
    make_voc: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stems = letters("abcdefgh")
    root = make_voc(tmp_path, stems, {"trainval": stems[:6], "test": stems[6:]})
    now = time.time_ns
    monkeypatch.setattr("ppe_yolo.data.audit.check_cache.time.time_ns", lambda: now() + 10_000_000_000)  # the images are old
    first = made(root, val_fraction=0.2)

    def decode(*arguments: object) -> None:
        raise AssertionError("an image is read")

    for function in ("cv2.imdecode", "PIL.Image.open", "ppe_yolo.data.audit.engine.read_file"):
        monkeypatch.setattr(function, decode)
    assert ids(made(root, val_fraction=0.2)) == ids(first)


def test_datamodule_keeps_background_images(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    objects = {stem: [("helmet", BOX)] if stem > "dd" else [] for stem in letters("abcdefgh")}
    root = make_voc(tmp_path, objects, {"trainval": list(objects)})
    module = made(root, val_fraction=0.25)
    assert len(module.train_images) + len(module.val_images) == 8
    assert sum(not i.objects for i in (*module.train_images, *module.val_images)) == 4


def test_datamodule_errors_stop_or_are_skipped(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefgh")
    root = make_voc(tmp_path, stems, {"trainval": stems})
    (root / "Annotations" / "aa.xml").write_text("")
    (root / "JPEGImages" / "bb.jpg").write_bytes(b"no image")
    with pytest.raises(UserError) as stopped:
        made(root)
    message = str(stopped.value)
    assert message.startswith(f"{root}: 2 errors in the data: ")
    assert f"{root}/Annotations/aa.xml: expected XML, got an empty file" in message
    assert f"{root}/JPEGImages/bb.jpg: cannot be decoded" in message
    assert message.endswith("or skip the affected images with data.on_error skip")
    with pytest.warns(UserWarning, match="2 errors, 2 images are skipped: see `ppe-yolo audit"):
        training, validation = ids(made(root, on_error="skip", val_fraction=0.2))
    assert training | validation == set(stems[2:])


def test_datamodule_skip_never_trains_on_images_of_test(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefgh")
    root = make_voc(tmp_path, stems, {"trainval": stems[:7], "test": ["gg", "hh"]})
    shutil.copy(root / "JPEGImages" / "hh.jpg", root / "JPEGImages" / "aa.jpg")
    with pytest.warns(UserWarning, match="2 errors, 2 images are skipped"):
        training, validation = ids(made(root, on_error="skip", val_fraction=0.2))
    assert training | validation == set(letters("bcdef"))


def test_datamodule_extra_root_trains_and_validates_without_images_seen_elsewhere(
    make_voc: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_voc(tmp_path / "a", letters("abcdef"), {"train": letters("abc"), "val": letters("de"), "test": ["ff"]})
    more = make_voc(tmp_path / "b", letters("deftuv"), {"train": letters("deft"), "val": ["uu"], "test": ["vv"]})
    with pytest.warns(UserWarning, match="3 images are left out because they look like validation or test images"):
        module = made(root, extra_roots=[str(more)])
    assert ids(module) == (set(letters("abct")), set(letters("deu")))
    assert module.train_counts == [3, 1]
    assert [description["photos"] for description in module.validation] == [2, 1]


def test_datamodule_extra_root_uses_its_own_class_map(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a", letters("ab"), {"train": ["aa"], "val": ["bb"]})
    heads = {"cc": [("head", BOX)], "dd": [("head", BOX)]}
    more = make_voc(tmp_path / "b", heads, {"train": ["cc"], "val": ["dd"]})
    module = made(root, extra_roots={str(more): "hard-hat-workers"})
    assert [o.class_name for image in module.train_images for o in image.objects] == ["helmet", "none"]
    with pytest.raises(UserError, match=r"^data.extra_roots: .*/b: class map default does not mention the name 'head'"):
        made(root, extra_roots={str(more): "default"})
    with pytest.raises(UserError, match=r"^data.extra_roots: expected one of default, .*, got 'nope'"):
        made(root, extra_roots={str(more): "nope"})
    with pytest.raises(UserError, match=r"^data.class_map: .*/a: class map shwd does not mention the name 'helmet'"):
        made(root, class_map="shwd")
    persons = tmp_path / "persons.yaml"
    persons.write_text("class_names: [person]\nmap: {head: person}")
    with pytest.raises(UserError, match=r"expected a class map with the classes helmet, none, got .* with person"):
        made(root, extra_roots={str(more): str(persons)})


def test_datamodule_extra_root_without_objects_serves_background(make_voc: Callable[..., Path], tmp_path: Path) -> None:
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


def test_datamodule_keeps_images_that_look_alike_together(make_voc: Callable[..., Path], tmp_path: Path) -> None:
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
        ({"val_fraction": 0.0}, "data.val_fraction: expected a fraction between 0 and 1, got 0.0"),
        ({"sampling_power": 1.5}, "data.sampling_power: expected a number from 0 to 1, got 1.5"),
        ({"num_workers": -1}, "data.num_workers: expected 0 or more, got -1"),
        ({"batch_size": 0}, "data.batch_size: expected 1 or more, got 0"),
    ],
)
def test_datamodule_invalid_option_raises(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        DetectionDataModule("unused", **options)


def test_datamodule_without_validation_objects_raises(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    root = make_voc(tmp_path, {"aa": [("helmet", BOX)], "bb": []}, {"train": ["aa"], "val": ["bb"]})
    with pytest.raises(
        UserError,
        match="no validation image has an object that is not difficult: add images",
    ):
        made(root)
    with pytest.raises(UserError, match="expected a split train, got test: add it to the data set"):
        made(make_voc(tmp_path / "b", ["aa"], {"test": ["aa"]}))


def test_loaders_share_images_among_processes(make_voc: Callable[..., Path], tmp_path: Path) -> None:
    stems = letters("abcdefghij")
    module = made(make_voc(tmp_path, stems, {"trainval": stems}), val_fraction=0.3, batch_size=2)
    counts = []
    for rank in range(2):
        module.trainer = SimpleNamespace(world_size=2, global_rank=rank, max_epochs=4, is_global_zero=rank == 0)  # type: ignore[assignment]
        training = list(module.train_dataloader())
        assert [tuple(b.images.shape) for b in training] == [(2, 3, 64, 64), (2, 3, 64, 64)]
        counts.append(sum(len(b.targets) for b in module.val_dataloader()))
    assert counts == [2, 1]  # each validation image once, over all processes


def test_datamodule_refuses_an_image_cache_that_the_disk_cannot_hold(
    make_voc: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_voc(tmp_path / "data", letters("ab"), {"train": ["aa"], "val": ["bb"]}, size=(96, 192))
    module = made(root, image_cache=str(tmp_path / "copies"), batch_size=1)
    module.trainer = SimpleNamespace(world_size=1, global_rank=0, max_epochs=1, is_global_zero=True)  # type: ignore[assignment]
    room = 128 * 64 * 0.5  # bytes: one copy of 64x128 pixels
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=room - 1))
    with pytest.raises(UserError, match=r"^data.image_cache: .*/copies: expected 0 MB of .* copies of 1 large images, got"):
        module.train_dataloader()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=room))
    list(module.train_dataloader())
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    module.train_dataloader()  # the copy is there
