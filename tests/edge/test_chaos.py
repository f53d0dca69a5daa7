"""A minute of the chaos that `python tests/edge/chaos.py` makes for ten, see there."""

from pathlib import Path

import pytest
from broker import needs_mosquitto
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
    assert {"box killed"} < set(result.faults) and sum(result.faults.values()) >= 6, result.faults
    # in a minute no life is long enough to say more of memory than that nothing runs away
    assert result.descriptor_growth <= 4, result
