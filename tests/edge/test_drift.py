"""The drift of a camera's scores: the last day counts, and a model without a histogram shows none."""

from pathlib import Path

import numpy as np
import pytest
from ppe_edge.config import load_settings
from ppe_edge.model.drift import HOUR, SAMPLE_S, DriftMeter
from ppe_edge.runtime import Runtime
from running_box import configure

HIGH, LOW = np.full(10, 0.85, np.float32), np.full(10, 0.15, np.float32)
EXPECTED = (0, 0, 0, 0, 0, 0, 0, 1000, 0)  # all of them like HIGH


def fill(meter: DriftMeter, scores: np.ndarray, start: float, frames: int = 40) -> None:
    for i in range(frames):
        meter.add(scores, start + i * SAMPLE_S)


def test_drift_is_unknown_until_enough_detections() -> None:
    meter = DriftMeter(EXPECTED)
    fill(meter, HIGH, 0.0, 19)
    assert meter.index() is None
    fill(meter, HIGH, 100.0, 1)
    assert meter.index() == pytest.approx(0.0, abs=0.1)


def test_drift_shows_other_scores_and_forgets_them_after_a_day() -> None:
    meter = DriftMeter(EXPECTED)
    fill(meter, LOW, 0.0)
    index = meter.index()
    assert index is not None and index > 1.0
    fill(meter, HIGH, 24 * HOUR)
    assert meter.index() == pytest.approx(0.0, abs=0.1)


def test_drift_counts_one_frame_per_sample_interval() -> None:
    meter = DriftMeter(EXPECTED)
    for i in range(100):
        meter.add(HIGH, i * SAMPLE_S / 50)
    assert meter.index() is None  # two frames


def test_model_without_histogram_shows_no_drift(tmp_path: Path, tiny_model: Path) -> None:
    runtime = Runtime(load_settings(configure(tmp_path, tiny_model, {"gate": {"source": "rtsp://127.0.0.1:9/"}})))
    assert "ppe_edge_camera_score_drift{" not in runtime.telemetry.text().decode()
    runtime.outbox.close()
