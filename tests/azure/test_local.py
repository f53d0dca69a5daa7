"""A local run on a pipeline of shell commands: order, bindings, what is run again and what is not, the first failure."""

import fcntl
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from ppe_yolo.azure.lint.lint import checked_pipeline

RunCli = Callable[..., int]
Toy = Callable[..., Path]
SCHEMA = "https://azuremlschemas.azureedge.net/latest"
# counts how often it ran, in a file outside of its outputs
COUNT = 'echo ran >> "$COUNTS/first.txt" && echo "${{inputs.word}} $(cat ${{inputs.data}}/a.txt)" > ${{outputs.made}}/text.txt'
UPPER = "tr a-z A-Z < ${{inputs.made}}/text.txt > ${{outputs.result}}/text.txt $[[&& echo ${{inputs.extra}}]]"


def component(name: str, command: str, inputs: str, outputs: str, more: str = "") -> str:
    return (
        f"$schema: {SCHEMA}/commandComponent.schema.json\ntype: command\nname: {name}\ninputs: {inputs}\noutputs: {outputs}\n"
        f"code: .\nenvironment: azureml:any:1\n{more}command: >-\n  {command}\n"
    )


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all: making its tables takes longer than such a pipeline."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking: str) -> Toy:
    """`toy(first=COMMAND, second=COMMAND)` writes a pipeline of two steps; the second stands before the first in the file."""

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


def ran(folder: Path) -> int:
    return len((folder / "first.txt").read_text().splitlines())


