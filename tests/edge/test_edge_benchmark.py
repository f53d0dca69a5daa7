"""The benchmark runs the box as it is, in processes of its own, and prints what the limits are about."""

import re
from pathlib import Path

import pytest
from ppe_edge import benchmark

ROOT = Path(__file__).parents[2]


def test_it_prints_the_whole_path_beside_the_bare_run(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'edge'}:{ROOT}")
    monkeypatch.setattr(benchmark, "STARTS", 1)
    assert benchmark.main([str(tiny_model), "--rounds", "2"]) == 0
    text = capsys.readouterr().out
    for line in (
        r"bare session\.run +\d+\.\d+ ms",
        r"whole path of a frame +\d+\.\d+ ms +\d+\.\d+ x the bare run, 2 rounds",
        r"  detect +\d+\.\d+ ms",
        r"first detection after +\d+\.\d+ s",
        r"resident memory +[1-9]\d+ MB",
        r"frames 1280x720",
    ):
        assert re.search(line, text), text


def test_a_model_that_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'edge'}:{ROOT}")
    assert benchmark.main(["none.onnx"]) == 2
    assert re.fullmatch(r"error: \S+none\.onnx: expected an ONNX model, got no such file\n", capsys.readouterr().err)
