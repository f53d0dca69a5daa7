"""A minute of the chaos that `python tests/edge/chaos.py` makes for ten, see there."""

import signal
from pathlib import Path

import pytest
from broker import needs_mosquitto, wait_until
from chaos import Chaos
from rtsp_server import missing


@needs_mosquitto
@pytest.mark.slow
def test_a_minute_of_killing_and_freezing_loses_nothing(tmp_path: Path) -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    chaos = Chaos(tmp_path, cameras=8, seed=1)
    try:
        result = chaos.run(60)
    finally:
        chaos.close()
    assert not result.broken_promises(), result
    assert result.ends["unknown"] > 0, result  # the box was killed while somebody was bare-headed
    assert {"box killed"} < set(result.faults) and sum(result.faults.values()) >= 6, result.faults
    # in a minute no life is long enough to say more of memory than that nothing runs away
    assert result.descriptor_growth <= 4, result


@needs_mosquitto
def test_a_frozen_hub_does_not_keep_the_box_from_stopping(tmp_path: Path) -> None:
    """The box's last resort would end it with code 1; what the hub did not confirm waits for the next start."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    chaos = Chaos(tmp_path, cameras=1, seed=1)
    try:
        wait_until(lambda: any(body["kind"] == "alert" for _, body in chaos.hub.telemetry), 60, "the first alert")
        chaos.broker.freeze()
        wait_until(chaos.undelivered, 60, "an alert that the hub does not confirm")
        chaos.box.send_signal(signal.SIGTERM)
        assert chaos.box.wait(30) == 0
        assert chaos.undelivered() > 0
    finally:
        chaos.broker.thaw()
        chaos.close()