def test_steps_run_in_the_order_of_their_bindings(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    assert run_cli("azureml", "run", toy(), "--local", "--out", "out") == 0
    assert (tmp_path / "out/named-outputs/result/text.txt").read_text() == "HELLO WORLD\n"  # bound to the pipeline's output
    assert (tmp_path / "out/first/named-outputs/made/text.txt").read_text() == "hello world\n"  # not bound
    assert (tmp_path / "out/second/artifacts/user_logs/std_log.txt").read_text() == ""  # the optional part was left out


def test_what_succeeded_is_not_run_again_unless_its_inputs_are_others(
    toy: Toy, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("azureml", "run", toy(), "--local", "--out", "out")
    assert run_cli(*command) == run_cli(*command) == 0
    assert ran(tmp_path) == 1
    assert "first: done before, with the same inputs" in capsys.readouterr().out
    assert run_cli(*command, "--set", "inputs.word=bye") == 0
    assert ran(tmp_path) == 2
    assert (tmp_path / "out/named-outputs/result/text.txt").read_text() == "BYE WORLD\n"
    # nothing is deleted
    assert (tmp_path / "out/named-outputs/result.before-1/text.txt").read_text() == "HELLO WORLD\n"
    printed = capsys.readouterr().out
    assert "first: not as before (word), starts anew" in printed
    assert "second: not as before (made), starts anew" in printed
    (tmp_path / "data/b.txt").write_text("new photo\n")
    assert run_cli(*command, "--set", "inputs.word=bye") == 0
    assert ran(tmp_path) == 3


def test_the_first_failure_stops_with_its_log_and_a_restart_goes_on_there(
    toy: Toy, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    second = (
        "touch ${{outputs.result}}/begun.txt && echo what went wrong && test -e $COUNTS/mended && "
        "cp ${{inputs.made}}/text.txt ${{outputs.result}} $[[&& echo ${{inputs.extra}}]]"
    )
    command = ("azureml", "run", toy(second=second), "--local", "--out", "out")
    assert run_cli(*command) == 1
    printed = capsys.readouterr().out
    assert "what went wrong" in printed
    assert "second: failed, exit code 1" in printed.replace("\n", " ")
    assert json.loads((tmp_path / "out/second/job.json").read_text())["status"] == "failed"
    (tmp_path / "mended").touch()
    assert run_cli(*command) == 0
    assert ran(tmp_path) == 1
    assert (tmp_path / "out/named-outputs/result/begun.txt").exists()  # it was given what it had left
    assert "second: goes on with what it left" in capsys.readouterr().out


def test_a_failed_first_step_keeps_the_second_from_starting(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    first = "echo ${{inputs.word}} ${{inputs.data}} ${{outputs.made}} && exit 3"
    assert run_cli("azureml", "run", toy(first=first), "--local", "--out", "out") == 1
    assert json.loads((tmp_path / "out/first/job.json").read_text())["exit_code"] == 3
    assert not (tmp_path / "out/second/job.json").exists()


def test_each_step_has_a_run_of_its_own_in_mlflow(toy: Toy, tmp_path: Path, run_cli: RunCli, tracking: str) -> None:
    from mlflow import MlflowClient

    first = 'echo "$MLFLOW_RUN_ID ${{inputs.word}} ${{inputs.data}}" > ${{outputs.made}}/text.txt'
    assert run_cli("azureml", "run", toy(first=first), "--local", "--out", "out") == 0
    told = (tmp_path / "out/first/named-outputs/made/text.txt").read_text().split()[0]
    run = MlflowClient(tracking).get_run(told)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")


def test_two_nodes_of_two_processes(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    """torchrun tells every process its place, as Azure does."""
    first = (
        'echo "$RANK $LOCAL_RANK $WORLD_SIZE $AZUREML_NODE_COUNT" > ${{outputs.made}}/text-$RANK.txt && '
        "cp ${{outputs.made}}/text-$RANK.txt ${{outputs.made}}/text.txt && echo ${{inputs.word}} ${{inputs.data}}"
    )
    settings = "distribution: {type: pytorch, process_count_per_instance: 2}\nresources: {instance_count: 2}\n"
    assert run_cli("azureml", "run", toy(first=first, settings=settings), "--local", "--out", "out") == 0
    told = [(tmp_path / f"out/first/named-outputs/made/text-{rank}.txt").read_text() for rank in range(4)]
    assert told == ["0 0 4 2\n", "1 1 4 2\n", "2 0 4 2\n", "3 1 4 2\n"]


def test_a_second_run_in_the_same_folder_is_refused(
    toy: Toy, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = toy()
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_cli("azureml", "run", pipeline, "--local", "--out", "out") == 2
    assert "another run is at work there" in capsys.readouterr().err
    assert not (tmp_path / "out/first").exists()


def test_files_can_be_given_to_a_step_alone(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
    second = "cp ${{inputs.made}}/text.txt ${{outputs.result}}"
    pipeline = toy(second=f"{second} $[[&& cp ${{{{inputs.more}}}} ${{{{outputs.result}}}}]]")
    component = tmp_path / "second.yml"
    component.write_text(component.read_text().replace("extra: {type: string", "more: {type: uri_file"))
    (tmp_path / "notes.txt").write_text("notes\n")
    assert run_cli("azureml", "run", pipeline, "--local", "--out", "out", "--set", "jobs.second.inputs.more=notes.txt") == 0
    assert (tmp_path / "out/named-outputs/result/notes.txt").read_text() == "notes\n"
    assert run_cli("azureml", "run", pipeline, "--local", "--out", "out", "--set", "jobs.second.inputs.more=none.txt") == 2
    # what is bound stays bound, and a whole mapping is taken as it is
    for given in ("${{parent.jobs.first.outputs.made}}", f"{{type: uri_folder, path: {tmp_path / 'data'}}}"):
        read, _ = checked_pipeline(pipeline, [f"jobs.second.inputs.made={given}"])
        assert read.jobs["second"].inputs["made"] == yaml.safe_load(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "inputs.wrod=bye"], "--set inputs.wrod: "),
        (["--set", "word"], "--set: expected KEY=VALUE"),
        (["--set", "inputs.data=/no/such/folder"], "inputs.data: expected data on this machine"),
        (["--set", "inputs.data.path=azureml:photos:1"], "no file below"),
        (["--set", "inputs.data.path=https://host/photos"], "is not on this machine"),
        (["--set", "inputs.word=3"], "expected string, got 3"),
        (["--set", "jobs.first.component=./other.yml"], "no such component file ./other.yml"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], message: str, toy: Toy, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("azureml", "run", toy(), "--local", "--out", "out", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_local_it_says_what_to_do(toy: Toy, run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("azureml", "run", toy()) == 2
    assert "--local" in capsys.readouterr().err


def test_data_of_the_workspace_is_found_by_the_file_that_declares_it(toy: Toy, tmp_path: Path, run_cli: RunCli) -> None:
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
