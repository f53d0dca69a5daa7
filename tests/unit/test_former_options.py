"""Options that were renamed in 0.2: the old names still work, the help shows the new ones."""

from collections.abc import Callable

import pytest
from typer.main import get_command

from ppe_yolo.azure.lint.own_commands import refuse_call
from ppe_yolo.cli import app

COMMANDS = [
    ("--images", "--photos", ["benchmark", "metrics"], "5"),
    ("--images", "--photos", ["quantize", "a.onnx", "--calibration", "DIR", "--out", "b.onnx"], "5"),
    ("--images", "--pictures", ["evaluate", "a.ckpt", "--data", "DIR", "--out", "OUT"], "5"),
    ("--operating-point", "--alarm-thresholds", ["export", "a.ckpt", "--out", "a.onnx"], "FILE"),
]


@pytest.mark.parametrize(("new", "old", "call", "value"), COMMANDS)
def test_former_option_is_accepted_by_command_and_lint(new: str, old: str, call: list[str], value: str) -> None:
    commands = get_command(app)
    for name in (new, old):
        assert refuse_call([*call, name, value], commands) is None
    assert refuse_call([*call, f"{old}s-of-old", value], commands) is not None


def test_former_option_reaches_the_command(run_cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("benchmark", "metrics", "--photos", 0) == 2
    assert "--images" in capsys.readouterr().err
    assert run_cli("evaluate", "--help") == 0
    shown = capsys.readouterr().out
    assert "--images" in shown and "--pictures" not in shown
