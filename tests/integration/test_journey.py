"""The main jobs of a user, each through the real command line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from filelock import FileLock

RunCli = Callable[..., int]
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, run_cli: RunCli, worker_id: str) -> Path:
    """The run folder of a short quickstart. The test processes share it; the first one makes it. Tests must not write to it."""
    base = tmp_path_factory.getbasetemp()
    run_dir = (base if worker_id == "master" else base.parent) / "journey"
    done = run_dir.with_suffix(".done")
    with FileLock(f"{run_dir}.lock"):
        if not done.exists():
            if run_dir.exists():  # the quickstart of another process has failed
                shutil.rmtree(run_dir)
            assert run_cli("quickstart", "--epochs", "4", "--run-dir", str(run_dir)) == 0
            done.touch()
    return run_dir


@pytest.mark.slow
def test_quickstart_writes_run_folder(run_dir: Path) -> None:
    for name in ("checkpoints/best.ckpt", "audit.json", "metrics.json", "detections.json", "precision_recall.png"):
        assert (run_dir / name).stat().st_size > 0
    assert list(run_dir.glob("events.out.tfevents.*"))
    assert len(list((run_dir / "pictures").glob("*.jpg"))) == 24
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["images"] == 60
    assert metrics["map_50"] > 0.3  # four epochs instead of sixteen
    assert set(metrics["per_class"]) == {"helmet", "none"}


@pytest.mark.slow
def test_evaluate_repeats_metrics_of_quickstart(run_dir: Path, tmp_path: Path, run_cli: RunCli) -> None:
    assert (
        run_cli(
            "evaluate", str(run_dir / "checkpoints/best.ckpt"), "--data", str(run_dir / "site-data"), "--out", str(tmp_path)
        )
        == 0
    )
    again, first = (json.loads((d / "metrics.json").read_text()) for d in (tmp_path, run_dir))
    assert again["map"] == pytest.approx(first["map"], abs=1e-6)
    results = json.loads((tmp_path / "detections.json").read_text())
    assert results
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}


@pytest.mark.slow
def test_predict_draws_images_and_reports_failures(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_cli: RunCli
) -> None:
    photos = sorted((run_dir / "site-data" / "JPEGImages").glob("*.jpg"))[:3]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    out = tmp_path / "out"
    command = ["predict", str(run_dir / "checkpoints/best.ckpt"), *map(str, photos), str(broken), "--out", str(out)]
    assert run_cli(*command) == 2
    assert "1 of 4 images failed" in capsys.readouterr().err
    rows = json.loads((out / "predictions.json").read_text())
    assert [Path(r["image"]).name for r in rows] == [p.name for p in photos]
    for row, photo in zip(rows, photos, strict=True):
        original, annotated = cv2.imread(str(photo)), cv2.imread(str(out / row["annotated"]))
        assert annotated.shape == original.shape == (row["height"], row["width"], 3)
        for found in row["detections"]:
            x1, y1, x2, y2 = found["box_xyxy"]
            assert 0 <= x1 < x2 <= row["width"]
            assert 0 <= y1 < y2 <= row["height"]


@pytest.mark.slow
def test_scripts_run_from_bare_checkout(run_dir: Path, tmp_path: Path) -> None:
    """Like a job without the installed package: from another folder, with the checkout not on the path."""
    model, data = str(run_dir / "checkpoints/best.ckpt"), str(run_dir / "site-data")
    for script, arguments in (
        ("evaluate.py", [model, "--data", data, "--out", "evaluated"]),
        ("predict.py", [model, data + "/JPEGImages/site_00000.jpg", "--out", "predicted"]),
        ("prepare_data.py", [data, "--out", "lists"]),
        ("train.py", ["--print_config"]),
    ):
        subprocess.run([sys.executable, str(SCRIPTS / script), *arguments], cwd=tmp_path, check=True, timeout=300)
    assert (tmp_path / "evaluated/metrics.json").is_file()
    assert (tmp_path / "predicted/site_00000.jpg").is_file()
    assert len((tmp_path / "lists/voc_test.txt").read_text().splitlines()) == 60


def test_quickstart_own_data_with_unknown_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_cli: RunCli
) -> None:
    from ppe_yolo.core.voc_xml import write_voc_annotation
    from ppe_yolo.data.annotation import AnnotatedObject
    from ppe_yolo.data.synthetic import draw_site_dataset

    data = tmp_path / "data"
    draw_site_dataset(data, trainval=6, test=2, size=(96, 128))
    odd = AnnotatedObject("No Safety Helmet", (10, 10, 40, 40))
    write_voc_annotation(
        data / "Annotations/site_00001.xml", image_name="site_00001.jpg", image_size=(96, 128, 3), objects=[odd]
    )
    assert run_cli("quickstart", "--data", str(data), "--run-dir", str(tmp_path / "run")) == 2
    message = capsys.readouterr().err
    assert "'No Safety Helmet' 1" in message
    assert "--class-map" in message


def test_quickstart_run_folder_in_data_set_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run_cli: RunCli
) -> None:
    monkeypatch.chdir(tmp_path)  # the default is runs/quickstart-1
    assert run_cli("quickstart", "--data", ".") == 2
    assert (
        "--run-dir: runs/quickstart-1: expected a folder outside of the data set, got one inside ." in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_incompatible_torchvision_is_reported_in_one_line(tmp_path: Path) -> None:
    """A torchvision that fails at import, as one from another index does, precedes the real one on the path."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    command = [sys.executable, "-m", "ppe_yolo.cli", "quickstart"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 2
    assert "do not work together (operator torchvision::nms does not exist)" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_import_of_package_is_light() -> None:
    heavy = "{'torch', 'torchvision', 'pytorch_lightning', 'albumentations', 'cv2', 'numpy', 'matplotlib', 'scipy'}"
    code = f"import ppe_yolo, sys; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
