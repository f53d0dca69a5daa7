"""The pages of the documentation, and the code blocks and commands on them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    *(
        "README.md",
        ".github/CONTRIBUTING.md",
        ".github/SECURITY.md",
        ".github/LICENCES.md",
        "tests/README.md",
        "azureml/README.md",
    ),
    *("edge/README.md", "edge/REFERENCE.md", "ppe_yolo/README.md", "ppe_yolo/GUIDE.md", "ppe_yolo/REFERENCE.md"),
    *("ppe_yolo/weights/README.md", "ppe_yolo/configs/README.md"),
]


class Block(NamedTuple):
    """A code block: its language ("" if none is named), and its lines."""

    language: str
    lines: list[str]


def blocks(text: str) -> Iterator[Block]:
    """Yields fenced and indented code blocks."""
    fence: Block | None = None
    indented: list[str] = []
    for line in [*text.splitlines(), "end"]:
        if line.startswith("```"):
            if fence is not None:
                yield fence
            fence = Block(line[3:], []) if fence is None else None
        elif fence is not None:
            fence.lines.append(line)
        elif line.startswith("    ") or (indented and not line.strip()):
            indented.append(line.removeprefix("    "))
        elif indented:
            yield Block("", indented)
            indented = []


def python_blocks(page: str) -> list[str]:
    """Returns the code of the Python blocks of a page."""
    return ["\n".join(block.lines) for block in blocks((ROOT / page).read_text()) if block.language == "python"]


def commands(page: str) -> Iterator[list[str]]:
    """Yields the words of each command of a page, without variables before it."""
    for block in blocks((ROOT / page).read_text()):
        if block.language not in ("", "sh", "console"):
            continue
        for line in "\n".join(block.lines).replace("\\\n", " ").splitlines():
            if not re.match(r"([A-Z_]+=\S* )*(ppe-yolo|ppe-edge|python|pip) ", line):
                continue
            for part in re.split(r" (?:&&|\|\||\|) ", line):
                words = shlex.split(part, comments=True)
                while words and re.match("[A-Z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield words


def spelled_out(words: list[str]) -> list[str]:
    """With values for placeholders, and without `...` and the brackets around what is optional."""
    found = []
    for word in words:
        word = word.replace(", ...", "")
        if word.startswith("[-") or "[" not in word:
            word = word.removeprefix("[").removesuffix("]")
        found.append({"CHECKPOINT": "helmet-small", "MODEL": "helmet-small", "NAME": "default"}.get(word, word))
    return [word for word in found if word != "..."]
