"""The same data set in the layouts that tools and downloads have: equal annotations and equal metrics.

Every layout is audited and compared; one of each format is evaluated. PPE_YOLO_LAYOUTS=evaluate evaluates on all of them, and
PPE_YOLO_LAYOUTS=fit also trains one epoch on each, which takes minutes.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import yaml

from ppe_yolo.core.drawing import save_image
from ppe_yolo.core.voc_xml import AnnotatedObject, write_voc_annotation
from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.synthetic import draw_site

SIZE = (96, 128)
NAMES = ("helmet", "none")
SPLITS = {"train": 5, "val": 3, "test": 4}
ROBOFLOW = {"train": "train", "val": "valid", "test": "test"}
README = "Hard Hat - v1\n\nhttps://universe.roboflow.com/somebody/hard-hat\n"
EPOCH = [
    *("--config", "yolov3-tiny", "--model.optimizer.lr", "0.001", "--data.input_size", "[96,96]", "--data.batch_size", "4"),
    *("--data.num_workers", "0", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--seed_everything", "3"),
]

Site = Mapping[str, Sequence[tuple[str, Path, Sequence[AnnotatedObject]]]]  # split -> (stem, image, objects)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    found: dict[str, list[tuple[str, Path, Sequence[AnnotatedObject]]]] = {}
    for split, count in SPLITS.items():
        for number in range(count):
            pixels, objects = draw_site(np.random.default_rng([7, len(split), number]), SIZE)
            image = folder / f"{split}_{number:02d}.jpg"
            save_image(image, pixels)
            found.setdefault(split, []).append((image.stem, image, objects))
    return found


def put(image: Path, *folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, folder / image.name)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def each(site: Site):  # (split, stem, image, objects)
    return [(split, *row) for split, rows in site.items() for row in rows]


def xml(path: Path, image: Path, objects: Sequence[AnnotatedObject]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_voc_annotation(path, image_name=image.name, image_size=(*SIZE, 3), objects=objects)
    text = path.read_text()
    path.write_text(text.replace("<segmented>", f"<path>C:\\Users\\me\\{image.name}</path><segmented>"))


def label(objects: Sequence[AnnotatedObject]) -> str:
    lines = []
    for item in objects:
        x1, y1, x2, y2 = item.box_xyxy
        values = ((x1 + x2) / 2 / SIZE[1], (y1 + y2) / 2 / SIZE[0], (x2 - x1) / SIZE[1], (y2 - y1) / SIZE[0])
        lines.append(" ".join([str(NAMES.index(item.class_name)), *map(repr, values)]) + "\n")
    return "".join(lines)


def coco(rows: Sequence[tuple[str, Sequence[AnnotatedObject]]], first: int = 1, scale: tuple[int, int] = (1, 1)) -> str:
    height, width = scale
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, objects) in enumerate(rows, start=1):
        images.append({"id": number, "file_name": name, "width": float(SIZE[1]), "height": float(SIZE[0])})
        for item in objects:
            x1, y1, x2, y2 = item.box_xyxy
            box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
            category = NAMES.index(item.class_name) + first
            annotations.append({"id": len(annotations), "image_id": number, "category_id": category, "bbox": box, "iscrowd": 0})
    categories = [{"id": i + first, "name": name} for i, name in enumerate(NAMES)]
    return json.dumps({"info": {}, "images": images, "categories": categories, "annotations": annotations})


def voc(root: Path, site: Site) -> None:
    for split, stem, image, objects in each(site):
        put(image, root / "JPEGImages")
        xml(root / "Annotations" / f"{stem}.xml", image, objects)
        lists = root / "ImageSets" / "Main" / f"{split}.txt"
        write(lists, (lists.read_text() if lists.exists() else "") + stem + "\n")


def labelimg_in_splits(root: Path, site: Site) -> None:
    for split, stem, image, objects in each(site):
        put(image, root / split)
        xml(root / split / f"{stem}.xml", image, objects)


def roboflow_voc(root: Path, site: Site) -> None:
    write(root / "README.dataset.txt", README)
    for split, stem, image, objects in each(site):
        put(image, root / ROBOFLOW[split])
        xml(root / ROBOFLOW[split] / f"{stem}.xml", image, objects)


def roboflow_yolo(root: Path, site: Site) -> None:
    write(root / "README.roboflow.txt", README)
    config: dict[str, Any] = {split: f"../{folder}/images" for split, folder in ROBOFLOW.items()}
    config |= {"nc": 2, "names": list(NAMES), "roboflow": {"url": "https://universe.roboflow.com/x"}}
    write(root / "data.yaml", yaml.safe_dump(config))
    for split, stem, image, objects in each(site):
        put(image, root / ROBOFLOW[split] / "images")
        write(root / ROBOFLOW[split] / "labels" / f"{stem}.txt", label(objects))


def roboflow_coco(root: Path, site: Site) -> None:
    for split, rows in site.items():
        for _, image, _ in rows:
            put(image, root / ROBOFLOW[split])
        write(root / ROBOFLOW[split] / "_annotations.coco.json", coco([(image.name, o) for _, image, o in rows]))


def ultralytics_lists(root: Path, site: Site) -> None:
    for split, rows in site.items():
        for stem, image, objects in rows:
            put(image, root / "images" / f"{split}2017")
            write(root / "labels" / f"{split}2017" / f"{stem}.txt", label(objects))
        write(root / f"{split}2017.txt", "".join(f"./images/{split}2017/{image.name}\n" for _, image, _ in rows))
    config = {"path": "../datasets/site", **{s: f"{s}2017.txt" for s in site}, "names": dict(enumerate(NAMES))}
    write(root / "site.yaml", yaml.safe_dump(config))


def coco_2017(root: Path, site: Site) -> None:
    for split, rows in site.items():
        for _, image, _ in rows:
            put(image, root / f"{split}2017")
        write(root / "annotations" / f"instances_{split}2017.json", coco([(image.name, o) for _, image, o in rows]))


def cvat(root: Path, site: Site, *, has_subsets: bool = True) -> None:
    nodes = []
    for number, (split, _, image, objects) in enumerate(each(site)):
        put(image, root / "images" / (ROBOFLOW[split] if has_subsets else "."))
        boxes = "".join(
            f"<box label={quoteattr(o.class_name)} source='manual' occluded='0' xtl='{o.box_xyxy[0]}' ytl='{o.box_xyxy[1]}' "
            f"xbr='{o.box_xyxy[2]}' ybr='{o.box_xyxy[3]}' z_order='0'/>"
            for o in objects
        )
        name = f"{ROBOFLOW[split]}/{image.name}" if has_subsets else image.name
        subset = f" subset='{split.capitalize()}'" if has_subsets else ""
        nodes.append(f"<image id='{number}' name='{name}'{subset} width='{SIZE[1]}' height='{SIZE[0]}'>{boxes}</image>")
    write(root / "annotations.xml", f"<annotations><version>1.1</version>{''.join(nodes)}</annotations>")


def our_lists(root: Path, site: Site) -> None:
    for split, rows in site.items():
        lines = []
        for _, image, objects in rows:
            put(image, root / "JPEGImages")
            boxes = [",".join(f"{v:g}" for v in o.box_xyxy) + f",{o.class_name}" for o in objects]
            lines.append(" ".join([f"JPEGImages/{image.name}", *boxes]) + "\n")
        write(root / f"voc_{split}.txt", "".join(lines))


def kaggle(root: Path, site: Site) -> None:
    for _, stem, image, objects in each(site):
        put(image, root / "images")
        xml(root / "annotations" / f"{stem}.xml", image, objects)


def labelimg_flat(root: Path, site: Site) -> None:
    for _, stem, image, objects in each(site):
        put(image, root)
        xml(root / f"{stem}.xml", image, objects)


def label_studio_coco(root: Path, site: Site) -> None:
    for _, _, image, _ in each(site):
        put(image, root / "images")
    write(root / "result.json", coco([(f"images/{image.name}", o) for _, _, image, o in each(site)], first=0))


def label_studio_yolo(root: Path, site: Site) -> None:
    for _, stem, image, objects in each(site):
        put(image, root / "images")
        write(root / "labels" / f"{stem}.txt", label(objects))
    write(root / "classes.txt", "".join(f"{name}\n" for name in NAMES))
    write(root / "notes.json", json.dumps({"categories": [{"id": i, "name": n} for i, n in enumerate(NAMES)], "info": {}}))


def azure_labelling(root: Path, site: Site) -> None:
    for _, _, image, _ in each(site):
        put(image, root / "images")
    rows = [(f"AmlDatastore://workspaceblobstore/images/{image.name}", o) for _, _, image, o in each(site)]
    write(root / "labels.json", coco(rows, scale=SIZE))


def vott(root: Path, site: Site) -> None:
    """VoTT knows train and val, writes a list per class only, and nests its folder."""
    inner = root / "vott-PascalVOC-export"
    for split, stem, image, objects in each(site):
        put(image, inner / "JPEGImages")
        xml(inner / "Annotations" / f"{stem}.xml", image, objects)
        for name in NAMES:
            lists = inner / "ImageSets" / "Main" / f"{name}_{split}.txt"
            flag = 1 if name in {o.class_name for o in objects} else -1
            write(lists, (lists.read_text() if lists.exists() else "") + f"{image.name} {flag}\n")
    write(inner / "pascal_label_map.pbtxt", "item {\n id: 1\n name: 'helmet'\n}\n")


def voc_by_camera(root: Path, site: Site) -> None:
    """CVAT keeps the folders of the images."""
    for number, (split, stem, image, objects) in enumerate(each(site)):
        camera = f"cam {number % 2}"
        put(image, root / "JPEGImages" / camera)
        xml(root / "Annotations" / camera / f"{stem}.xml", image, objects)
        lists = root / "ImageSets" / "Main" / f"{split}.txt"
        write(lists, (lists.read_text() if lists.exists() else "") + f"{camera}/{stem}\n")


def labels_next_to_images(root: Path, site: Site, classes: str) -> None:
    for split, stem, image, objects in each(site):
        put(image, root / ROBOFLOW[split])
        write(root / ROBOFLOW[split] / f"{stem}.TXT", label(objects).replace("\n", "\r\n"))
        write(root / ROBOFLOW[split] / classes, "\ufeffhelmet\r\nnone\r\n")


def labelimg_yolo_in_splits(root: Path, site: Site) -> None:
    labels_next_to_images(root, site, "classes.txt")


def roboflow_darknet(root: Path, site: Site) -> None:
    labels_next_to_images(root, site, "_darknet.labels")


def cvat_yolo(root: Path, site: Site) -> None:
    """CVAT's YOLO 1.1."""
    write(root / "obj.names", "helmet\nnone\n")
    write(root / "obj.data", "classes = 2\ntrain = data/Train.txt\nnames = data/obj.names\nbackup = backup/\n")
    for split, rows in site.items():
        folder = f"obj_{split.capitalize()}_data"
        write(root / f"{split.capitalize()}.txt", "".join(f"data/{folder}/{image.name}\n" for _, image, _ in rows))
        for stem, image, objects in rows:
            put(image, root / folder)
            write(root / folder / f"{stem}.txt", label(objects))


