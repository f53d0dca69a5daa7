"""Pascal VOC in the layouts of tools and downloads, and files that are no part of a data set."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.sources.open_source import open_source

MakeVoc = Callable[..., Path]


def move(root: Path, *moves: tuple[str, str]) -> None:
    for pattern, folder in moves:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted(root.glob(pattern)):
            path.rename(root / folder / path.name)


def layout_of(root: Path, layout: str) -> dict[str, list[str]]:
    """Moves the images a (train) and b (val) into a layout; returns the expected keys of each split."""
    folders = {"a": "train", "b": "valid"}
    everything, by_split = {"all": ["a", "b"]}, {"train": ["a"], "val": ["b"]}
    match layout:
        case "kaggle":
            move(root, ("Annotations/*", "annotations"), ("JPEGImages/*", "images"))
            return everything
        case "upper":
            move(root, ("Annotations/*", "ANNOTATIONS"), ("JPEGImages/*", "Images"))
            return everything
        case "beside":
            move(root, ("Annotations/*", "."), ("JPEGImages/*", "."))
            return everything
        case "images beside":
            move(root, ("Annotations/*", "images"), ("JPEGImages/*", "images"))
            return everything
        case "roboflow":
            for stem, split in folders.items():
                move(root, (f"Annotations/{stem}.*", split), (f"JPEGImages/{stem}.*", split))
        case "voc in splits":
            for stem, split in folders.items():
                split = split.capitalize()
                move(root, (f"Annotations/{stem}.*", f"{split}/Annotations"), (f"JPEGImages/{stem}.*", f"{split}/images"))
        case "splits in folders":
            for stem, split in folders.items():
                move(root, (f"Annotations/{stem}.*", f"annotations/{split}"), (f"JPEGImages/{stem}.*", f"images/{split}"))
        case "beside in images":
            for stem, split in folders.items():
                move(root, (f"Annotations/{stem}.*", f"images/{split}"), (f"JPEGImages/{stem}.*", f"images/{split}"))
        case "sets":
            move(root, ("Annotations/*", "annotations"), ("JPEGImages/*", "images"))
            (root / "imagesets").mkdir()
            (root / "imagesets" / "TRAIN.txt").write_text("images/a.jpg\n")
            (root / "imagesets" / "Valid.txt").write_text("b.XML 1\n")
    return by_split


@pytest.mark.parametrize(
    "layout",
    [
        "kaggle",
        "upper",
        "beside",
        "images beside",
        "roboflow",
        "voc in splits",
        "splits in folders",
        "beside in images",
        "sets",
    ],
)
def test_open_source_reads_voc_layout(make_voc: MakeVoc, tmp_path: Path, layout: str) -> None:
    root = make_voc(tmp_path / "voc", ["a", "b"])
    expected = layout_of(root, layout)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main", "ImageSets"):
        if (root / folder).is_dir() and not any((root / folder).iterdir()):
            (root / folder).rmdir()
    source = open_source(root)
    assert {split: sorted(keys) for split, keys in source.splits.items()} == expected
    assert source.problems == []
    for key in ("a", "b"):
        entry = source.read(key)
        assert (Path(entry.image.image).name, len(entry.image.objects), entry.problems) == (f"{key}.jpg", 1, ())


def test_voc_same_name_in_two_split_folders_gives_two_images(make_voc: MakeVoc, tmp_path: Path) -> None:
    for split in ("train", "test"):
        root = make_voc(tmp_path / split, ["a"])
        move(root, ("Annotations/*", "."), ("JPEGImages/*", "."))
    source = open_source(tmp_path)
    assert source.splits == {"test": ["test/a"], "train": ["train/a"]}
    assert source.read("train/a").image.image == str(tmp_path / "train" / "a.jpg")


def test_voc_two_lists_for_one_split_raise(make_voc: MakeVoc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["a"], {"val": ["a"], "valid": ["a"]})
    with pytest.raises(UserError, match=r"expected one list for the split val, got valid.txt as well: merge them"):
        open_source(root)


def test_open_source_ignores_files_of_operating_systems(make_voc: MakeVoc, tmp_path: Path) -> None:
    root = make_voc(tmp_path, ["p0", "p1"], {"trainval": ["p0"], "test": ["p1"]})
    for name in (
        "JPEGImages/._p0.jpg",
        "Annotations/._p0.xml",
        "ImageSets/Main/._test.txt",
        "JPEGImages/Thumbs.db",
        ".DS_Store",
    ):
        (root / name).write_bytes(b"\x00\x05\x16\x07")
    dataset = AnnotatedDataset.open(root, progress=False)
    assert {split: len(images) for split, images in dataset.splits.items()} == {"test": 1, "trainval": 1}
    assert {p.code for p in dataset.problems} == {"class-missing"}


def test_voc_names_compare_in_nfc(make_voc: MakeVoc, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Übung é") for form in ("NFC", "NFD"))
    root = make_voc(tmp_path, [composed, "b"], {"trainval": [decomposed], "test": ["b"]})
    images = root / "JPEGImages"
    (images / f"{composed}.jpg").rename(images / f"{decomposed}.jpg")
    dataset = AnnotatedDataset.open(root, progress=False)
    assert [image.image_id for image in dataset.splits["trainval"]] == [composed]
    assert {p.code for p in dataset.problems} == {"class-missing"}


def test_annotation_list_finds_image_in_other_unicode_form(make_voc: MakeVoc, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    root = make_voc(tmp_path, [decomposed])
    path = tmp_path / "voc_test.txt"
    path.write_text(f"JPEGImages/{composed}.jpg 1,2,30,40,helmet\n", encoding="utf-8")
    assert open_source(path).read("all:1").image.image == str(root / "JPEGImages" / f"{decomposed}.jpg")


def test_open_source_never_reads_a_readme_as_a_list(tmp_path: Path) -> None:
    """No URL of a Roboflow README is fetched."""
    (tmp_path / "train").mkdir()
    readme = tmp_path / "README.dataset.txt"
    readme.write_text("Hard Hat\nhttps://universe.roboflow.com/x\n")
    (tmp_path / "notes.txt").write_text("Take more images of the gate.\n")
    with pytest.raises(UserError, match=r"got a folder with none of these"):
        open_source(tmp_path)
    with pytest.raises(UserError, match=r"README.dataset.txt: expected lines of the form .*, got 'Hard Hat'"):
        open_source(readme)
    (tmp_path / "voc_test.txt").write_text("a.jpg 1,2,3,4,helmet\n")
    assert open_source(tmp_path).splits == {"test": ["test:1"]}
