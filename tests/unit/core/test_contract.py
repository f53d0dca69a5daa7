"""The contract's promises, and the letterbox that everything shares."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppe_yolo.core.contract import ContractError, ModelContract
from ppe_yolo.core.letterbox import letterbox

GOOD = ModelContract(("helmet", "none"), (416, 416))
letters = st.characters(codec="utf-8")
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
def test_json_gives_back_the_same_contract(contract):
    text = contract.to_json()
    assert ModelContract.from_json(text) == contract
    assert "\n" not in text
    text.encode("utf-8")


def test_json_is_sorted_and_complete():
    values = json.loads(GOOD.to_json())
    assert list(values) == sorted(f.name for f in dataclasses.fields(ModelContract))
    assert values["class_names"] == ["helmet", "none"] and values["schema_version"] == 1


@pytest.mark.parametrize(
    ("change", "says"),
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
def test_promises_that_cannot_be_kept_are_refused(change, says):
    with pytest.raises(ContractError) as error:
        dataclasses.replace(GOOD, **change)
    assert says in str(error.value) and "\n" not in str(error.value)
    # the same when it comes from a file
    with pytest.raises(ContractError) as error:
        ModelContract.from_json(json.dumps({**json.loads(GOOD.to_json()), **change}))
    assert str(error.value).startswith("model contract: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "expected JSON, got 'no json'"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "expected schema_version 1, got None"),
        ('{"schema_version": 3}', "got 3: update ppe_yolo, or export the model again"),
        ('{"schema_version": 1, "colour": 1}', "unknown keys ['colour']"),
        ('{"schema_version": 1, "colour": 1}', "missing keys ['alarm_thresholds', 'class_names'"),
        (GOOD.to_json().replace('["helmet", "none"]', '"helmet"'), "class_names must be a list, got 'helmet'"),
        (GOOD.to_json().replace("[416, 416]", "416"), "input_size must be a list, got 416"),
        (GOOD.to_json().replace('"provenance": {}', '"provenance": 1'), "provenance must be a dict, got 1"),
        (GOOD.to_json().replace('"alarm_thresholds": {}', '"alarm_thresholds": []'), "alarm_thresholds must be a dict, got []"),
    ],
)
def test_text_that_is_no_contract_is_refused(text, says):
    with pytest.raises(ContractError) as error:
        ModelContract.from_json(text)
    assert says in str(error.value)


def test_letterbox_by_hand():
    # 200 wide, 100 high into 64 x 64: scale 0.32, 64 x 32 pixels of photo, 16 rows of grey above and below
    photo = np.full((100, 200, 3), 200, dtype=np.uint8)
    canvas, placement = letterbox(photo, (64, 64), pad_value=7)
    assert (placement.scale_x, placement.scale_y, placement.left, placement.top) == (0.32, 0.32, 0, 16)
    assert (canvas[:16] == 7).all() and (canvas[48:] == 7).all() and (canvas[16:48] == 200).all()
    boxes = np.array([[50, 25, 100, 75]])
    np.testing.assert_allclose(placement.place(boxes), [[16, 24, 32, 40]])
    np.testing.assert_allclose(placement.restore(np.array([[16.0, 24, 32, 40]])), boxes, rtol=1e-6)


def test_letterbox_enlarges_and_pads_at_the_sides():
    # 10 wide, 30 high into 96 high, 128 wide: scale 3.2, 32 x 96 pixels of photo, 48 columns of grey on either side
    canvas, placement = letterbox(np.full((30, 10, 3), 9, dtype=np.uint8), (96, 128))
    assert (placement.scale_x, placement.scale_y, placement.left, placement.top) == (3.2, 3.2, 48, 0)
    assert (canvas[:, :48] == 114).all() and (canvas[:, 80:] == 114).all() and (canvas[:, 48:80] == 9).all()


def test_letterbox_of_an_odd_rest_puts_the_extra_line_behind():
    canvas, placement = letterbox(np.zeros((31, 64, 3), dtype=np.uint8), (64, 64))
    assert placement.top == 16  # 33 grey rows: 16 above, 17 below
    assert (canvas[:16] == 114).all() and (canvas[16:47] == 0).all() and (canvas[47:] == 114).all()


def test_a_photo_of_the_right_size_is_left_as_it_is():
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    canvas, placement = letterbox(photo, (64, 96))
    assert (canvas == photo).all() and (placement.scale_x, placement.left, placement.top) == (1.0, 0, 0)
    assert not np.shares_memory(canvas, photo)


def test_restored_boxes_end_at_the_photo():
    _, placement = letterbox(np.zeros((100, 200, 3), dtype=np.uint8), (64, 64))
    np.testing.assert_allclose(placement.restore(np.array([[-5.0, 0, 70, 64]])), [[0, 0, 200, 100]])
    assert placement.restore(np.zeros((0, 4), dtype=np.float32)).shape == (0, 4)


def test_detections_that_lie_in_the_border_alone_are_no_detections():
    # 100 x 200 into 64 x 64: the photo takes the rows 16 to 48
    _, placement = letterbox(np.zeros((100, 200, 3), np.uint8), (64, 64))
    boxes = np.array([[0, 0, 20, 16], [0, 10, 32, 32], [0, 48, 64, 64]], np.float32)
    restored = placement.restore_detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0]))
    np.testing.assert_allclose(restored.boxes_xyxy, [[0, 0, 100, 50]], atol=1e-4)
    assert restored.scores.tolist() == [np.float32(0.8)] and restored.labels.tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 20), st.integers(1, 20), st.data())
def test_restore_undoes_place(height, width, rows, columns, data):
    photo = np.broadcast_to(np.zeros((1, 1, 3), dtype=np.uint8), (height, width, 3))
    _, placement = letterbox(photo, (32 * rows, 32 * columns))
    unit = hnp.arrays(np.float32, (2, 2), elements=st.floats(0, 1, width=32))
    corners = np.sort(data.draw(unit), axis=0) * np.array([width, height], dtype=np.float32)
    boxes = corners.reshape(1, 4)
    placed = placement.place(boxes)
    assert placed.dtype == np.float32
    assert (placed >= -0.01).all() and (placed <= np.array([32 * columns, 32 * rows] * 2) + 0.01).all()
    # float32 keeps about 7 digits of a coordinate in the input, which one pixel of the photo may be a small part of
    tolerance = 1e-5 * max(height, width) + 1e-4
    np.testing.assert_allclose(placement.restore(placed), boxes, atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_canvas_used_again_holds_nothing_of_the_last_photo(height, width, rows, columns, seed):
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    size = (32 * rows, 32 * columns)
    fresh, placement = letterbox(photo, size)
    used = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    canvas, again = letterbox(photo, size, out=used)
    assert canvas is used and again == placement
    assert (canvas == fresh).all()


def test_contract_file_without_display_names_is_read_and_shows_class_names() -> None:
    values = json.loads(ModelContract(class_names=("helmet", "none"), input_size=(64, 64)).to_json())
    del values["display_names"]
    old = ModelContract.from_json(json.dumps(values))
    assert old.display_name("none") == "none"
    values["display_names"] = {"none": "bare head"}
    assert ModelContract.from_json(json.dumps(values)).display_name("none") == "bare head"
    values["display_names"] = {"vest": "vest"}
    with pytest.raises(ContractError, match="display_names must map some of"):
        ModelContract.from_json(json.dumps(values))