def split_folders_with_classes(root: Path, site: Site) -> None:
    write(root / "classes.txt", "helmet\nnone\n")
    for split, stem, image, objects in each(site):
        put(image, root / split / "images")
        write(root / split / "labels" / f"{stem}.txt", label(objects))


Layout = Callable[[Path, Site], None]
WITH_SPLITS: list[Layout] = [
    *(voc, labelimg_in_splits, roboflow_voc, roboflow_yolo, roboflow_coco, ultralytics_lists, coco_2017, cvat, our_lists, vott),
    *(voc_by_camera, labelimg_yolo_in_splits, roboflow_darknet, cvat_yolo, split_folders_with_classes),
]


def cvat_flat(root: Path, site: Site) -> None:
    cvat(root, site, has_subsets=False)


def fiftyone_cvat(root: Path, site: Site) -> None:
    cvat_flat(root, site)
    (root / "images").rename(root / "data")
    (root / "annotations.xml").rename(root / "labels.xml")


def fiftyone_voc(root: Path, site: Site) -> None:
    kaggle(root, site)
    (root / "images").rename(root / "data")
    (root / "annotations").rename(root / "labels")


def labelimg_yolo_flat(root: Path, site: Site) -> None:
    label_studio_yolo(root, site)
    for folder in (root / "images", root / "labels"):
        for path in folder.iterdir():
            path.rename(root / path.name)
        folder.rmdir()


