"""Class maps: the packaged ones by their content, and the user's own."""

from collections import Counter
from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage, AnnotatedObject
from ppe_yolo.data.class_map import load_class_map, packaged_names

HELMETS = dict.fromkeys(("yellow", "white", "blue", "red"), "helmet")
PACKAGED = {
    "default": ({"helmet": "helmet", "none": "none"}, set()),
    "shwd": ({"hat": "helmet", "person": "none"}, set()),
    "gdut-hwd": ({**HELMETS, "none": "none"}, set()),
    "hard-hat-workers": ({"helmet": "helmet", "head": "none"}, {"person"}),
    "shwd+gdut-hwd": ({**HELMETS, "hat": "helmet", "person": "none", "none": "none"}, set()),
}


def test_every_packaged_map_is_known_here() -> None:
    assert packaged_names() == sorted(PACKAGED)


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_maps(name: str) -> None:
    class_map = load_class_map(name)
    mapping, ignored = PACKAGED[name]
    assert class_map.class_names == ("helmet", "none")
    assert (dict(class_map.mapping), class_map.ignored) == (mapping, ignored)


def test_the_default() -> None:
    assert load_class_map() == load_class_map("default")


def test_apply_renames_and_leaves_out() -> None:
    objects = tuple(AnnotatedObject(n, (1, 2, 3, 4), n == "head") for n in ("head", "person", "helmet"))
    mapped = load_class_map("hard-hat-workers").apply(AnnotatedImage("a.jpg", objects, Path("a.xml"), "a"))
    assert mapped.objects == (AnnotatedObject("none", (1, 2, 3, 4), True), AnnotatedObject("helmet", (1, 2, 3, 4)))


def test_an_unknown_name_lists_all_names_with_counts() -> None:
    with pytest.raises(UserError) as refused:
        load_class_map("default").check(Counter({"helmet": 12, "Helmat": 1, "xylo q": 3}), "/data/site")
    message = str(refused.value)
    assert message.startswith("/data/site: class map default does not mention the name 'Helmat'")
    assert "did you mean 'helmet'?" in message
    assert "does not mention the name 'xylo q' (it knows helmet, none)." in message
    assert "Names found, with counts: 'helmet' 12, 'xylo q' 3, 'Helmat' 1." in message
    assert "--class-map (default, gdut-hwd, hard-hat-workers, shwd, shwd+gdut-hwd) or write your own YAML" in message
    load_class_map("default").check(Counter({"helmet": 12, "none": 1}), "/data/site")


def test_person_alone_by_the_users_yaml(make_voc, run_cli, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", {f"p{i}": [("person", (2, 3, 30, 40)), ("helmet", (5, 5, 15, 15))] for i in range(3)})
    (tmp_path / "person.yaml").write_text("class_names: [person]\nmap: {person: person}\nignore: [helmet]\n")
    assert run_cli("list", root, "--out", tmp_path / "out", "--class-map", tmp_path / "person.yaml") == 0
    lines = [line for path in (tmp_path / "out").iterdir() for line in path.read_text().splitlines()]
    assert [line.partition(" ")[2] for line in lines] == ["2,3,30,40,person"] * 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("class_names: [a", "cannot be read as YAML"),
        ("just words", "expected the keys class_names, map and perhaps ignore, got str"),
        ("class_names: [a]", "expected the keys class_names, map and perhaps ignore, got class_names"),
        ("class_names: [a]\nmap: {a: a}\nextra: 1", "got class_names, map, extra"),
        ("class_names: a\nmap: {a: a}", "must be lists, map must be name: class"),
        ("class_names: [a]\nmap: [a]", "must be lists, map must be name: class"),
        ("class_names: [a]\nmap: {a: a}\nignore: b", "must be lists, map must be name: class"),
        ("class_names: [no]\nmap: {a: a}", "expected names in text, got False: put it in quotes"),
        ("class_names: [a]\nmap: {1: a}", "expected names in text, got 1: put it in quotes"),
        ("class_names: []\nmap: {}", "must be different names, at least one, got []"),
        ("class_names: [a, a]\nmap: {a: a}", "must be different names, at least one, got ['a', 'a']"),
        ("class_names: [a]\nmap: {b: c}", "'b' is mapped to 'c', which is none of class_names ['a']"),
        ("class_names: [a]\nmap: {a: a}\nignore: [a]", "['a'] cannot be both mapped and ignored"),
        ("class_names: [a, b]\nmap: {x: a, y: b, x: b}", "['x'] is given more than once"),
    ],
)
def test_refusals(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_class_map(path)
    assert str(refused.value).startswith(f"class map {path}: ")
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_neither_name_nor_file() -> None:
    with pytest.raises(UserError, match=r"expected one of default, .* or a YAML file, got 'swhd'"):
        load_class_map("swhd")
