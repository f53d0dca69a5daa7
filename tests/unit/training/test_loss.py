"""Each term of the loss against plain Python, and what must hold at the edges."""

import math
from dataclasses import replace

import pytest
import torch
from box_logits import encode_cxcywh

from ppe_yolo.model.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ppe_yolo.model.coding import Level, make_grid
from ppe_yolo.training.loss import AssignConfig, LossConfig, build_matcher, compute_loss
from ppe_yolo.training.matchers import IoUMatcher, Objects, Predictions, RatioMatcher, SimOTAMatcher

# two anchors in 2x2 cells of 32 pixels: locations 0-3 and 4-7
GRID = make_grid((Level(height=2, width=2, stride=32, anchors_wh=torch.tensor([[32.0, 32], [16, 16]])),))
OWN_CELL = AssignConfig(strategy="iou", neighbours=False, dynamic=False)


def target(boxes_xyxy, labels):
    return {
        "boxes_xyxy": torch.tensor(boxes_xyxy, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
    }


# IoU of 36x32 with the anchors: 1024/1152 and 256/1152, so location 0 alone is a positive;
# 14x14: 196/1024 and 196/256, so location 7
TARGETS = [target([[2, 0, 38, 32]], [1]), target([], []), target([[40, 42, 54, 56]], [0])]
POSITIVES = {(0, 0): (0, 0), (2, 7): (2, 0)}  # (image, location): (image, object)


def match(logits, boxes_cxcywh, boxes_xyxy, labels, image, config):
    predictions = Predictions(logits=logits, boxes_cxcywh=boxes_cxcywh)
    return build_matcher(config).match(predictions, Objects(boxes_xyxy=boxes_xyxy, labels=labels, image=image), GRID)


def test_build_matcher_follows_configuration():
    assert build_matcher(AssignConfig()) == SimOTAMatcher(RatioMatcher(neighbours=True, max_ratio=4.0))
    assert build_matcher(AssignConfig(dynamic=False, max_ratio=3.0)) == RatioMatcher(max_ratio=3.0)
    assert build_matcher(AssignConfig(strategy="iou", iou_threshold=0.2, neighbours=False, dynamic=False)) == IoUMatcher(
        neighbours=False, iou_threshold=0.2
    )


def planted_logits():
    """Random, but location 4 of the first image overlaps its object fully, and location 1 of the last by less than half."""
    logits = torch.randn(3, 8, 7, generator=torch.Generator().manual_seed(3))
    for image, location, box_cxcywh in ((0, 4, [20.0, 16, 36, 32]), (2, 5, [45.0, 45, 16, 12])):
        at = (GRID.cells_xy[location], GRID.anchors_wh[location], GRID.strides[location])
        logits[image, location, :4] = encode_cxcywh(torch.tensor(box_cxcywh), *at, "bounded")
    return logits


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bce(p, t):
    return -t * math.log(p) - (1 - t) * math.log(1 - p)


def box_at(logits, location):
    """The bounded coding, spelled out: (x1, y1, x2, y2)."""
    anchor, cell = divmod(location, 4)
    row, column = divmod(cell, 2)
    side = (32, 16)[anchor]
    x, y = (2 * sigmoid(logits[0]) - 0.5 + column) * 32, (2 * sigmoid(logits[1]) - 0.5 + row) * 32
    w, h = (side * (2 * sigmoid(v)) ** 2 for v in logits[2:4])
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def overlap(a, b):
    """Intersection, union, and the corners of the smallest box around both."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return common, sum(areas) - common, (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))


def iou_of(a, b):
    common, union, _ = overlap(a, b)
    return common / union


def box_loss(kind, a, b):
    common, union, around = overlap(a, b)
    width, height = around[2] - around[0], around[3] - around[1]
    iou = common / union
    if kind == "giou":
        return 1 - iou + (width * height - union) / (width * height)
    apart = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    diou = 1 - iou + apart / (width**2 + height**2)
    if kind == "diou":
        return diou
    angles = [math.atan((c[2] - c[0]) / (c[3] - c[1])) for c in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return diou + v * v / (1 - iou + v)


def reference(logits, config):
    """(box, objectness, class), by loops over every location."""
    box = objectness = classes = 0.0
    for image in range(3):
        objects = [tuple(b) for b in TARGETS[image]["boxes_xyxy"].tolist()]
        for location in range(8):
            row = logits[image, location].tolist()
            predicted = box_at(row, location)
            counts, wanted = True, 0.0
            if (image, location) in POSITIVES:
                marked = objects[POSITIVES[image, location][1]]
                weight = 2 - (marked[2] - marked[0]) * (marked[3] - marked[1]) / 64**2 if config.weigh_small_boxes else 1
                box += weight * box_loss(config.box, predicted, marked)
                wanted = 1.0 if config.objectness_target == "one" else iou_of(predicted, marked)
                label = TARGETS[image]["labels"].tolist()[0]
                for c in range(2):
                    smooth = 1 - config.label_smoothing if c == label else config.label_smoothing
                    classes += bce(sigmoid(row[5 + c]), smooth)
            elif any(iou_of(predicted, marked) > config.ignore_iou for marked in objects):
                counts = False
            if counts:
                p = sigmoid(row[4])
                objectness += abs(wanted - p) ** config.focal_gamma * bce(p, wanted)
    weights = (config.box_weight, config.objectness_weight, config.class_weight)
    return [w * s / len(POSITIVES) for w, s in zip(weights, (box, objectness, classes), strict=True)]


@pytest.mark.parametrize(
    "options",
    [
        {"box": "giou"},
        {"box": "diou"},
        {"box": "ciou"},
        {"weigh_small_boxes": True},
        {"objectness_target": "one"},
        {"focal_gamma": 0.0},
        {"focal_gamma": 1.0, "objectness_target": "one"},
        {"ignore_iou": 0.2},
        {"ignore_iou": 1.0},
        {"label_smoothing": 0.0},
        {"label_smoothing": 0.2},
        {"box_weight": 2.0, "objectness_weight": 3.0, "class_weight": 0.5},
        # the original helmet system's
        {"box": "giou", "weigh_small_boxes": True, "objectness_target": "one", "box_weight": 1.0},
    ],
    ids=str,
)
def test_compute_loss_equals_plain_python(options):
    config = LossConfig(assign=OWN_CELL, **options)
    logits = planted_logits()
    terms = compute_loss(logits, GRID, TARGETS, "bounded", config)
    box, objectness, classification = reference(logits, config)
    torch.testing.assert_close(
        torch.stack([terms.box, terms.objectness, terms.classification]), torch.tensor([box, objectness, classification])
    )
    torch.testing.assert_close(terms.total, terms.box + terms.objectness + terms.classification)


def test_compute_loss_ignores_background_overlapping_object():
    # location 4 of the first image has the object's box, and location 0 is the positive
    logits = planted_logits()
    louder = logits.clone()
    louder[0, 4, 4] += 5.0
    same, counted = (LossConfig(assign=OWN_CELL, ignore_iou=v) for v in (0.5, 1.1))
    assert compute_loss(louder, GRID, TARGETS, "bounded", same) == compute_loss(logits, GRID, TARGETS, "bounded", same)
    before, after = (compute_loss(x, GRID, TARGETS, "bounded", counted).objectness for x in (logits, louder))
    assert after > before + 1


def test_objectness_loss_has_no_gradient_on_boxes():
    logits = planted_logits().requires_grad_()
    compute_loss(logits, GRID, TARGETS, "bounded", LossConfig(assign=OWN_CELL)).objectness.backward()
    assert (logits.grad[..., :4] == 0).all() and (logits.grad[0, 0, 4] != 0)


def test_simota_matcher_picks_locations_predicting_object():
    # its sides differ from both anchors' by less than 4 times; beside cell 0, the cells to the right and below are nearest:
    # locations 0, 1, 2 and 4, 5, 6
    object_xyxy, label = torch.tensor([[2.0, 0, 38, 32]]), torch.tensor([1])

    def chosen(exact, logits):
        boxes = torch.full((1, 8, 4), 1.0)
        boxes[0, exact] = torch.tensor([20.0, 16, 36, 32])
        found = match(logits, boxes, object_xyxy, label, torch.tensor([0]), AssignConfig())
        return sorted(found.location.tolist())

    logits = torch.zeros(1, 8, 7)
    assert chosen([5], logits) == [5]
    assert chosen([1, 5, 6], logits) == [1, 5, 6]
    assert chosen([3, 7], logits) == [0]  # those are no candidates; none is good, so the first is taken
    wrong = logits.clone()
    wrong[0, 5, 5:] = torch.tensor([9.0, -9.0])  # sure that it is the other class
    assert chosen([5], wrong) == [5]  # a box far off is worse
    half = torch.zeros(1, 8, 4)
    half[0, [1, 5]] = torch.tensor([[20.0, 16, 36, 32], [20, 16, 36, 40]])  # IoU 1 and 0.8: one location
    for image, location in ((logits, 1), (wrong, 1), (wrong[:, [0, 5, 2, 3, 4, 1, 6, 7]], 5)):
        found = match(image, half, object_xyxy, label, torch.tensor([0]), AssignConfig())
        assert found.location.tolist() == [location]


@pytest.mark.parametrize("coding", ["bounded", "darknet"])
@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compute_loss_perfect_logits_is_zero(kind, coding, dynamic):
    ways = AssignConfig(neighbours=coding == "bounded", dynamic=False)
    generator = torch.Generator().manual_seed(0)
    boxes_cxcywh = torch.rand(6, 4, generator=generator) * torch.tensor([60.0, 60, 20, 20]) + torch.tensor([2.0, 2, 12, 12])
    targets = [target(cxcywh_to_xyxy(boxes_cxcywh[i::2]).tolist(), [0, 1, 0]) for i in range(2)]
    images = torch.arange(2).repeat_interleave(3)
    boxes_xyxy, labels = (torch.cat([t[key] for t in targets]) for key in ("boxes_xyxy", "labels"))
    found = match(torch.zeros(2, 8, 7), torch.zeros(2, 8, 4), boxes_xyxy, labels, images, ways)
    wanted = xyxy_to_cxcywh(boxes_xyxy)[found.target]
    at = (GRID.cells_xy[found.location], GRID.anchors_wh[found.location], GRID.strides[found.location])
    logits = torch.zeros(2, 8, 7)
    logits[..., 4] = -20
    logits[found.image, found.location, :4] = encode_cxcywh(wanted, *at, coding)
    logits[found.image, found.location, 4] = 20
    logits[found.image, found.location, 5:] = torch.nn.functional.one_hot(labels[found.target], 2) * 40.0 - 20
    config = LossConfig(box=kind, assign=replace(ways, dynamic=dynamic), label_smoothing=0.0)
    terms = compute_loss(logits, GRID, targets, coding, config)
    assert 0 <= terms.box < 1e-4
    assert 0 <= terms.objectness < 1e-4
    assert 0 <= terms.classification < 1e-4


def test_compute_loss_images_without_objects_is_background_only():
    logits = torch.zeros(2, 8, 7, requires_grad=True)
    terms = compute_loss(logits, GRID, [target([], [])] * 2, "bounded", LossConfig(objectness_weight=3.0))
    assert terms.box == 0 and terms.classification == 0
    # 16 locations at p = 1/2: (1/2)^2 * ln 2 each, divided by at least 1, times the weight
    torch.testing.assert_close(terms.objectness, torch.tensor(3.0 * 16 * 0.25 * math.log(2)))
    terms.total.backward()
    assert logits.grad.isfinite().all() and (logits.grad[..., 4] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_compute_loss_16_bit_logits_gives_finite_32_bit_terms(dtype):
    logits = (planted_logits() * 10).to(dtype)
    terms = compute_loss(logits, GRID, TARGETS, "bounded", LossConfig())
    assert all(t.dtype == torch.float32 and t.isfinite() for t in terms)
    assert terms == compute_loss(logits.float(), GRID, TARGETS, "bounded", LossConfig())


@pytest.mark.parametrize("coding", ["bounded", "darknet"])
@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
@pytest.mark.parametrize("value", [-1e4, -100.0, -30.0, -8.0, 8.0, 30.0, 1e4])
def test_compute_loss_extreme_logits_has_finite_gradients(value, kind, coding):
    for channels in (slice(None), slice(0, 2), slice(2, 4), slice(3, 4)):
        logits = torch.zeros(3, 8, 7)
        logits[..., channels] = value
        logits.requires_grad_()
        compute_loss(logits, GRID, TARGETS, coding, LossConfig(box=kind)).total.backward()
        assert logits.grad.isfinite().all()


def test_compute_loss_falls_along_gradient():
    logits = planted_logits().requires_grad_()
    before = compute_loss(logits, GRID, TARGETS, "bounded", LossConfig()).total
    before.backward()
    after = compute_loss(logits - 0.01 * logits.grad, GRID, TARGETS, "bounded", LossConfig()).total
    assert after < before
