"""Every `az` command of the pipelines, scripts, files and manuals is accepted by the parser of azure-cli.

The commands of the extensions ml and azure-iot are compared with a list of their options, since a package registry has neither.
"""

import re
import shlex
from typing import Any

import pytest
import yaml
from documents import PAGES, ROOT

YAML = sorted((ROOT / "azureml").rglob("*.yml"))
TEXTS = [*sorted((ROOT / "azureml").rglob("*.sh")), *(ROOT / page for page in PAGES)]
GLOBAL = {"--output", "--query", "--resource-group", "--workspace-name", "--only-show-errors"}
HUB = {"--hub-name", "--auth-type", "--login"}
DPS = {"--dps-name", "--auth-type", "--login", "--enrollment-id"}
# from learn.microsoft.com/cli/azure/ml and azext_iot/_params.py of azure-iot-cli-extension
EXTENSIONS = {
    "ml data show": {"--name", "--version", "--label"},
    "ml data create": {"--name", "--version", "--type", "--path", "--file", "--description", "--set"},
    "ml environment create": {"--name", "--version", "--file", "--image", "--conda-file", "--set"},
    "ml component list": {"--name"},
    "ml component create": {"--name", "--version", "--file", "--set"},
    "ml compute create": {"--file", "--name", "--type", "--size", "--identity-type", "--user-assigned-identities"},
    "ml compute list-sizes": {"--location", "--type"},
    "ml compute show": {"--name"},
    "ml job create": {"--file", "--name", "--set", "--stream", "--web"},
    "ml job cancel": {"--name"},
    "ml model list": {"--name", "--registry-name", "--stage"},
    "ml schedule create": {"--file", "--name", "--set", "--no-wait"},
    "ml schedule disable": {"--name", "--no-wait"},
    "ml workspace show": {"--name"},
    "iot hub query": {*HUB, "--query-command", "--top"},
    "iot hub module-twin update": HUB | {"--device-id", "--module-id", "--desired", "--tags"},
    "iot edge deployment list": HUB | {"--top"},
    "iot edge deployment create": {*HUB, "--deployment-id", "--content", "--target-condition", "--priority", "--labels"},
    "iot edge deployment delete": HUB | {"--deployment-id"},
    "iot edge deployment show-metric": HUB | {"--deployment-id", "--metric-id", "--metric-type"},
    "iot dps enrollment-group create": DPS | {"--edge-enabled", "--initial-twin-tags", "--primary-key", "--secondary-key"},
    "iot dps enrollment-group list": DPS - {"--enrollment-id"},
    "iot dps enrollment-group compute-device-key": DPS | {"--registration-id", "--key"},
}


def commands_in(text: str) -> list[list[str]]:
    """The words after each `az`. Variables and substitutions become one word, arrays the words that they were given."""
    text = re.sub(r"\\\n\s*#?", " ", text)
    arrays = dict(re.findall(r"\b(\w+)=\(([^)]*)\)", text))
    text = re.sub(r'"\$\{(\w+)\[@\]\}"', lambda m: arrays[m[1]], text)
    text = re.sub(r"\$\((?!az )[^()]*\)|\$\{?\w+\}?|\$@", "7", text)
    found = []
    for match in re.finditer(r"(?:^|[\s`(;{|&])az (?=[a-z])", text):
        # up to the end of the command: an operator, a closing quote of a document, or the end of the line
        rest = re.split(r"[`\n]|\s\|\|?\s|\s&&\s|;|\)(?=\s|$|\"|,)", text[match.end() :], maxsplit=1)[0]
        try:
            words = shlex.split(rest)
        except ValueError:  # the quote that closes a substitution: "$(az ... --output tsv)"
            words = shlex.split(rest.rpartition('"')[0])
        if words and re.fullmatch(r"[a-z-]+", words[0]) and words[0] not in ("with", "that"):
            found.append(words)
    return found


def all_commands() -> list[tuple[str, list[str]]]:
    found = []
    for file in (*YAML, *TEXTS):
        texts = [file.read_text()]
        if "devops" in file.parts and file.suffix == ".yml":
            texts = [str(s) for s in inline_scripts(yaml.safe_load(texts[0]))]
        found += [(file.name, words) for text in texts for words in commands_in(text)]
    return found


def inline_scripts(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node[key] for key in ("bash", "inlineScript") if key in node]
        return own + [script for child in node.values() for script in inline_scripts(child)]
    return [script for child in node for script in inline_scripts(child)] if isinstance(node, list) else []


COMMANDS = all_commands()


def name_of(words: list[str]) -> str:
    return " ".join(words[: next((n for n, word in enumerate(words) if word.startswith("-")), len(words))])


def test_commands_are_found_in_every_kind_of_file() -> None:
    files = {file for file, _ in COMMANDS}
    assert {"mlops.yml", "infra.yml", "roll_out.sh", "set_up.sh", "onboard.sh", "README.md", "gpu-cluster.yml"} <= files
    assert len(COMMANDS) > 25


def test_commands_of_extensions_have_known_options() -> None:
    for file, words in COMMANDS:
        name = name_of(words)
        if words[0] == "ml" or name in EXTENSIONS:
            assert name in EXTENSIONS, f"{file}: az {name}"
            unknown = {w for w in words if w.startswith("--")} - EXTENSIONS[name] - GLOBAL
            assert not unknown, f"{file}: az {name}: {unknown}"


class ParsedError(Exception):
    """Stops azure-cli after it has parsed a command."""


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Any:
    core = pytest.importorskip("azure.cli.core", reason="azure-cli is not installed; .ci/checks installs it")
    from knack.events import EVENT_INVOKER_POST_PARSE_ARGS

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_CONFIG_DIR", str(tmp_path_factory.mktemp("azure")))
        patch.setenv("AZURE_CORE_COLLECT_TELEMETRY", "no")
        patch.setenv("AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no")
        cli = core.get_default_cli()

        def stop(_: Any, **given: Any) -> None:
            raise ParsedError(given["command"])

        cli.register_event(EVENT_INVOKER_POST_PARSE_ARGS, stop)

        def run(words: list[str]) -> None:
            cli.invocation = cli.invocation_cls(
                cli_ctx=cli, parser_cls=cli.parser_cls, commands_loader_cls=cli.commands_loader_cls, help_cls=cli.help_cls
            )
            cli.invocation.execute(words)

        yield run


def test_commands_of_azure_cli_are_accepted_by_its_parser(parse: Any) -> None:
    own = [(file, words) for file, words in COMMANDS if words[0] != "ml" and name_of(words) not in EXTENSIONS]
    assert {"storage blob download-batch", "deployment group create", "acr login"} <= {name_of(words) for _, words in own}
    for file, words in own:
        try:
            parse(words)
        except ParsedError:
            continue
        except SystemExit:
            pytest.fail(f"{file}: azure-cli rejects az {' '.join(words)}")


def test_parser_rejects_a_misspelt_option(parse: Any) -> None:
    with pytest.raises(SystemExit):
        parse(["storage", "blob", "download-batch", "--sorce", "photos", "--destination", "x"])
