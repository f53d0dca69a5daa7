"""What cameras ask for, and what a machine can do; computed by hand."""

import pytest
from ppe_edge.benchmark.capacity import CameraLoad, Capacity, describe


@pytest.mark.parametrize(
    ("threads", "cores", "load"),
    [
        (2, 2, 0.9),  # detection takes both cores for 0.8 s of a second, reading 0.2 of two cores
        (1, 2, 0.8),  # the model alone: (0.8 + 0.2) / 2 would leave room
        (1, 1, 1.0),
        (8, 2, 0.9),  # more threads than cores
    ],
)
def test_load_is_that_of_model_or_of_cores(threads: int, cores: int, load: float) -> None:
    capacity = Capacity(detect_s=0.05, threads=threads, cores=cores)
    assert capacity.load([CameraLoad(8, 0.1), CameraLoad(8, 0.1)]) == pytest.approx(load)


def test_rate_each_fills_machine_up_to_headroom() -> None:
    capacity = Capacity(detect_s=0.05, threads=2, cores=2)
    rate = capacity.rate_each(4, 0.1)  # (0.85 * 2 - 0.4) / 2 / (4 * 0.05)
    assert rate == pytest.approx(3.25)
    assert capacity.load([CameraLoad(rate, 0.1)] * 4) == pytest.approx(0.85)
    assert capacity.rate_each(20, 0.1) == 0.0  # decoding alone takes two cores


def test_describe_warns_only_beyond_headroom() -> None:
    capacity = Capacity(detect_s=0.05, threads=2, cores=2)
    assert describe(capacity, [CameraLoad(8, 0.1)]) == (
        "1 camera asks for 8 frames per second, this machine processes about 15 (detection 50 ms per frame on 2 threads, "
        "reading 0.1 of 2 cores)"
    )
    # the load is (2 * 12 * 0.05 * 2 + 0.2) / 2 = 1.3, so 0.85 / 1.3 of 24 frames per second are possible
    assert describe(capacity, [CameraLoad(12, 0.1)] * 2).endswith(
        "24 frames per second, this machine processes about 16 (detection 50 ms per frame on 2 threads, reading 0.2 of 2 cores)"
        ": WARNING, too slow: set fps to at most 7.8 per camera, use fewer cameras or a faster model"
    )
    assert "WARNING, too many to decode: choose sub-streams" in describe(capacity, [CameraLoad(1, 0.9)] * 2)
