"""Class maps: the bundled ones by their content, and the user's own."""

from collections import Counter
from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedObject
from ppe_yolo.data.class_map import bundled_names, load_class_map

HELMETS = dict.fromkeys(("yellow", "white", "blue", "red"), "helmet")
PACKAGED = {
    "default": ({"helmet": "helmet", "none": "none"}, set()),
    "shwd": ({"hat": "helmet", "person": "none"}, set()),
    "gdut-hwd": ({**HELMETS, "none": "none"}, set()),
    "hard-hat-workers": ({"helmet": "helmet", "head": "none"}, {"person"}),
    "shwd+gdut-hwd": ({**HELMETS, "hat": "helmet", "person": "none", "none": "none"}, set()),
}


def test_bundled_names_are_complete() -> None:
    assert bundled_names() == sorted(PACKAGED)


@pytest.mark.parametrize("name", PACKAGED)
def test_load_class_map_bundled_maps_have_documented_names(name: str) -> None:
    class_map = load_class_map(name)
    mapping, ignored = PACKAGED[name]
    assert class_map.class_names == ("helmet", "none")
    assert (dict(class_map.mapping), class_map.ignored) == (mapping, ignored)
    assert class_map.display_names == {"none": "bare head"}


def test_load_class_map_without_name_is_default() -> None:
    assert load_class_map() == load_class_map("default")


def test_apply_renames_and_ignores() -> None:
    objects = tuple(AnnotatedObject(n, (1, 2, 3, 4), n == "head") for n in ("head", "person", "helmet"))
    mapped = load_class_map("hard-hat-workers").apply(objects)
    assert mapped == (AnnotatedObject("none", (1, 2, 3, 4), True), AnnotatedObject("helmet", (1, 2, 3, 4)))


def test_check_unknown_name_lists_all_names_with_counts() -> None:
    with pytest.raises(UserError) as raised:
        load_class_map("default").check(Counter({"helmet": 12, "Helmat": 1, "xylo q": 3}), "/data/site")
    assert raised.value.setting == "class_map"
    message = raised.value.describe("--class-map")
    assert message.startswith("--class-map: /data/site: class map default does not mention the name 'Helmat'")
    assert "did you mean 'helmet'?" in message
    assert "does not mention the name 'xylo q' (it knows helmet, none)" in message
    assert "(names in the data, with counts: 'helmet' 12, 'xylo q' 3, 'Helmat' 1):" in message
    assert "class map (default, gdut-hwd, hard-hat-workers, shwd, shwd+gdut-hwd), or write your own YAML file" in message
    load_class_map("default").check(Counter({"helmet": 12, "none": 1}), "/data/site")


def test_user_class_map_with_one_class_is_applied(make_voc, run_cli, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", {f"p{i}": [("person", (2, 3, 30, 40)), ("helmet", (5, 5, 15, 15))] for i in range(3)})
    (tmp_path / "person.yaml").write_text("class_names: [person]\nmap: {person: person}\nignore: [helmet]\n")
    assert run_cli("list", root, "--out", tmp_path / "out", "--class-map", tmp_path / "person.yaml") == 0
    lines = [line for path in (tmp_path / "out").iterdir() for line in path.read_text().splitlines()]
    assert [line.partition(" ")[2] for line in lines] == ["2,3,30,40,person"] * 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("class_names: [a", "cannot be read as YAML"),
        ("just words", "expected the keys class_names and map, and optionally ignore and display_names, got str"),
        ("class_names: [a]", "expected the keys class_names and map, and optionally ignore and display_names, got class_names"),
        ("class_names: [a]\nmap: {a: a}\nextra: 1", "got class_names, map, extra"),
        ("class_names: a\nmap: {a: a}", "must be lists; map and display_names must be mappings"),
        ("class_names: [a]\nmap: [a]", "must be lists; map and display_names must be mappings"),
        ("class_names: [a]\nmap: {a: a}\nignore: b", "must be lists; map and display_names must be mappings"),
        ("class_names: [a]\nmap: {a: a}\ndisplay_names: [b]", "must be lists; map and display_names must be mappings"),
        ("class_names: [no]\nmap: {a: a}", "expected names as text, got False: put it in quotes"),
        ("class_names: [a]\nmap: {1: a}", "expected names as text, got 1: put it in quotes"),
        ("class_names: [a]\nmap: {a: a}\ndisplay_names: {a: 1}", "expected names as text, got 1: put it in quotes"),
        ("class_names: []\nmap: {}", "class_names: expected at least one name, and no name twice, got []"),
        ("class_names: [a, a]\nmap: {a: a}", "class_names: expected at least one name, and no name twice, got ['a', 'a']"),
        ("class_names: [a]\nmap: {b: c}", "map: expected 'b' mapped to one of class_names ['a'], got 'c'"),
        ("class_names: [a]\nmap: {a: a}\nignore: [a]", "['a'] cannot be both mapped and ignored"),
        ("class_names: [a, b]\nmap: {x: a, y: b, x: b}", "duplicate keys ['x']"),
        (
            "class_names: [a]\nmap: {a: a}\ndisplay_names: {b: c}",
            "expected only names of class_names ['a'], got 'b'",
        ),
        (
            "class_names: [a, b]\nmap: {a: a}\ndisplay_names: {a: b}",
            "display_names: expected a different name for each class, got ['b', 'b']",
        ),
    ],
)
def test_load_class_map_invalid_file_raises(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        load_class_map(path)
    assert str(raised.value).startswith(f"class_map: {path}: ")
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_load_class_map_neither_name_nor_file_raises() -> None:
    with pytest.raises(UserError, match=r"class_map: expected one of default, .*, or a YAML file, got 'swhd' \(no such file\)"):
        load_class_map("swhd")


def test_load_class_map_class_without_name_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "helmets.yaml"
    path.write_text("class_names: [helmet, none]\nmap: {helmet: helmet}\ndisplay_names: {none: bare head, helmet: Helm}")
    class_map = load_class_map(path)
    assert class_map.class_names == ("helmet", "none")
    assert (class_map.mapping, class_map.ignored) == ({"helmet": "helmet"}, frozenset())
    assert class_map.display_names == {"none": "bare head", "helmet": "Helm"}


def test_require_classes_returns_map_or_raises() -> None:
    class_map = load_class_map("shwd")
    assert class_map.require_classes(["helmet", "none"], "best.ckpt") is class_map
    with pytest.raises(UserError) as raised:
        class_map.require_classes(["none", "helmet"], "best.ckpt")
    assert raised.value.describe("--class-map") == (
        "--class-map: shwd: expected the classes of the model best.ckpt (none, helmet), got helmet, none: "
        "choose another class map"
    )
