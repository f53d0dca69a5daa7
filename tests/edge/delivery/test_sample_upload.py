"""The messages of samples; tests/edge/iot sends them."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import HIDDEN
from ppe_edge.cameras.mailbox import Frame
from ppe_edge.config import load_settings
from ppe_edge.delivery.sample_upload import MAX_BYTES, encode
from ppe_edge.errors import EdgeError
from ppe_edge.pictures.sampler import Sampler, SamplerConfig

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.detections import Detections

CONTRACT = ModelContract(("helmet", "none"), (64, 64))
UNSURE = Detections(np.array([[50, 20, 90, 80]], np.float32), np.array([0.3], np.float32), np.array([1]))


def offer(sampler: Sampler, number: int, detections: Detections, size: tuple[int, int] = (100, 120)) -> Path | None:
    image = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return sampler.keep(Frame(camera="gate", number=number, time=10.0 * number, monotonic=0.0, image=image), detections)


def test_large_image_is_compressed_until_the_message_fits(tmp_path: Path) -> None:
    sampler = Sampler(SamplerConfig(enabled=True), tmp_path, CONTRACT, hidden=HIDDEN)
    image = offer(sampler, 1, UNSURE, (500, 700))
    assert image is not None and image.stat().st_size > MAX_BYTES
    text = encode(image, sampler.folder / "Annotations" / f"{image.stem}.xml", 3, 1)
    assert text is not None and len(text.encode()) <= MAX_BYTES
    data = base64.b64decode(json.loads(text)["image_base64"])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (500, 700, 3)


def test_image_that_never_fits_has_no_message(tmp_path: Path) -> None:
    sampler = Sampler(SamplerConfig(enabled=True), tmp_path, CONTRACT, hidden=HIDDEN)
    image = offer(sampler, 1, UNSURE, (1400, 1800))  # noise, which JPEG cannot compress
    assert image is not None
    assert encode(image, sampler.folder / "Annotations" / f"{image.stem}.xml", 3, 1) is None


def test_upload_without_iot_hub_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text(
        f"model: {{path: m.onnx}}\nstate_dir: {tmp_path}\ncameras: {{gate: {{source: video.mp4}}}}\nsampler: {{upload: true}}\n"
    )
    with pytest.raises(EdgeError, match=r"sampler\.upload: expected also sinks\.iothub"):
        load_settings(file)
    assert [p.name for p in tmp_path.iterdir()] == ["edge.yaml"]
