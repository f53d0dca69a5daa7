"""`python -m ppe_edge.reference > edge/REFERENCE.md`: all settings, messages, metrics and commands of the box, as Markdown.

The settings are read from the JSON schema of `EdgeSettings`, so that the document cannot name one that does not exist.
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from ppe_edge.__main__ import build_parser
from ppe_edge.config import LIVE_FIELDS, EdgeSettings
from ppe_edge.delivery.messages import Message
from ppe_edge.monitoring.telemetry import CameraFigures, Collected, SinkFigures, Telemetry

_HEAD = """# Reference of the box

Written by `python -m ppe_edge.reference`; do not edit it. [README.md](README.md) explains how to use the box.

## Settings

In edge.yaml, a dot is a level of indentation. As an environment variable, `web.token` is `PPE_EDGE__WEB__TOKEN`. NAME is a name
of your choice: lower-case letters, digits, `-` and `_`. Live: `reload` and the module twin change the setting while the box
runs. The other settings need a restart, and the twin cannot change them.
"""
# Words of the JSON schema, and what people read.
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text", "null": ""}
_FORMATS = {"password": "text, secret", "path": "path", "date": "date"}
_LIMITS = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "up to", "exclusiveMaximum": "below"}
_UNITS = {
    "_s": "s",
    "seconds": "s",
    "_mb": "MB",
    "_days": "days",
    "max_bytes": "bytes",
    "fps": "frames per s",
    "_side": "pixels",
}

_Schema = Mapping[str, Any]


def setting_names() -> set[str]:
    """Returns all settings and sections, such as `cameras.NAME.fps`."""
    return {name for name, _, _ in _settings()}


def reference() -> str:
    """Returns the document."""
    return "\n".join([_HEAD, *_setting_tables(), _messages(), _metrics(), *_commands()])


def _commands() -> Iterator[str]:
    yield "\n## Commands"
    parser = build_parser()
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for command in (parser, *commands.choices.values()):
        actions = [
            action for action in command._actions if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
        ]
        rows = [
            f"| `{_usage(action)}` | {' '.join((action.help or '').split()).replace('|', '&#124;')} |" for action in actions
        ]
        yield f"\n### `{command.prog}`\n\n{command.description}"
        if rows:
            yield "\n".join(["\n| argument | meaning |", "|---|---|", *rows])


def _usage(action: argparse.Action) -> str:
    """An option with the name of its value, or the name of an argument."""
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return " ".join([*action.option_strings, *([] if action.nargs == 0 else [name])])


def _settings() -> Iterator[tuple[str, _Schema, str | None]]:
    """Yields the name and schema of each setting, and the model that describes the settings below it; None if it has none."""
    schema = EdgeSettings.model_json_schema()

    def below(model: _Schema, prefix: str) -> Iterator[tuple[str, _Schema, str | None]]:
        required = model.get("required", ())
        for key, field in model["properties"].items():
            name, inner = f"{prefix}{key}", field.get("additionalProperties")
            holds = _reference(inner) if isinstance(inner, Mapping) else _reference(field)
            yield name, {**field, "is_required": key in required}, holds
            if holds is not None:
                yield from below(schema["$defs"][holds], f"{name}.NAME." if inner else f"{name}.")

    yield from below(schema, "")


def _reference(field: _Schema) -> str | None:
    """Returns the name of the model that a field holds."""
    for option in (field, *field.get("anyOf", ())):
        if "$ref" in option:
            return str(option["$ref"]).rpartition("/")[2]
    return None


def _setting_tables() -> Iterator[str]:
    """Yields a table per model. Settings that occur in several places share the table of the shortest name."""
    definitions = EdgeSettings.model_json_schema()["$defs"]
    settings = list(_settings())
    places: dict[str, list[str]] = {"": [""]}  # model -> prefixes of its settings
    for name, field, model in settings:
        if model:
            places.setdefault(model, []).append(f"{name}.NAME" if "additionalProperties" in field else name)
    for model, prefixes in places.items():
        prefix, *others = sorted(prefixes, key=len)
        if model:
            yield f"\n### `{prefix}`\n\n{_cell(definitions[model].get('description', ''))}\n"
        if others:
            yield f"The same settings exist in {', '.join(f'`{place}`' for place in others)}.\n"
        yield "| setting | values | default | meaning | live |\n|---|---|---|---|---|"
        for name, field, inner in settings:
            if name.rpartition(".")[0] == prefix:
                live = "yes" if name.partition(".")[0] in LIVE_FIELDS else "no"
                meaning = _cell(field.get("description") or definitions[inner]["description"])
                yield f"| `{name}` | {_values(name, field, inner)} | {_default(field, inner)} | {meaning} | {live} |"


def _values(name: str, field: _Schema, inner: str | None) -> str:
    if inner:
        return "see below"
    options = [_type(option) for option in field.get("anyOf", (field,))]
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)
    return _cell(" or ".join(filter(None, options)) + (f" ({unit})" if unit else ""))


def _type(field: _Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "prefixItems" in field:
        return "pairs of numbers"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object":
        inner = field["additionalProperties"]
        key = _FORMATS.get(field.get("propertyNames", {}).get("format", ""), "name")
        return f"{key}: " + " or ".join(filter(None, map(_type, inner.get("anyOf", (inner,)))))
    text = _FORMATS.get(field.get("format", "")) or _TYPES[field["type"]]
    limits = [f"{word} {field[key]:.10g}" for key, word in _LIMITS.items() if key in field]
    if "minLength" in field and field["minLength"] > 1:
        limits.append(f"of {field['minLength']} characters or more")
    return " ".join([text, *limits])


def _default(field: _Schema, model: str | None) -> str:
    if field["is_required"]:
        return "required"
    default = field.get("default")
    if model or default in (None, "", {}, []):
        return "-"
    text = str(default).lower() if isinstance(default, bool) else f"{default:.10g}" if isinstance(default, float) else default
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _messages() -> str:
    common = ["schema_version", "id", "time", "redelivered", "kind"]
    lines = [
        f"\n## Messages\n\nEvery message has {', '.join(f'`{name}`' for name in common)}. "
        "[alert.schema.json](ppe_edge/delivery/alert.schema.json) describes all fields.\n",
        "| kind | meaning | further fields |\n|---|---|---|",
    ]
    for message in get_args(Message):
        fields = [f"`{field.alias or name}`" for name, field in message.model_fields.items() if name not in common]
        meaning = " ".join((message.__doc__ or "").split())
        lines.append(f"| `{message.model_fields['kind'].default}` | {_cell(meaning)} | {', '.join(fields)} |")
    return "\n".join(lines)


def _metrics() -> str:
    example = CameraFigures(
        state="live", frames=0, dropped=0, reconnects=0, errors=0, age=0.0, rate=0.0, required_rate=0.0, score_drift=0.0
    )
    sink = SinkFigures(waiting=0, set_aside=0)
    telemetry = Telemetry(Collected(lambda: {"": example}, lambda: {"": sink}, lambda: True))
    telemetry.set_model("", "")
    t = telemetry
    for counter, labels in ((t.processed, 1), (t.alerts, 2), (t.verdicts, 2), (t.faults, 1), (t.changes, 1)):
        counter.labels(*[""] * labels)  # a metric shows its labels from its first value on
    lines = [
        "\n## Metrics\n\n`/metrics`, in the text format of Prometheus.\n",
        "| metric | kind | labels | meaning |\n|---|---|---|---|",
    ]
    for family in sorted(telemetry.registry.collect(), key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        names = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        lines.append(f"| `{name}` | {family.type} | {', '.join(names)} | {_cell(family.documentation)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(reference())