WITHOUT: list[Layout] = [
    *(kaggle, labelimg_flat, label_studio_coco, label_studio_yolo, azure_labelling, cvat_flat),
    *(fiftyone_cvat, fiftyone_voc, labelimg_yolo_flat),
]


EVALUATED = {voc, roboflow_yolo, coco_2017, cvat, our_lists}
MODE = os.environ.get("PPE_YOLO_LAYOUTS", "")


@pytest.mark.parametrize("layouts", [WITH_SPLITS, WITHOUT], ids=["with splits", "without"])
def test_layouts_give_equal_metrics_and_no_problems(
    layouts: Sequence[Layout], site: Site, tmp_path: Path, run_cli: Callable[..., int]
) -> None:
    expected, metrics, truth = None, None, {stem: objects for _, stem, _, objects in each(site)}
    for layout in layouts:
        root, model = tmp_path / layout.__name__ / "site", "helmet-small"
        layout(root, site)
        dataset = AnnotatedDataset.open(root, progress=False)
        assert not [p for p in dataset.problems if p.code not in ("no-object", "near-duplicate")], layout.__name__
        stems = {split: {Path(i.image).stem for i in part} for split, part in dataset.splits.items()}
        expected = expected or stems
        assert stems == expected, layout.__name__
        for image in (image for part in dataset.splits.values() for image in part):
            assert sorted(image.objects, key=str) == sorted(truth[Path(image.image).stem], key=str), layout.__name__
        if layout not in EVALUATED and not MODE:
            continue
        if MODE == "fit":
            assert run_cli("fit", "--data.root", root, "--run_dir", root.parent / "run", *EPOCH) == 0
            model = str(root.parent / "run" / "checkpoints" / "best.ckpt")
        out = tmp_path / "out" / layout.__name__
        assert run_cli("evaluate", model, "--data", root, "--out", out, "--images", 0, "--device", "cpu") == 0
        written = json.loads((out / "metrics.json").read_text().replace(str(root.parent), "PARENT"))
        metrics = metrics or written
        assert written == metrics, layout.__name__
    assert expected is not None
    assert sum(map(len, expected.values())) == sum(SPLITS.values())


def test_evaluate_on_bare_heads_only_ignores_files_of_macos(site: Site, tmp_path: Path, run_cli: Callable[..., int]) -> None:
    root = tmp_path / "heads"
    heads = {
        s: [(stem, i, [AnnotatedObject("head", o.box_xyxy) for o in objects]) for stem, i, objects in rows]
        for s, rows in site.items()
    }
    voc(root, heads)
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (root / folder / f"._test_00.{suffix}").write_bytes(b"\x00\x05\x16\x07")
    class_map = tmp_path / "heads.yaml"
    class_map.write_text("class_names: [helmet, none]\nmap: {head: none}\n")
    options = ("--class-map", class_map, "--images", 0, "--device", "cpu", "--out", tmp_path / "out")
    assert run_cli("evaluate", "helmet-small", "--data", root, *options) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    counts = {name: values["objects"] for name, values in metrics["per_class"].items()}
    assert counts == {"helmet": 0, "none": sum(len(objects) for _, _, objects in heads["test"])}
