"""Triggers of a retraining: --only-if."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ppe_yolo.azure.trigger import Trigger
from ppe_yolo.core.errors import UserError

PIPELINE = Path(__file__).resolve().parents[2] / "azureml/pipeline.yml"


def test_trigger_compares_the_figure_with_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "samples.json"
    file.write_text('{"unsure_share": 0.25, "classes": {"none": {"recall": 0.7}}}')
    assert Trigger.parse(f"{file}:unsure_share>0.2").holds()
    assert not Trigger.parse(f"{file}:unsure_share>0.25").holds()
    assert Trigger.parse(f"{file}:classes.none.recall<0.8").holds()
    assert Trigger.parse(f"{file}:classes.none.recall<0.8").name == "classes.none.recall<0.8"
    with pytest.raises(UserError, match=r"expected a number classes.helmet.recall, got None"):
        Trigger.parse(f"{file}:classes.helmet.recall<0.8").holds()
    with pytest.raises(UserError, match="expected FILE:KEY<LIMIT"):
        Trigger.parse("samples.json>0.2")


def test_submit_command_without_a_figure_beyond_its_limit_asks_no_workspace(
    tmp_path: Path, run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "samples.json").write_text('{"unsure_share": 0.1}')
    assert run_cli("azureml", "submit", str(PIPELINE), "--only-if", f"{tmp_path}/samples.json:unsure_share>0.2") == 0
    assert "not submitted" in capsys.readouterr().out
