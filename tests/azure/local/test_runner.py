"""Local runs of a pipeline of shell commands: order, bindings, resuming, skipped steps, failures."""

import fcntl
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from ppe_yolo.azure.lint.linter import load_checked_pipeline

RunCli = Callable[..., int]
Toy = Callable[..., Path]
SCHEMA = "https://azuremlschemas.azureedge.net/latest"
# counts its executions in a file outside its outputs
COUNT = 'echo ran >> "$COUNTS/first.txt" && echo "${{inputs.word}} $(cat ${{inputs.data}}/a.txt)" > ${{outputs.made}}/text.txt'
UPPER = "tr a-z A-Z < ${{inputs.made}}/text.txt > ${{outputs.result}}/text.txt $[[&& echo ${{inputs.extra}}]]"


def component(name: str, command: str, inputs: str, outputs: str, more: str = "") -> str:
    return (
        f"$schema: {SCHEMA}/commandComponent.schema.json\ntype: command\nname: {name}\ninputs: {inputs}\noutputs: {outputs}\n"
        f"code: .\nenvironment: azureml:any:1\nlimits: {{timeout: 60}}\n{more}command: >-\n  {command}\n"
    )


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: creating its tables takes longer than such a pipeline."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking: str) -> Toy:
    """`toy(first=COMMAND, second=COMMAND)` writes a pipeline of two steps, the second one listed first."""

    def write(first: str = COUNT, second: str = UPPER, settings: str = "") -> Path:
        files: Mapping[str, str] = {
            "first.yml": component(
                "first", first, "{data: {type: uri_folder}, word: {type: string}}", "{made: {type: uri_folder}}", settings
            ),
            "second.yml": component(
                "second",
                second,
                "{made: {type: uri_folder}, extra: {type: string, optional: true}}",
                "{result: {type: uri_folder}}",
            ),
            "pipeline.yml": f"$schema: {SCHEMA}/pipelineJob.schema.json\ntype: pipeline\ncompute: azureml:any\n"
            "inputs: {data: {type: uri_folder, path: ./data}, word: hello}\n"
            "outputs: {result: {type: uri_folder}}\n"
            "jobs:\n"
            "  second:\n    component: ./second.yml\n"
            "    inputs: {made: '${{parent.jobs.first.outputs.made}}'}\n"
            "    outputs: {result: '${{parent.outputs.result}}'}\n"
            "  first:\n    component: ./first.yml\n"
            "    inputs: {data: '${{parent.inputs.data}}', word: '${{parent.inputs.word}}'}\n",
        }
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data/a.txt").write_text("world\n")
        return tmp_path / "pipeline.yml"

    monkeypatch.setenv("COUNTS", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(tmp_path)
    return write


def executions(folder: Path) -> int:
    return len((folder / "first.txt").read_text().splitlines())


def test_run_steps_follow_their_bindings(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    assert run_cli("azureml", "run", toy(), "--local", "--out", "out") == 0
    assert (tmp_path / "out/named-outputs/result/text.txt").read_text() == "HELLO WORLD\n"  # bound to the pipeline's output
    assert (tmp_path / "out/first/named-outputs/made/text.txt").read_text() == "hello world\n"  # not bound
    assert (tmp_path / "out/second/artifacts/user_logs/std_log.txt").read_text() == ""  # the optional part was left out


def test_run_succeeded_step_repeats_only_if_inputs_change(
    toy: Toy, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("azureml", "run", toy(), "--local", "--out", "out")
    assert run_cli(*command) == run_cli(*command) == 0
    assert executions(tmp_path) == 1
    assert "first: already done with the same inputs" in capsys.readouterr().out
    assert run_cli(*command, "--set", "inputs.word=bye") == 0
    assert executions(tmp_path) == 2
    assert (tmp_path / "out/named-outputs/result/text.txt").read_text() == "BYE WORLD\n"
    # nothing is deleted
    assert (tmp_path / "out/named-outputs/result.before-1/text.txt").read_text() == "HELLO WORLD\n"
    printed = capsys.readouterr().out
    assert "first: inputs changed (word), running again" in printed
    assert "second: inputs changed (made), running again" in printed
    (tmp_path / "data/b.txt").write_text("new image\n")
    assert run_cli(*command, "--set", "inputs.word=bye") == 0
    assert executions(tmp_path) == 3


def test_run_step_that_is_not_deterministic_always_runs(
    toy: Toy, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("azureml", "run", toy(settings="is_deterministic: false\n"), "--local", "--out", "out")
    assert run_cli(*command) == run_cli(*command) == 0
    assert executions(tmp_path) == 2
    assert "first: not deterministic, running again" in capsys.readouterr().out


def test_run_failed_step_prints_its_log_and_resumes(
    toy: Toy, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    second = (
        "touch ${{outputs.result}}/begun.txt && echo cause of failure && test -e $COUNTS/fixed && "
        "cp ${{inputs.made}}/text.txt ${{outputs.result}} $[[&& echo ${{inputs.extra}}]]"
    )
    command = ("azureml", "run", toy(second=second), "--local", "--out", "out")
    assert run_cli(*command) == 1
    printed = capsys.readouterr().out
    assert "cause of failure" in printed
    assert "second: failed, exit code 1" in printed.replace("\n", " ")
    assert json.loads((tmp_path / "out/second/job.json").read_text())["status"] == "failed"
    (tmp_path / "fixed").touch()
    assert run_cli(*command) == 0
    assert executions(tmp_path) == 1
    assert (tmp_path / "out/named-outputs/result/begun.txt").exists()  # the outputs of the failed execution are kept
    assert "second: resuming with the outputs of the interrupted run" in capsys.readouterr().out


def test_run_failed_first_step_prevents_the_second(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    first = "echo ${{inputs.word}} ${{inputs.data}} ${{outputs.made}} && exit 3"
    assert run_cli("azureml", "run", toy(first=first), "--local", "--out", "out") == 1
    assert json.loads((tmp_path / "out/first/job.json").read_text())["exit_code"] == 3
    assert not (tmp_path / "out/second/job.json").exists()


def test_run_each_step_has_its_own_mlflow_run(toy: Toy, tmp_path: Path, run_cli: RunCli, tracking: str) -> None:
    from mlflow import MlflowClient

    first = 'echo "$MLFLOW_RUN_ID ${{inputs.word}} ${{inputs.data}}" > ${{outputs.made}}/text.txt'
    assert run_cli("azureml", "run", toy(first=first), "--local", "--out", "out") == 0
    run_id = (tmp_path / "out/first/named-outputs/made/text.txt").read_text().split()[0]
    run = MlflowClient(tracking).get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")


def test_run_two_nodes_get_their_ranks(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    """torchrun sets the same variables as Azure."""
    first = (
        'echo "$RANK $LOCAL_RANK $WORLD_SIZE $AZUREML_NODE_COUNT" > ${{outputs.made}}/text-$RANK.txt && '
        "cp ${{outputs.made}}/text-$RANK.txt ${{outputs.made}}/text.txt && echo ${{inputs.word}} ${{inputs.data}}"
    )
    settings = "distribution: {type: pytorch, process_count_per_instance: 2}\nresources: {instance_count: 2}\n"
    assert run_cli("azureml", "run", toy(first=first, settings=settings), "--local", "--out", "out") == 0
    ranks = [(tmp_path / f"out/first/named-outputs/made/text-{rank}.txt").read_text() for rank in range(4)]
    assert ranks == ["0 0 4 2\n", "1 1 4 2\n", "2 0 4 2\n", "3 1 4 2\n"]


def test_run_second_run_in_same_folder_is_rejected(
    toy: Toy, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = toy()
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_cli("azureml", "run", pipeline, "--local", "--out", "out") == 2
    assert "another run is active in this folder" in capsys.readouterr().err
    assert not (tmp_path / "out/first").exists()


def test_set_accepts_a_file_for_one_step(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    second = "cp ${{inputs.made}}/text.txt ${{outputs.result}}"
    pipeline = toy(second=f"{second} $[[&& cp ${{{{inputs.more}}}} ${{{{outputs.result}}}}]]")
    component = tmp_path / "second.yml"
    component.write_text(component.read_text().replace("extra: {type: string", "more: {type: uri_file"))
    (tmp_path / "notes.txt").write_text("notes\n")
    assert run_cli("azureml", "run", pipeline, "--local", "--out", "out", "--set", "jobs.second.inputs.more=notes.txt") == 0
    assert (tmp_path / "out/named-outputs/result/notes.txt").read_text() == "notes\n"
    assert run_cli("azureml", "run", pipeline, "--local", "--out", "out", "--set", "jobs.second.inputs.more=none.txt") == 2
    # bindings and mappings are kept unchanged
    for given in ("${{parent.jobs.first.outputs.made}}", f"{{type: uri_folder, path: {tmp_path / 'data'}}}"):
        read, _ = load_checked_pipeline(pipeline, [f"jobs.second.inputs.made={given}"])
        assert read.jobs["second"].inputs["made"] == yaml.safe_load(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "inputs.wrod=bye"], "--set inputs.wrod: no such key"),
        (["--set", "word"], "--set: expected KEY=VALUE"),
        (["--set", "inputs.data=/no/such/folder"], "inputs.data: expected data on this machine"),
        (["--set", "inputs.data.path=azureml:photos:1"], "no file below"),
        (["--set", "inputs.data.path=https://host/photos"], "is not on this machine"),
        (["--set", "inputs.word=3"], "expected string, got 3"),
        (["--set", "jobs.first.component=./other.yml"], "no such component file ./other.yml"),
    ],
)
def test_run_user_error_prints_one_line(
    arguments: list[str], message: str, toy: Toy, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("azureml", "run", toy(), "--local", "--out", "out", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_run_without_local_names_the_option(toy: Toy, run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("azureml", "run", toy()) == 2
    assert "--local" in capsys.readouterr().err


def test_run_data_asset_resolves_to_its_declared_folder(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    pipeline = toy()
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/photos.yml").write_text(
        f"$schema: {SCHEMA}/data.schema.json\nname: photos\nversion: 1\ntype: uri_folder\npath: ../elsewhere\n"
    )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.txt").write_text("there\n")
    command = ("azureml", "run", pipeline, "--local", "--out", "out", "--set", "inputs.data=azureml:photos:1")
    assert run_cli(*command) == 0
    assert (tmp_path / "out/named-outputs/result/text.txt").read_text() == "HELLO THERE\n"
