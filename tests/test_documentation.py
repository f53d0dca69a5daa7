"""The documentation names only what exists: commands, options, files, links, settings, messages.

Commands are parsed by the real parsers here. test_documented_commands.py runs them, integration/test_readme_snippets.py the
Python snippets.
"""

import ast
import contextlib
import io
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import pytest
import typer
import yaml
from documents import PAGES, ROOT, blocks, commands, spelled_out
from ppe_edge import __main__ as box
from ppe_edge.benchmark import __main__ as benchmark
from ppe_edge.cameras.camera import EventKind
from ppe_edge.config import load_settings
from ppe_edge.delivery.messages import StorageProblem
from ppe_edge.delivery.sinks import escalate, notify
from ppe_edge.demo import command as demo
from ppe_edge.reference import setting_names
from ppe_edge.scoring import command as score

from ppe_yolo.cli import app
from ppe_yolo.reference import reference
from ppe_yolo.training.arguments import underscored
from ppe_yolo.training.fit import fit

MANUAL = ROOT / "edge" / "README.md"
FOLDERS = ("ppe_yolo", "edge", "azureml", "tests", "scripts", ".ci", ".github")


ALL = [(page, words) for page in PAGES for words in commands(page)]


def given(*start: str) -> list[object]:
    """The commands that start with these words, as test parameters with a readable id."""
    return [
        pytest.param(words[len(start) :], id=f"{page}: {' '.join(words)[:70]}")
        for page, words in ALL
        if tuple(words[: len(start)]) == start
    ]


def test_pages_hold_commands_of_every_kind() -> None:
    for start in (("ppe-yolo",), ("ppe-edge",), ("pip", "install"), ("python", "-m", "ppe_edge.benchmark")):
        assert given(*start), start


@pytest.mark.parametrize("words", given("ppe-yolo"))
def test_ppe_yolo_command_is_accepted_by_its_parser(words: list[str]) -> None:
    words = spelled_out(words)
    if words[0] == "fit":
        assert "\ndata:\n" in printed_by_fit([*words[1:], "--print_config"])
        return
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
    command.make_context(command.name, words)


def printed_by_fit(arguments: list[str]) -> str:
    """Parses arguments of `ppe-yolo fit` and returns what it prints, for options with which it does not train."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as ended:
        fit(arguments)
    assert not ended.value.code
    return text.getvalue()


@pytest.mark.parametrize("words", given("ppe-edge"))
def test_ppe_edge_command_is_accepted_by_its_parser(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "_run", lambda *arguments: 0)
    monkeypatch.setattr(score, "run", lambda options: 0)
    monkeypatch.setattr(demo, "run", lambda: 0)
    assert box.main(spelled_out(words)) == 0


@pytest.mark.parametrize("words", given("python", "-m", "ppe_edge.benchmark"))
def test_benchmark_command_is_accepted_by_its_parser(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_clip", "_print_cameras", "_print_cost", "write_configuration"):
        monkeypatch.setattr(benchmark, name, lambda *arguments: Path("unused"))
    assert benchmark.main(spelled_out(words)) == 0


def test_reference_of_commands_is_what_the_code_generates() -> None:
    assert (ROOT / "ppe_yolo" / "REFERENCE.md").read_text() == reference() + "\n", (
        "run: python -m ppe_yolo.reference > ppe_yolo/REFERENCE.md"
    )


def test_installed_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"\.\[(\w+)\]'", "".join((ROOT / page).read_text() for page in PAGES)))
    assert {"dev", "blob", "registry"} <= named <= extras.keys()


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(rf"(?<![\w/.<-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w", text))
    named -= {"edge/model/model.onnx", "azureml/schedules/NAME.yml"}  # the user's own, and a placeholder
    assert not [name for name in named if not list(ROOT.glob(f"{name}*"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = unquote(target).partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_a_text_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"`(--[\w.-]+)", text)
    assert not [name for name in named if not {name, *underscored([name])} & all_options()]


@cache
def all_options() -> frozenset[str]:
    """The options of all commands of the library and the box, and those of other programs that pages name."""
    found = set(re.findall(r"(--[\w.]+)", printed_by_fit(["--help"])))
    groups = [typer.main.get_command(app)]
    for command in groups:
        groups += getattr(command, "commands", {}).values()
        found |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for file in (
        "edge/ppe_edge/__main__.py",
        "edge/ppe_edge/scoring/options.py",
        "edge/fill_manifest.py",
        "tests/edge/chaos.py",
    ):
        found |= set(re.findall(r'"(--[\w-]+)"', (ROOT / file).read_text()))
    return frozenset(found | {"--help", "--ckpt-path", "--restart", "--set"})


# The box


def configurations() -> Iterator[dict[str, object]]:
    for block in blocks(MANUAL.read_text()):
        if block.language == "yaml":
            yield yaml.safe_load("\n".join(block.lines))


@pytest.mark.parametrize("number", range(len(list(configurations()))))
def test_configuration_in_the_manual_is_valid(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sink in (notify, escalate):
        monkeypatch.setenv(sink.URLS_VARIABLE, "json://127.0.0.1")  # as the manual says
    whole = {"model": {"path": "model.onnx"}, "state_dir": "state", "cameras": {"gate": {"source": "rtsp://192.0.2.10/"}}}
    file = tmp_path / "edge.yaml"
    file.write_text(yaml.safe_dump(whole | list(configurations())[number]))
    load_settings(file)


def test_settings_named_in_the_manual_exist() -> None:
    names = {name.replace(".NAME", "") for name in setting_names()}
    tops = {name for name in names if "." not in name}
    spans = re.findall(r"`([a-z]\w*(?:\.\w+)+)(?:[:`])", MANUAL.read_text())
    files = (".onnx", ".db", ".json")
    named = {span.replace(".NAME", "") for span in spans if span.partition(".")[0] in tops and not span.endswith(files)}
    assert len(named) > 10
    assert named <= names


def test_manual_explains_every_camera_and_storage_event() -> None:
    explained = set(re.findall(r"`(\w+)`", MANUAL.read_text()))
    assert set(get_args(EventKind)) <= explained
    assert set(get_args(StorageProblem)) <= explained


def test_messages_quoted_in_the_manual_are_those_of_the_box() -> None:
    texts = "\n".join(strings())
    trouble = MANUAL.read_text().partition("## Troubleshooting")[2]
    cells = [line.split(" | ")[0] for line in trouble.splitlines() if line.startswith("| ")]
    quotes = [quote for cell in cells for quote in re.findall("`([^`]+)`", cell)]
    phrases = [part.strip() for quote in quotes if " " in quote for part in quote.split("…")]
    foreign = {"401 Unauthorized"}  # of libav
    assert len(phrases) > 30
    assert not [phrase for phrase in phrases if phrase not in foreign and phrase not in texts]


def strings() -> Iterator[str]:
    """Yields all string constants of the box, and the constant parts of its f-strings."""
    for folder in ("edge/ppe_edge", "ppe_yolo/core"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
