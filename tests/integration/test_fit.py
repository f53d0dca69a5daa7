"""Trainings through the real command line, on drawn images of 64 to 128 pixels."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.inference.loading import load_detector
from ppe_yolo.training.task import DetectorTask

RunCli = Callable[..., int]
PPE_YOLO = [sys.executable, "-m", "ppe_yolo.cli"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site") / "data"
    draw_site_dataset(root, trainval=20, test=4, size=(96, 128), seed=3)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, site: Path, run_cli: RunCli) -> Path:
    """The run folder of two epochs. Tests must not write to it."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    assert run_cli(*arguments(site, run_dir)) == 0
    return run_dir


def arguments(site: Path, run_dir: Path, *more: str) -> list[str]:
    """A training of a few seconds; `more` comes last and so wins."""
    return [
        *("fit", "--config", "yolov3-tiny", "--data.root", str(site), "--run_dir", str(run_dir)),
        *("--data.input_size", "[64,96]", "--data.batch_size", "4", "--data.num_workers", "0"),
        *("--data.multi_scale", "[64,128]", "--data.val_fraction", "0.2"),
        *("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
        *("--trainer.accelerator", "cpu", *more),
    ]


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return checkpoint["state_dict"]


def assert_same_weights(a: Path, b: Path) -> None:
    mine, theirs = weights(a), weights(b)
    assert mine.keys() == theirs.keys()
    different = [key for key in mine if not torch.equal(mine[key], theirs[key])]
    assert not different


def scalars(run_dir: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_fit_with_copies_of_large_images_ignores_files_of_macos(site: Path, tmp_path: Path, run_cli: RunCli) -> None:
    root = tmp_path / "data"
    shutil.copytree(site, root)
    for path in [*root.glob("JPEGImages/*"), *root.glob("Annotations/*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    more = ("--data.image_cache", str(tmp_path / "copies"), "--data.input_size", "[32,32]", "--data.multi_scale", "null")
    assert run_cli(*arguments(root, tmp_path / "run", *more, "--trainer.max_epochs", "1")) == 0
    copies = [cv2.imread(str(path)).shape for path in (tmp_path / "copies").iterdir()]
    assert copies == [(48, 64, 3)] * 16


def test_fit_writes_run_folder_and_tensorboard(trained: Path) -> None:
    assert (trained / "config.yaml").is_file()
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    events = EventAccumulator(str(trained), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    expected = {"train/loss", "train/loss_box", "train/loss_objectness", "train/loss_class", "val/map", "val/map_50"}
    assert expected <= set(tags["scalars"])
    assert any(tag.startswith("lr-") for tag in tags["scalars"])
    assert {"val/predictions", "val/precision_recall"} <= set(tags["images"])
    assert {"val/precision_recall_helmet", "val/precision_recall_none"} <= set(tags["tensors"])
    found = scalars(trained)
    assert len(found["train/loss"]) == 8  # 16 images in batches of 4, twice
    task = DetectorTask.load_from_checkpoint(trained / "checkpoints" / "last.ckpt")
    assert task.contract.display_name("none") == "bare head" and task.contract.input_size == (64, 96)
    assert all(torch.equal(tensor, weights(trained)[key]) for key, tensor in task.state_dict().items())
    for total, *terms in zip(*(found[f"train/loss{t}"] for t in ("", "_box", "_objectness", "_class")), strict=True):
        assert total == pytest.approx(sum(terms), rel=1e-5)


def test_fit_same_seed_same_weights_with_any_workers(site: Path, trained: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for name, more in (("two", ("--data.num_workers", "2")), ("other-seed", ("--seed_everything", "7"))):
        assert run_cli(*arguments(site, tmp_path / name, *more)) == 0
    assert_same_weights(trained, tmp_path / "two")
    with pytest.raises(AssertionError):
        assert_same_weights(trained, tmp_path / "other-seed")


def test_fit_killed_within_epoch_resumes_to_same_weights(
    site: Path, tmp_path: Path, run_cli: RunCli, kill_when: Callable[..., None]
) -> None:
    long = ("--trainer.max_epochs", "3", "--data.augment.mosaic_fade", "[0.3,0.9]", "--ckpt_path", "last")
    assert run_cli(*arguments(site, tmp_path / "whole", *long)) == 0
    broken = tmp_path / "broken"
    last = broken / "checkpoints" / "last.ckpt"
    kill_when(last.exists, *arguments(site, broken, *long))
    steps = torch.load(last, weights_only=True)["global_step"]
    assert steps < 12, "the training was over before it was killed"
    assert run_cli(*arguments(site, broken, *long)) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 12
    assert_same_weights(tmp_path / "whole", broken)


@pytest.fixture(scope="module")
def four_images(tmp_path_factory: pytest.TempPathFactory, make_voc: Callable[..., Path]) -> Path:
    """Four images to overfit; for validation the same, darker, one of them with wrong names, and an unrelated one."""
    root = tmp_path_factory.mktemp("four") / "data"
    boxes = [((4, 6, 28, 30), (34, 30, 60, 56)), ((30, 4, 58, 28), (6, 34, 30, 60)), ((2, 2, 26, 30), (30, 8, 54, 34))]
    boxes.append(((10, 20, 38, 46), (40, 2, 62, 24)))
    marked = {f"{i}": [("helmet", first), ("none", second)] for i, (first, second) in enumerate(boxes)}
    darker = {f"{i}-darker": objects for i, objects in enumerate(marked.values())}
    darker["1-darker"] = [("none", boxes[1][0]), ("helmet", boxes[1][1])]
    splits = {"train": list(marked), "val": [*darker, "unrelated"]}
    make_voc(root, {**marked, **darker, "unrelated": [("helmet", (20, 20, 40, 40))]}, splits, size=(64, 64))
    for stem in marked:
        photo = cv2.imread(str(root / "JPEGImages" / f"{stem}.jpg"))
        cv2.imwrite(str(root / "JPEGImages" / f"{stem}-darker.jpg"), (photo * 0.95).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory, four_images: Path, run_cli: RunCli) -> Path:
    """The run folder of a training on a single batch without augmentation."""
    run_dir = tmp_path_factory.mktemp("overfitted") / "run"
    still = "{mosaic: 0, scale: [1, 1], translate: 0, rotate: 0, flip: 0, color: 0}"
    more = ("--data.input_size", "[64,64]", "--data.multi_scale", "null", "--data.augment", still, "--ema.decay", "0.9")
    more += ("--trainer.max_epochs", "120", "--trainer.check_val_every_n_epoch", "120", "--model.optimizer.warmup_epochs", "5")
    assert run_cli(*arguments(four_images, run_dir, *more)) == 0
    return run_dir


def test_fit_overfits_one_batch(overfitted: Path, four_images: Path, tmp_path: Path, run_cli: RunCli) -> None:
    checkpoint = overfitted / "checkpoints" / "last.ckpt"
    assert run_cli("evaluate", checkpoint, "--data", four_images, "--split", "train", "--out", tmp_path) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["map_50"] == pytest.approx(1.0)


def test_fit_two_processes_log_same_map_as_one(overfitted: Path, four_images: Path, tmp_path: Path, run_cli: RunCli) -> None:
    """Five validation images over two processes: the metric is that of the whole split, with no image counted twice."""
    run_dir = tmp_path / "ddp"
    start = str(overfitted / "checkpoints" / "last.ckpt")
    more = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2", "--trainer.max_epochs", "1")
    more += ("--data.input_size", "[64,64]", "--data.multi_scale", "null", "--model.weights", start)
    command = [*PPE_YOLO, *arguments(four_images, run_dir, *more, "--model.optimizer.lr", "1e-6")]
    subprocess.run(command, check=True, timeout=400)
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    assert run_cli("evaluate", checkpoint, "--data", four_images, "--split", "val", "--out", tmp_path / "alone") == 0
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    logged = scalars(run_dir)
    assert 0.1 < alone["map_50"] < 0.95  # neither perfect nor useless: a wrong share of the images would show
    for key in ("map_50", "map_75", "map"):
        assert logged[f"val/{key}"][-1] == pytest.approx(alone[key], abs=1e-5)


def test_fit_applies_precision_accumulation_sgd_and_early_stopping(site: Path, tmp_path: Path, run_cli: RunCli) -> None:
    run_dir = tmp_path / "run"
    more = ("--trainer.precision", "bf16-mixed", "--trainer.accumulate_grad_batches", "2", "--model.optimizer.name", "sgd")
    more += ("--early_stopping.patience", "1", "--early_stopping.min_delta", "1", "--trainer.max_epochs", "5")
    assert run_cli(*arguments(site, run_dir, *more)) == 0
    assert all(torch.isfinite(w.float()).all() for w in weights(run_dir).values())
    assert len(scalars(run_dir)["val/map_50"]) == 2  # no epoch after the first can be better by 1
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4  # per epoch 16 images in batches of 4, two batches a step


def test_fit_yolov3_takes_a_step(site: Path, tmp_path: Path, run_cli: RunCli) -> None:
    more = ("--config", "yolov3", "--data.input_size", "[64,64]", "--data.num_workers", "0", "--trainer.fast_dev_run", "true")
    assert run_cli(*arguments(site, tmp_path / "run", *more)) == 0


def test_fit_weights_of_other_number_of_classes_keeps_body(site: Path, trained: Path, tmp_path: Path, run_cli: RunCli) -> None:
    people = tmp_path / "person.yaml"
    people.write_text("class_names: [person]\nmap: {helmet: person, none: person}\n")
    start = str(trained / "checkpoints" / "last.ckpt")
    more = ("--data.class_map", str(people), "--model.weights", start, "--model.optimizer.lr", "0", "--ema.decay", "0")
    more += ("--seed_everything", "1", "--trainer.max_epochs", "1")
    with pytest.warns(UserWarning, match=r"\d of the 4 validation images were training images of the weights"):
        assert run_cli(*arguments(site, tmp_path / "second", *more)) == 0
    before, after = weights(trained), weights(tmp_path / "second")
    learned = [key for key in before if key.endswith("0.weight") and "heads" not in key]
    assert learned
    assert all(torch.equal(before[key], after[key]) for key in learned)
    assert any(before[key].shape != after[key].shape for key in before)


MISTAKES = [
    (("--config", "nope"), "expected a recipe (quickstart, yolov3, yolov3-small, yolov3-tiny) or a YAML file, got 'nope'"),
    (("--data.root", "nowhere"), "nowhere: expected a Pascal VOC folder"),
    (("--data.class_map", "nope"), "class_map: expected one of default, gdut-hwd"),
    (("--data.class_map", "hard-hat-workers"), "does not mention the name 'none'"),
    (("--data.input_size", "[100,100]"), "multiples of 32, got (100, 100)"),
    (("--data.multi_scale", "[100,200]"), "data.multi_scale: expected (smallest, largest) in multiples of 32"),
    (("--data.val_fraction", "1.5"), "data.val_fraction: expected a fraction between 0 and 1"),
    (("--data.batch_size", "0"), "data.batch_size: expected 1 or more, got 0"),
    (("--data.rooot", "x"), "unrecognized arguments: --data.rooot x"),
    (("--model.anchors_wh", "[[1,2]]"), "yolov3-tiny takes 6 pairs of a positive width and height"),
    (("--model.weights", "nowhere.ckpt"), "nowhere.ckpt: expected a checkpoint, got no such file"),
    (("--model.loss.box", "l2"), "model.loss.box"),
    (("--trainer.max_epochs", "many"), "trainer.max_epochs"),
    (("--ckpt_path", "nowhere.ckpt"), "nowhere.ckpt: expected a checkpoint, got no such file"),
]


@pytest.mark.parametrize(("wrong", "message"), MISTAKES, ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_fit_user_error_is_one_line_and_code_2(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...], message: str, run_cli: RunCli
) -> None:
    assert run_cli(*arguments(site, tmp_path / "run", *wrong)) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ppe-yolo: error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_fit_resume_with_other_model_is_refused(
    site: Path, trained: Path, capsys: pytest.CaptureFixture[str], run_cli: RunCli
) -> None:
    before = (trained / "checkpoints" / "last.ckpt").read_bytes()
    for more, message in (
        (("--ckpt_path", "last", "--data.input_size", "[64,64]"), "trained with input_size (64, 96), now it is (64, 64)"),
        (("--ckpt_path", "last", "--model.optimizer.lr", "0.125"), "was trained with optimizer.lr 0.002, now it is 0.125"),
        ((), "already holds a run: add --ckpt-path last to resume it"),
        (
            ("--ckpt_path", "last", "--data.val_fraction", "0.5"),
            "validated on other images (by val_fraction 0.2 and seed 0; now by val_fra",
        ),
    ):
        assert run_cli(*arguments(site, trained, *more)) == 2
        assert message in capsys.readouterr().err
    assert (trained / "checkpoints" / "last.ckpt").read_bytes() == before


def test_fit_of_single_class_accepts_dashes_in_option_names(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_cli: RunCli
) -> None:
    people = tmp_path / "own-map.yaml"
    people.write_text("class_names: [person]\ndisplay_names: {person: a person}\nmap: {helmet: person, none: person}\n")
    run_dir = tmp_path / "run-1"
    short = arguments(site, run_dir, "--trainer.max_steps", "1")  # ends before a validation
    dashed = [a.replace("_", "-") if a.startswith("--") else a for a in short]
    assert run_cli(*dashed, "--data.class-map", people) == 0
    assert f"run folder: {run_dir}" in capsys.readouterr().out.replace("\n", "")
    before = weights(run_dir)
    resumed = [*dashed, "--data.class-map", people, "--ckpt-path", "last", "--trainer.max-steps", "-1"]
    assert run_cli(*resumed) == 0
    assert any(not torch.equal(tensor, before[key]) for key, tensor in weights(run_dir).items())
    contract = load_detector(run_dir / "checkpoints" / "last.ckpt", device="cpu").contract
    assert (contract.class_names, contract.display_names) == (("person",), {"person": "a person"})
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    assert run_cli("evaluate", checkpoint, "--data", site, "--class-map", people, "--out", tmp_path / "out") == 0
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["per_class"]) == ["person"]
