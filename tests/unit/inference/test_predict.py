"""`predict`: where it writes."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.errors import UserError
from ppe_yolo.inference.predict import find_images, predict

DETECTOR = SimpleNamespace(contract=ModelContract(("helmet", "none"), (64, 96)))


@pytest.fixture
def yolo(tmp_path):
    """A YOLO folder with two images, one of them in train."""
    root = tmp_path / "set"
    for folder in ("images", "train/images", "labels", "train/labels"):
        (root / folder).mkdir(parents=True)
    (root / "data.yaml").write_text("names: [helmet, none]\ntrain: [images, train/images]\n")
    for folder in ("images", "train/images"):
        (root / folder / "a.jpg").touch()
    for folder in ("labels", "train/labels"):
        (root / folder / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return root


def test_predict_name_that_is_not_utf8_is_refused(tmp_path, capsys, run_cli):
    image = os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn.jpg")
    Path(image).touch()
    with pytest.raises(UserError, match=r"gr\\xfcn\.jpg: its name is not valid UTF-8: rename the file"):
        find_images([f"{tmp_path}/*.jpg"])
    assert run_cli("predict", "helmet-small", "a.jpg", "--out", image) == 2
    assert "gr\\xfcn.jpg: its name is not valid UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["images", "images/new/drawn", "train/images/drawn"])
def test_predict_into_images_of_data_set_is_refused(yolo, out):
    with pytest.raises(UserError, match=rf"^out: {yolo / out}: expected a folder outside of the data set, got one inside "):
        predict(DETECTOR, [], yolo / out)
    assert len(list(yolo.rglob("*"))) == 10


def test_predict_beside_images_of_data_set_or_into_own_folder_writes(yolo, monkeypatch):
    monkeypatch.chdir(yolo)
    for _ in range(2):  # the second time, the folder has drawn images
        predict(DETECTOR, [], Path("drawn"))
        Path("drawn/a.jpg").touch()
    Path("train/images/a.jpg").rename("a.jpg")  # an image that belongs to no data set
    predict(DETECTOR, [], yolo.parent / "elsewhere")
