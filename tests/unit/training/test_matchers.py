"""Matchers: by hand, and against a slow reference."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppe_yolo.model.boxes import cxcywh_to_xyxy, iou_of_sizes
from ppe_yolo.model.coding import Level, make_grid
from ppe_yolo.training.matchers import Candidates, IoUMatcher, Objects, RatioMatcher, keep_dynamic, resolve_conflicts

# locations 0-15: anchor 16x16, 16-31: anchor 32x32, both row by row in 4x4 cells of 16 pixels; 32-35: 64x64 in cells of 32
GRID = make_grid(
    (
        Level(height=4, width=4, stride=16, anchors_wh=torch.tensor([[16.0, 16], [32, 32]])),
        Level(height=2, width=2, stride=32, anchors_wh=torch.tensor([[64.0, 64]])),
    )
)


IOU, RATIO = IoUMatcher(neighbours=False), RatioMatcher(neighbours=False)
IOU_WITH_NEIGHBOURS = IoUMatcher(neighbours=True)


def assigned(targets_cxcywh, matcher=IOU, images=None):
    """{(image, location): target}."""
    targets = torch.tensor(targets_cxcywh, dtype=torch.float32).reshape(-1, 4)
    images = torch.zeros(len(targets), dtype=torch.long) if images is None else torch.tensor(images)
    objects = Objects(boxes_xyxy=cxcywh_to_xyxy(targets), labels=torch.zeros_like(images), image=images)
    assignment = matcher.match(None, objects, GRID)  # an anchor matcher does not look at predictions
    keys = list(zip(assignment.image.tolist(), assignment.location.tolist(), strict=True))
    assert len(set(keys)) == len(keys), "a location has one object"
    return dict(zip(keys, assignment.target.tolist(), strict=True))


def test_iou_matcher_picks_anchors_above_threshold():
    # IoU of 24x24 with the anchors: 256/576 = 0.44, 576/1024 = 0.56, 576/4096 = 0.14
    assert assigned([[24, 40, 24, 24]]) == {(0, 2 * 4 + 1): 0, (0, 16 + 2 * 4 + 1): 0}
    assert assigned([[24, 40, 24, 24]], IoUMatcher(neighbours=False, iou_threshold=0.5)) == {(0, 16 + 9): 0}
    # centre (40, 40) lies in cell (1, 1) of the coarse level
    assert assigned([[40, 40, 24, 24]], IoUMatcher(neighbours=False, iou_threshold=0.1)) == {
        (0, 10): 0,
        (0, 16 + 10): 0,
        (0, 32 + 3): 0,
    }


def test_ratio_matcher_picks_anchors_with_similar_sides():
    # sides of 16x16 against the anchors: 1, 2 and 4 times; 4 is not below 4
    assert assigned([[24, 40, 16, 16]], RATIO) == {(0, 9): 0, (0, 16 + 9): 0}
    assert assigned([[24, 40, 16, 16]], RatioMatcher(neighbours=False, max_ratio=4.01)) == {
        (0, 9): 0,
        (0, 16 + 9): 0,
        (0, 32 + 2): 0,
    }
    # one side too different is enough: 16 / 100
    assert assigned([[24, 40, 16, 100]], RATIO) == {(0, 16 + 9): 0}


def test_matcher_object_without_fitting_anchor_gets_best_iou():
    assert assigned([[24, 40, 4, 4]]) == {(0, 9): 0}  # IoU 16/256 with the smallest
    assert assigned([[24, 40, 640, 640]], RATIO) == {(0, 32 + 2): 0}
    assert assigned([[24, 40, 1, 300]], RATIO) != {}


def test_neighbours_are_two_cells_nearest_to_centre():
    # centre (20, 44): cell column 1.25, row 2.75: left and below
    assert assigned([[20, 44, 16, 16]], IOU_WITH_NEIGHBOURS) == dict.fromkeys([(0, 9), (0, 8), (0, 13)], 0)
    # column 1.75, row 2.25: right and above
    assert assigned([[28, 36, 16, 16]], IOU_WITH_NEIGHBOURS) == dict.fromkeys([(0, 9), (0, 10), (0, 5)], 0)


def test_neighbours_outside_image_are_left_out():
    assert assigned([[4, 4, 16, 16]], IOU_WITH_NEIGHBOURS) == {(0, 0): 0}
    assert assigned([[60, 60, 16, 16]], IOU_WITH_NEIGHBOURS) == {(0, 15): 0}
    assert assigned([[60, 24, 16, 16]], IOU_WITH_NEIGHBOURS) == {(0, 7): 0, (0, 11): 0}


def test_matcher_centre_on_border_uses_last_cell():
    assert assigned([[64, 64, 16, 16]], IOU_WITH_NEIGHBOURS) == {(0, 15): 0}
    assert assigned([[0, 0, 16, 16]], IOU_WITH_NEIGHBOURS) == {(0, 0): 0}
    assert assigned([[-3, 70, 16, 16]]) == {(0, 12): 0}


def test_matcher_two_objects_at_one_location_better_fit_wins():
    # 17x17 and 16x16 in one cell; neither fits another anchor
    for order, winner in (([[24, 40, 17, 17], [26, 42, 16, 16]], 1), ([[26, 42, 16, 16], [24, 40, 17, 17]], 0)):
        assert assigned(order) == {(0, 9): winner}
    assert assigned([[24, 40, 17, 17], [26, 42, 16, 16]], images=[0, 1]) == {(0, 9): 0, (1, 9): 1}
    # of equals, the first
    assert assigned([[24, 40, 16, 16], [26, 42, 16, 16]]) == {(0, 9): 0}


def test_batch_without_objects_has_no_positives():
    assert assigned([]) == {}
    empty = Objects(boxes_xyxy=torch.zeros(0, 4), labels=torch.zeros(0).long(), image=torch.zeros(0).long())
    kept = resolve_conflicts(keep_dynamic(RATIO.find_candidates(empty, GRID), torch.zeros(0)))
    assert kept.image.dtype == kept.location.dtype == kept.target.dtype == torch.long


def candidates(targets, images, strategy, neighbours):
    """[(image, location, target, fit)]: every candidate, one after the other."""
    possible = []
    anchors = [(level, a) for level in range(2) for a in range(len(GRID.levels[level].anchors_wh))]
    offsets = {(0, 0): 0, (0, 1): 16, (1, 0): 32}
    for t, (x, y, w, h) in enumerate(targets):
        sizes = [GRID.levels[level].anchors_wh[a].tolist() for level, a in anchors]
        fits = [iou_of_sizes(torch.tensor([[w, h]]).float(), torch.tensor([s])).item() for s in sizes]
        if strategy == "iou":
            chosen = [k for k in range(3) if fits[k] > 0.3]
        else:
            chosen = [k for k, (aw, ah) in enumerate(sizes) if max(w / aw, aw / w, h / ah, ah / h) < 4]
        for k in chosen or [max(range(3), key=lambda k: fits[k])]:
            level = GRID.levels[anchors[k][0]]
            px, py = x / level.stride, y / level.stride
            column, row = min(int(px), level.width - 1), min(int(py), level.height - 1)
            cells = [(column, row)]
            if neighbours:
                cells += [(column + (1 if px - column >= 0.5 else -1), row), (column, row + (1 if py - row >= 0.5 else -1))]
            for c, r in cells:
                if 0 <= c < level.width and 0 <= r < level.height:
                    possible.append((images[t], offsets[anchors[k]] + r * level.width + c, t, fits[k]))
    return possible


side, centre = st.integers(1, 128), st.integers(0, 128).map(lambda v: v / 2)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(centre, centre, side, side, st.integers(0, 1)), min_size=1, max_size=12),
    st.sampled_from(["iou", "ratio"]),
    st.booleans(),
)
def test_matcher_uses_every_candidate_unless_better_one_exists(objects, strategy, neighbours):
    targets, images = [o[:4] for o in objects], [o[4] for o in objects]
    kind = {"iou": IoUMatcher, "ratio": RatioMatcher}[strategy]
    found = assigned(targets, kind(neighbours=neighbours), images)
    possible = candidates(targets, images, strategy, neighbours)
    assert set(found) == {(image, location) for image, location, _, _ in possible}
    for image, location, _, fit in possible:
        # so an object has no positive only if objects with a better fit hold all its locations
        winner = found[image, location]
        assert max(w[3] for w in possible if w[:3] == (image, location, winner)) >= fit


def kept(target, iou, cost, top=10):
    """Indices of the candidates that are kept."""
    locations = torch.arange(len(target))
    candidates = Candidates(
        image=torch.zeros_like(locations), location=locations, target=torch.tensor(target), cost=torch.tensor(cost)
    )
    return keep_dynamic(candidates, torch.tensor(iou), top).location.tolist()


def test_keep_dynamic_keeps_as_many_as_sum_of_ious():
    # object 0: 0.9 + 0.8 + 0.7 + 0.1 = 2.5, two locations, the cheapest; object 1: 0.4, still one location
    target, iou, cost = [0, 1, 0, 0, 1, 0, 1], [0.9, 0.1, 0.8, 0.7, 0.1, 0.1, 0.2], [3.0, 5.0, 1.0, 2.0, 4.0, 0.0, 6.0]
    assert kept(target, iou, cost) == [2, 4, 5]
    # the two highest alone: 1.7, one location
    assert kept(target, iou, cost, top=2) == [4, 5]
    # of equal costs the first
    assert kept([3, 3, 3], [0.7, 0.7, 0.7], [1.0, 1.0, 1.0]) == [0, 1]
    assert kept([0, 0], [1.0, 1.0], [1.0, 1.0]) == [0, 1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 64), st.integers(-9, 9)), max_size=40),
    st.integers(1, 12),
)
def test_keep_dynamic_equals_plain_python(entries, top):
    entries = [(t, i / 64, float(c)) for t, i, c in entries]  # sums that floats hold exactly
    expected = []
    for number in {t for t, _, _ in entries}:
        mine = [(c, p) for p, (t, _, c) in enumerate(entries) if t == number]
        k = max(1, int(sum(sorted((i for t, i, _ in entries if t == number), reverse=True)[:top])))
        expected += [p for _, p in sorted(mine)[:k]]
    assert kept([e[0] for e in entries], [e[1] for e in entries], [e[2] for e in entries], top) == sorted(expected)
