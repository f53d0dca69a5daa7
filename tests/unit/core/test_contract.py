"""The model contract: validation of its fields, and its JSON."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppe_yolo.core.contract import ContractError, ModelContract

GOOD = ModelContract(("helmet", "none"), (416, 416))
letters = st.sampled_from('az09 _-"\\/\n\t\0\x7fäß漢\u2028\ufeff\U0001f477')  # all of Unicode takes seconds to set up
fractions = st.floats(0.0, 1.0)
names = st.lists(st.text(letters, min_size=1, max_size=8), min_size=1, max_size=5, unique=True)
plain = st.recursive(st.none() | st.booleans() | st.integers() | st.text(letters, max_size=5), st.lists, max_leaves=4)


@st.composite
def contracts(draw):
    class_names = draw(names)
    return ModelContract(
        class_names=tuple(class_names),
        input_size=tuple(32 * draw(st.integers(1, 40)) for _ in range(2)),
        pad_value=draw(st.integers(0, 255)),
        score_floor=draw(fractions),
        nms_iou_threshold=draw(fractions),
        max_detections=draw(st.integers(1, 10_000)),
        alarm_thresholds=draw(st.dictionaries(st.sampled_from(class_names), fractions)),
        provenance=draw(st.dictionaries(st.text(letters, max_size=5), plain, max_size=3)),
    )


@settings(max_examples=50, deadline=None)
@given(contracts())
def test_contract_json_round_trip_gives_the_same_contract(contract):
    text = contract.to_json()
    assert ModelContract.from_json(text) == contract
    assert "\n" not in text
    text.encode("utf-8")


def test_contract_json_has_all_fields_sorted():
    values = json.loads(GOOD.to_json())
    assert list(values) == sorted(f.name for f in dataclasses.fields(ModelContract))
    assert values["class_names"] == ["helmet", "none"] and values["schema_version"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "expected schema_version 1, got 2"),
        ({"schema_version": None}, "expected schema_version 1, got None"),
        ({"class_names": ()}, "class_names must be different, non-empty names, got []"),
        ({"class_names": ("helmet", "helmet")}, "class_names must be different"),
        ({"class_names": ("helmet", "")}, "class_names must be different"),
        ({"class_names": ("helmet", 1)}, "class_names must be different"),
        ({"class_names": (["helmet"],)}, "class_names must be different"),
        ({"input_size": (416, 400)}, "input_size must be (height, width) in multiples of 32, got (416, 400)"),
        ({"input_size": (416,)}, "input_size must be"),
        ({"input_size": (0, 416)}, "input_size must be"),
        ({"input_size": (416.0, 416)}, "input_size must be"),
        ({"input_size": (-32, 416)}, "input_size must be"),
        ({"score_floor": -0.1}, "score_floor must be within 0..1, got -0.1"),
        ({"score_floor": float("nan")}, "score_floor must be within 0..1, got nan"),
        ({"score_floor": True}, "score_floor must be within 0..1, got True"),
        ({"nms_iou_threshold": 1.5}, "nms_iou_threshold must be within 0..1, got 1.5"),
        ({"nms_iou_threshold": "0.5"}, "nms_iou_threshold must be within 0..1, got '0.5'"),
        ({"max_detections": 0}, "max_detections must be a whole number of at least 1, got 0"),
        ({"max_detections": 2.5}, "max_detections must be a whole number of at least 1, got 2.5"),
        ({"pad_value": 256}, "pad_value must be within 0..255, got 256"),
        ({"pixel_format": "BGR"}, "pixel_format must be 'RGB', got 'BGR'"),
        ({"alarm_thresholds": {"hat": 0.5}}, "alarm_thresholds names 'hat', which is not one of ['helmet', 'none']"),
        ({"alarm_thresholds": {"none": 2}}, "alarm_thresholds[none] must be within 0..1, got 2"),
    ],
)
def test_contract_with_impossible_field_raises_contract_error(change, message):
    with pytest.raises(ContractError) as error:
        dataclasses.replace(GOOD, **change)
    assert message in str(error.value) and "\n" not in str(error.value)
    # the same contract read from JSON
    with pytest.raises(ContractError) as error:
        ModelContract.from_json(json.dumps({**json.loads(GOOD.to_json()), **change}))
    assert str(error.value).startswith("model contract: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "expected JSON, got 'no json'"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "expected schema_version 1, got None"),
        ('{"schema_version": 3}', "got 3: update ppe_yolo, or export the model again"),
        ('{"schema_version": 1, "colour": 1}', "unknown keys ['colour']"),
        ('{"schema_version": 1, "colour": 1}', "a newer ppe_yolo wrote it: update this program"),
        ('{"schema_version": 1, "input_size": [32, 32]}', "missing keys ['class_names']"),
        (GOOD.to_json().replace('["helmet", "none"]', '"helmet"'), "class_names must be a list, got 'helmet'"),
        (GOOD.to_json().replace("[416, 416]", "416"), "input_size must be a list, got 416"),
        (GOOD.to_json().replace('"provenance": {}', '"provenance": 1'), "provenance must be a dict, got 1"),
        (GOOD.to_json().replace('"alarm_thresholds": {}', '"alarm_thresholds": []'), "alarm_thresholds must be a dict, got []"),
    ],
)
def test_contract_from_invalid_text_raises_contract_error(text, message):
    with pytest.raises(ContractError) as error:
        ModelContract.from_json(text)
    assert message in str(error.value)


def test_contract_without_display_names_shows_class_names() -> None:
    values = json.loads(ModelContract(class_names=("helmet", "none"), input_size=(64, 64)).to_json())
    del values["display_names"]
    old = ModelContract.from_json(json.dumps(values))
    assert old.display_name("none") == "none"
    values["display_names"] = {"none": "bare head"}
    assert ModelContract.from_json(json.dumps(values)).display_name("none") == "bare head"
    values["display_names"] = {"vest": "vest"}
    with pytest.raises(ContractError, match="display_names must map some of"):
        ModelContract.from_json(json.dumps(values))


def test_score_threshold_without_alarm_threshold_is_that_of_original_system() -> None:
    contract = ModelContract(("helmet", "none"), (64, 64), alarm_thresholds={"none": 0.6})
    assert contract.score_thresholds() == {"helmet": 0.3, "none": 0.6}


@pytest.mark.parametrize("added", ["display_names", "score_histogram", "provenance"])
def test_contract_of_older_file_has_default_of_missing_field(added: str) -> None:
    values = json.loads(GOOD.to_json())
    del values[added]
    assert ModelContract.from_json(json.dumps(values)) == GOOD
