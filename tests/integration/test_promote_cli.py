"""Promotion and registry through the real command line: MLflow on sqlite, ONNX files that run, two real processes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from filelock import FileLock

from ppe_yolo.core import timing
from ppe_yolo.core.contract import ONNX_METADATA_KEY, ModelContract
from ppe_yolo.data.images import read_image
from ppe_yolo.export import benchmark
from ppe_yolo.export.onnx import build_model
from ppe_yolo.gate.registry import Registry
from ppe_yolo.inference.onnx_detector import load_onnx_detector
from ppe_yolo.model.yolov3 import YoloV3

RunCli = Callable[..., int]
COUNT = 20
CONTRACT = ModelContract(("helmet", "none"), (64, 96), max_detections=30, alarm_thresholds={"helmet": 0.5, "none": 0.5})
BOXES = {1: [2.0, 2.0, 10.0, 10.0], 2: [40.0, 2.0, 10.0, 10.0]}
QUICKLY = """
from ppe_yolo.cli import main
from ppe_yolo.core import timing
timing.PAUSE = 0.0
main()
"""
ROOMY = ("--max-latency-ms", 60_000)  # no test depends on how busy the machine is


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """A detector without depth, so that the file is small."""
    network = YoloV3("yolov3-tiny", 2)
    torch.manual_seed(0)
    network.body = benchmark.NullBody(benchmark.ANCHORS_PER_LEVEL * 7, network.strides)
    for parameters in network.body.parameters():
        torch.nn.init.normal_(parameters, std=0.05)  # every score is about a quarter
    return build_model(network, CONTRACT)


@pytest.fixture
def database(tmp_path: Path, empty_registry_file: Path) -> Path:
    return Path(shutil.copy(empty_registry_file, tmp_path / "registry.db"))


@pytest.fixture
def registry(request: pytest.FixtureRequest, database: Path) -> Registry:
    """On sqlite, or on a server if a test asks for one."""
    on_server = getattr(request, "param", "sqlite") == "server"
    return Registry(request.getfixturevalue("mlflow_server").uri if on_server else f"sqlite:///{database}", "helmet")


Make = Callable[..., tuple[object, ...]]


@pytest.fixture
def make(tmp_path: Path, network: onnx.ModelProto, registry: Registry) -> Make:
    """`make(name, helmets, heads)`: a model and an evaluation with that many detections; returns the arguments for promote."""

    def write(
        name: str,
        helmets: int,
        heads: int,
        *,
        photos: Sequence[str] = tuple(f"p{i:02d}" for i in range(COUNT)),
        info: dict[str, Any] | None = None,
        thresholds: dict[str, float] | None = None,
    ) -> tuple[object, ...]:
        folder = tmp_path / name
        folder.mkdir()
        model = folder / f"{name}.onnx"
        contract = replace(CONTRACT, provenance={"made_for": name})  # so that no two files are the same
        if thresholds is not None:
            contract = replace(contract, alarm_thresholds=thresholds)
        proto = onnx.ModelProto.FromString(network.SerializeToString())
        [entry] = [p for p in proto.metadata_props if p.key == ONNX_METADATA_KEY]
        entry.value = contract.to_json()
        model.write_bytes(proto.SerializeToString())
        digest = hashlib.blake2b(model.read_bytes(), digest_size=16).hexdigest()
        known = {"split": "test", "model": str(model), "checkpoint_blake2b": "cc", "model_blake2b": digest, **(info or {})}
        images = [
            {"id": i, "file_name": f"/somewhere/{p}.jpg", "name": p, "height": 48, "width": 64}
            for i, p in enumerate(photos, start=1)
        ]
        objects = [
            {"id": 2 * i + c, "image_id": i + 1, "category_id": c, "bbox": BOXES[c], "area": 100.0, "iscrowd": 0}
            for i in range(len(photos))
            for c in (1, 2)
        ]
        classes = [{"id": 1, "name": "helmet"}, {"id": 2, "name": "none"}]
        truth = {"info": known, "images": images, "annotations": objects, "categories": classes}
        # the images that come first by name have the detections
        found = [
            {"image_id": i + 1, "category_id": c, "bbox": BOXES[c], "score": 0.9}
            for c, most in ((1, helmets), (2, heads))
            for i, p in enumerate(photos)
            if p in sorted(photos)[:most]
        ]
        for file, content in (("ground_truth.json", truth), ("detections.json", found), ("metrics.json", {})):
            (folder / file).write_text(json.dumps(content))
        return ("promote", model, "--evaluation", folder, *ROOMY, "--registry", registry.uri)

    return write


def stages(registry: Registry) -> list[str]:
    return [v.tags["stage"] for v in registry.versions()]


@pytest.mark.parametrize("registry", ["sqlite", "server"], indirect=True)
def test_promote_and_rollback_from_first_champion_on(
    tmp_path: Path, run_cli: RunCli, registry: Registry, make: Make, capsys: pytest.CaptureFixture
) -> None:
    assert run_cli(*make("a", 8, 12)) == 0
    assert f"helmet had no champion in {registry.uri}: only the absolute conditions were checked\n" in capsys.readouterr().out
    assert run_cli(*make("worse_recall", 20, 11)) == 1
    out = capsys.readouterr().out
    assert "rejected: helmet version 2: recall of none, not worse\n" in out and "FAILS" in out
    # another order of the same images changes nothing
    assert run_cli(*make("b", 18, 12, photos=[f"p{i:02d}" for i in reversed(range(COUNT))])) == 0
    assert run_cli(*make("b_again", 18, 12)) == 1  # equal
    assert "mAP@0.5; not by luck" in capsys.readouterr().out
    assert stages(registry) == ["retired", "rejected", "champion", "rejected"]

    # what is recorded
    version = registry.champion()
    assert version is not None and version.number == 3
    average = (91 + 61) / 202  # 18 and 12 of 20 found, no false alarm: recalls 0.00 to 0.90 and 0.00 to 0.60
    assert float(version.tags["map_50"]) == pytest.approx(average, abs=1e-6)
    assert (version.tags["recall"], version.tags["compared_with"]) == ("0.600000", "1")
    assert version.tags["data_blake2b"] == registry.versions()[0].tags["data_blake2b"]
    files = registry.files(version, tmp_path)
    assert (files / "model.onnx").read_bytes() == (tmp_path / "b/b.onnx").read_bytes()
    decision = json.loads((files / "decision.json").read_text())
    assert decision["promoted"] and decision["champion_version"] == 1 and decision["photos"] == COUNT
    assert decision["numbers"]["map_50_gain_points"] == pytest.approx(100 * (91 - 41) / 202)
    assert decision["numbers"]["champion"]["latency_ms"] > 0

    # back, and forward again with a third one
    uri = ("--registry", registry.uri)
    assert run_cli("rollback", *uri) == 0
    assert "version 1 is the champion again, version 3 is rejected" in capsys.readouterr().out
    assert stages(registry) == ["champion", "rejected", "rejected", "rejected"]
    assert run_cli("rollback", *uri) == 2
    assert "expected a champion before version 1, got none" in capsys.readouterr().err
    assert run_cli(*make("c", 17, 13)) == 0
    assert registry.versions()[4].tags["compared_with"] == "1"
    assert run_cli("rollback", *uri) == 0
    champion = registry.champion()
    assert champion is not None and champion.number == 1  # not version 3, which was rejected


def test_promote_first_model_below_limits_is_rejected(run_cli: RunCli, registry: Registry, make: Make) -> None:
    assert run_cli(*make("blind", 20, 9)) == 1
    assert run_cli(*make("slow", 20, 20), "--max-latency-ms", "0.0001") == 1
    assert [v.tags["reasons"] for v in registry.versions()] == ["recall of none, at least", "latency"]
    assert registry.champion() is None


def test_promote_exit_zero_rejection_exits_with_0(
    tmp_path: Path, run_cli: RunCli, registry: Registry, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = make("blind", 20, 9)
    assert run_cli(*arguments, "--exit-zero") == 2
    assert "--exit-zero: the decision would be lost: add --out DIR" in capsys.readouterr().err
    assert run_cli(*arguments, "--exit-zero", "--out", tmp_path / "decided") == 0
    decision = json.loads((tmp_path / "decided/decision.json").read_text())
    assert (decision["promoted"], decision["version"]) == (False, 1)
    assert [v.tags["stage"] for v in registry.versions()] == ["rejected"]


def test_promote_user_errors_register_no_version(
    tmp_path: Path, run_cli: RunCli, registry: Registry, make: Make, capsys: pytest.CaptureFixture
) -> None:
    assert run_cli(*make("champion", 8, 12)) == 0
    cases = {
        # the champion must be measured on these images, which are nowhere
        "q00.jpg: cannot be read": make("other_photos", 18, 12, photos=[f"q{i:02d}" for i in range(COUNT)]),
        "holds an evaluation of another file": make("other_file", 18, 12, info={"model_blake2b": "0" * 32}),
        "expected the split test, got val": make("val", 18, 12, info={"split": "val"}),
        "expected whole images, as on the box, got --tiles 2": make("tiles", 18, 12, info={"tiles": 2}),
        "expected an alarm threshold of none (the class)": make("no_threshold", 18, 12, thresholds={}),
        "expected one of helmet, none, got 'head'": (*make("no_head", 18, 12), "--critical-class", "head"),
        "expected sqlite:///FILE": (*make("where", 18, 12), "--registry", "registry.db"),
    }
    # one box moved by a pixel is other data
    moved = make("moved", 18, 12)
    truth = json.loads((tmp_path / "moved/ground_truth.json").read_text())
    truth["annotations"][5]["bbox"][0] += 1
    (tmp_path / "moved/ground_truth.json").write_text(json.dumps(truth))
    capsys.readouterr()
    for expected, command in [*cases.items(), ("p00.jpg: cannot be read", moved)]:
        assert run_cli(*command) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
    assert stages(registry) == ["champion"]


def test_sqlite_registry_that_does_not_exist_is_named(
    tmp_path: Path, run_cli: RunCli, make: Make, capsys: pytest.CaptureFixture
) -> None:
    """A mistyped path has no champion, so promote would accept any model; rollback creates nothing."""
    mistyped = tmp_path / "typo" / "registri.db"
    option = ("--registry", f"sqlite:///{mistyped}")
    assert run_cli(*make("val", 18, 12, info={"split": "val"}), *option) == 2  # before it is created
    assert capsys.readouterr().out == f"{mistyped}: no registry yet, a new one is created\n"
    assert run_cli("rollback", *option) == 2
    expected = f"--registry: {mistyped}: expected a registry of `ppe-yolo promote`, got no such file"
    assert capsys.readouterr().err == f"ppe-yolo: error: {expected}\n"
    assert not mistyped.parent.exists()


def test_promote_takes_files_of_evaluate(
    tmp_path: Path, run_cli: RunCli, registry: Registry, make: Make, make_voc: Callable[..., Path]
) -> None:
    model = make("real", 1, 1, thresholds={"helmet": 0.05, "none": 0.05})[1]
    photos, out = [f"p{i}" for i in range(4)], tmp_path / "measured"
    root = make_voc(tmp_path / "voc", photos, size=(64, 96))
    detector, marked = load_onnx_detector(str(model), device="cpu"), {}
    for stem in photos:  # annotated with detections of the model, and with objects that it misses
        [found] = detector.detect([read_image(str(root / "JPEGImages" / f"{stem}.jpg"))])
        boxes = np.rint(found.boxes_xyxy).astype(int).tolist()
        rows = zip(found.labels.tolist(), boxes, strict=True)
        large = [(CONTRACT.class_names[k], tuple(b)) for k, b in rows if b[2] - b[0] > 3 and b[3] - b[1] > 3]
        marked[stem] = [*large[:4], ("helmet", (0, 0, 5, 5)), ("none", (90, 58, 95, 63))]
    make_voc(root, marked, {"test": photos}, size=(64, 96))
    assert run_cli("evaluate", model, "--data", root, "--out", out, "--images", 0, "--device", "cpu") == 0
    assert run_cli("promote", model, "--evaluation", out, "--registry", registry.uri, "--min-recall", 0) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    champion = registry.champion()
    assert champion is not None and 0.1 < metrics["map_50"] < 1.0
    assert float(champion.tags["map_50"]) == pytest.approx(metrics["map_50"], abs=1e-4)


def test_promote_measures_champion_again_on_new_images(
    tmp_path: Path, run_cli: RunCli, registry: Registry, make: Make, make_voc: Callable[..., Path]
) -> None:
    """The champion and the challenger are the same network with different alarm thresholds."""
    assert run_cli(*make("champion", 20, 20, thresholds={"helmet": 0.85, "none": 0.85})) == 0
    model = make("challenger", 1, 1, thresholds={"helmet": 0.05, "none": 0.05})[1]
    photos = [f"new{i}" for i in range(4)]
    root = make_voc(tmp_path / "voc", photos, size=(64, 96))
    detector, marked = load_onnx_detector(str(model), device="cpu"), {}
    for stem in photos:
        [found] = detector.detect([read_image(str(root / "JPEGImages" / f"{stem}.jpg"))])
        boxes = np.rint(found.boxes_xyxy).astype(int).tolist()
        rows = zip(found.labels.tolist(), boxes, strict=True)
        marked[stem] = [(CONTRACT.class_names[k], tuple(b)) for k, b in rows if b[2] - b[0] > 3 and b[3] - b[1] > 3][:4]
        marked[stem] += [("helmet", (0, 0, 5, 5)), ("none", (90, 58, 95, 63))]
    make_voc(root, marked, {"test": photos}, size=(64, 96))
    out = tmp_path / "measured"
    assert run_cli("evaluate", model, "--data", root, "--out", out, "--images", 0, "--device", "cpu") == 0
    command = ("promote", model, "--evaluation", out, "--registry", registry.uri, "--min-recall", 0, *ROOMY)
    run_cli(*command, "--exit-zero", "--out", tmp_path / "decision")
    decision = json.loads((tmp_path / "decision/decision.json").read_text())
    assert decision["champion_version"] == 1 and decision["champion_measured_again"]
    champion, challenger = decision["numbers"]["champion"], decision["numbers"]["challenger"]
    assert champion["map_50"] == pytest.approx(challenger["map_50"])  # the networks are equal but for the thresholds
    assert 0.1 < champion["map_50"] < 0.9  # it was 1 on the old images
    assert champion["false_alarms_per_1000"] == 0.0 < challenger["false_alarms_per_1000"]  # at its high thresholds


def test_promote_damaged_database_is_refused_in_one_line(
    run_cli: RunCli, make: Make, database: Path, capsys: pytest.CaptureFixture
) -> None:
    command = make("a", 18, 12)
    database.write_text("no database " * 1000)
    assert run_cli(*command) == 2
    error = capsys.readouterr().err
    assert "file is not a database" in error and error.count("\n") == 1


def test_promote_two_at_the_same_time_one_wins(
    tmp_path: Path, run_cli: RunCli, registry: Registry, database: Path, make: Make
) -> None:
    """Both are better than the champion, neither is better than the other: the second must beat the first."""
    assert run_cli(*make("champion", 8, 12)) == 0
    commands = [make(name, 18, 12) for name in ("left", "right")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with FileLock(database.with_name("registry.db.lock")):
        gates = [
            subprocess.Popen(
                [sys.executable, "-c", QUICKLY, *map(str, command)], stdout=subprocess.PIPE, text=True, env=environment
            )
            for command in commands
        ]
        for gate in gates:  # both wait before the lock is released
            assert gate.stdout is not None and gate.stdout.readline().startswith("waiting for another promotion")
    outputs = [gate.communicate(timeout=120)[0] for gate in gates]
    assert sorted(gate.returncode for gate in gates) == [0, 1], outputs
    assert sorted(stages(registry)) == ["champion", "rejected", "retired"]
    versions = registry.versions()
    assert [v.tags["compared_with"] for v in versions] == ["no champion", "1", "2"]
