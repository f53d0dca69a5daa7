"""azureml/prepare-large.yml: four shards and one merge give what one process gives."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.audit import engine
from ppe_yolo.data.audit.shards import check_files, read_lines
from ppe_yolo.data.prepare import prepare

PIPELINE = Path(__file__).resolve().parents[3] / "azureml/prepare-large.yml"


@pytest.fixture
def root(make_voc: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "cache"))
    stems = [f"image{i:02d}" for i in range(12)]
    root = make_voc(tmp_path / "data", stems, {"trainval": stems[:8], "test": stems[8:]})
    (root / "JPEGImages" / "image03.jpg").write_bytes(b"no image")
    return root


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepare_large_on_four_shards_equals_one_process(
    root: Path, run_cli: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sum(path.is_file() for path in root.rglob("*"))
    settings = [f"inputs.data={root}", "inputs.on_error=skip", f"jobs.check.mini_batch_size={-(-files // 4)}"]
    options = [part for setting in settings for part in ("--set", setting)]
    assert run_cli("azureml", "run", PIPELINE, "--local", "--out", tmp_path / "run", *options) == 0
    log = (tmp_path / "run/check/artifacts/user_logs/std_log.txt").read_text()
    assert f"{files} files, 4 mini-batches, 0 already done" in log
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "another cache"))
    prepare(root, tmp_path / "alone", on_error="skip")
    assert content(tmp_path / "run/named-outputs/data_set") == content(tmp_path / "alone")


def test_prepare_with_checks_decodes_no_image_that_can_be_used(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(str(path) for path in root.rglob("*") if path.is_file())
    rows = check_files(files)
    assert len(rows) == len(files)
    lines = tmp_path / "checks.jsonl"
    lines.write_text("".join(f"{row}\n" for row in reversed(rows)))  # the order of the shards does not matter
    decoded = []
    check = engine.check_image
    monkeypatch.setattr(engine, "check_image", lambda image, data: decoded.append(Path(image).name) or check(image, data))
    dataset = prepare(root, tmp_path / "merged", on_error="skip", checks=lines)
    assert decoded == ["image03.jpg"]
    assert dataset.left_out == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rows of text\n", "expected lines of scripts/check_images.py"),
        ("[1]\n", "expected lines of scripts/check_images.py"),
        ('{"version": "0"}\n', "line 1: expected version .*, got 0: use the same environment"),
    ],
)
def test_read_lines_of_another_file_raises(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "checks.jsonl").write_text(text)
    with pytest.raises(UserError, match=problem):
        read_lines(tmp_path / "checks.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_lines(tmp_path / "none.jsonl")
