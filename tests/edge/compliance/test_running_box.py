"""Compliance of a real box: what a video shows is counted, and a report reaches the sinks."""

import time
from collections.abc import Callable
from pathlib import Path

from ppe_edge.compliance.store import ComplianceStore, Count, Key
from ppe_edge.config import load_settings
from ppe_edge.runtime import Runtime
from running_box import configure, delivered

from conftest import GREEN, GREY, RED  # isort: skip


def test_video_file_is_counted_by_track(tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path]) -> None:
    """A helmet, a bare head, a head that takes its helmet off late, and one that the end of the video interrupts."""
    nobody = (GREY, 40)
    scenes = [(GREEN, 30), nobody, (RED, 30), nobody, (GREEN, 30), (RED, 20), nobody, (RED, 20)]
    zones = {"lane": [[0, 0], [1, 0], [1, 1], [0, 1]]}
    clip = make_clip(tmp_path / "clip.mp4", scenes)
    rules = {"lane": {"zones": ["lane"]}, "all": {}}
    config = configure(tmp_path, tiny_model, {"gate": {"source": str(clip), "zones": zones}}, rules=rules)
    runtime = Runtime(load_settings(config))
    runtime.start()
    assert runtime.wait(60.0) and runtime.stop() and not runtime.failed
    figures = ComplianceStore(tmp_path / "state" / "compliance.db").read(0, 1e11)
    sums: dict[tuple[str, ...], Count] = {}
    for key, count in figures.items():
        sums[key[1:]] = sums.get(key[1:], Count()).plus(count)
    assert sums == {("gate", "all", ""): Count(2, 2), ("gate", "lane", "lane"): Count(2, 2)}


def test_report_of_yesterday_is_sent_once(tmp_path: Path, tiny_model: Path, endless: Path) -> None:
    noon = f"Etc/GMT{time.gmtime().tm_hour - 12:+d}"  # where it is about noon: the day must not change meanwhile
    config = configure(tmp_path, tiny_model, {"gate": endless}, compliance={"report": "day"}, site={"time_zone": noon})
    for _ in range(2):  # also after a restart
        runtime = Runtime(load_settings(config))
        yesterday = Key(int((time.time() - 86400) // 900 * 900), "gate", "default", "")
        runtime.compliance.store.write({yesterday: Count(1, 0)}, {}, 0)
        runtime.start()
        runtime.stop()  # writes, and then looks whether a report is due
    [report] = delivered(tmp_path, "compliance_report")
    assert report["period"] == "day" and "<h1>Compliance of the day</h1>" in report["html"]
    assert report["schema_version"] == 2 and set(report["figures"][0]) == {"camera", "rule", "zone", "compliant", "violations"}
