"""Which places answer for which object: by hand, and against a slow reference."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppe_yolo.model.boxes import iou_of_sizes
from ppe_yolo.model.coding import Level, make_grid
from ppe_yolo.training.assign import Candidates, find_candidates, keep_dynamic, one_per_place

# places 0-15: anchor 16x16, 16-31: anchor 32x32, both row by row in 4x4 cells of 16 pixels; 32-35: 64x64 in cells of 32
GRID = make_grid(
    (
        Level(4, 4, 16, torch.tensor([[16.0, 16], [32, 32]])),
        Level(2, 2, 32, torch.tensor([[64.0, 64]])),
    )
)


def assigned(targets_cxcywh, images=None, **options):
    """{(image, place): target}."""
    targets = torch.tensor(targets_cxcywh, dtype=torch.float32).reshape(-1, 4)
    images = torch.zeros(len(targets), dtype=torch.long) if images is None else torch.tensor(images)
    options = {"strategy": "iou", "neighbours": False, **options}
    found = one_per_place(find_candidates(targets, images, GRID, **options))
    keys = list(zip(found.image.tolist(), found.place.tolist(), strict=True))
    assert len(set(keys)) == len(keys), "a place answers for one object"
    return dict(zip(keys, found.target.tolist(), strict=True))


def test_iou_strategy_by_hand():
    # IoU of 24x24 with the anchors: 256/576 = 0.44, 576/1024 = 0.56, 576/4096 = 0.14
    assert assigned([[24, 40, 24, 24]]) == {(0, 2 * 4 + 1): 0, (0, 16 + 2 * 4 + 1): 0}
    assert assigned([[24, 40, 24, 24]], iou_threshold=0.5) == {(0, 16 + 9): 0}
    # centre (40, 40) lies in cell (1, 1) of the coarse level
    assert assigned([[40, 40, 24, 24]], iou_threshold=0.1) == {(0, 10): 0, (0, 16 + 10): 0, (0, 32 + 3): 0}


def test_ratio_strategy_by_hand():
    # sides of 16x16 against the anchors: 1, 2 and 4 times; 4 is not below 4
    assert assigned([[24, 40, 16, 16]], strategy="ratio") == {(0, 9): 0, (0, 16 + 9): 0}
    assert assigned([[24, 40, 16, 16]], strategy="ratio", max_ratio=4.01) == {(0, 9): 0, (0, 16 + 9): 0, (0, 32 + 2): 0}
    # one side too different is enough: 16 / 100
    assert assigned([[24, 40, 16, 100]], strategy="ratio") == {(0, 16 + 9): 0}


def test_an_object_that_no_anchor_fits_goes_to_the_best():
    assert assigned([[24, 40, 4, 4]]) == {(0, 9): 0}  # IoU 16/256 with the smallest
    assert assigned([[24, 40, 640, 640]], strategy="ratio") == {(0, 32 + 2): 0}
    assert assigned([[24, 40, 1, 300]], strategy="ratio") != {}


def test_neighbours_are_the_two_nearest_cells():
    # centre (20, 44): cell column 1.25, row 2.75: left and below
    assert assigned([[20, 44, 16, 16]], neighbours=True) == dict.fromkeys([(0, 9), (0, 8), (0, 13)], 0)
    # column 1.75, row 2.25: right and above
    assert assigned([[28, 36, 16, 16]], neighbours=True) == dict.fromkeys([(0, 9), (0, 10), (0, 5)], 0)


def test_neighbours_beyond_the_border_do_not_exist():
    assert assigned([[4, 4, 16, 16]], neighbours=True) == {(0, 0): 0}
    assert assigned([[60, 60, 16, 16]], neighbours=True) == {(0, 15): 0}
    assert assigned([[60, 24, 16, 16]], neighbours=True) == {(0, 7): 0, (0, 11): 0}


def test_a_centre_on_or_beyond_the_border_belongs_to_the_last_cell():
    assert assigned([[64, 64, 16, 16]], neighbours=True) == {(0, 15): 0}
    assert assigned([[0, 0, 16, 16]], neighbours=True) == {(0, 0): 0}
    assert assigned([[-3, 70, 16, 16]]) == {(0, 12): 0}


def test_of_two_objects_that_want_one_place_the_better_fit_gets_it():
    # 17x17 and 16x16 in one cell; neither fits another anchor
    for order, winner in (([[24, 40, 17, 17], [26, 42, 16, 16]], 1), ([[26, 42, 16, 16], [24, 40, 17, 17]], 0)):
        assert assigned(order) == {(0, 9): winner}
    assert assigned([[24, 40, 17, 17], [26, 42, 16, 16]], images=[0, 1]) == {(0, 9): 0, (1, 9): 1}
    # of equals, the first
    assert assigned([[24, 40, 16, 16], [26, 42, 16, 16]]) == {(0, 9): 0}


def test_a_batch_without_objects():
    assert assigned([]) == {}
    none = find_candidates(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), GRID, strategy="ratio")
    found = one_per_place(keep_dynamic(none, torch.zeros(0)))
    assert found.image.dtype == found.place.dtype == found.target.dtype == torch.long


def candidates(targets, images, strategy, neighbours):
    """[(image, place, target, fit)]: every wish, one after the other."""
    wishes = []
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
                    wishes.append((images[t], offsets[anchors[k]] + r * level.width + c, t, fits[k]))
    return wishes


side, centre = st.integers(1, 128), st.integers(0, 128).map(lambda v: v / 2)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(centre, centre, side, side, st.integers(0, 1)), min_size=1, max_size=12),
    st.sampled_from(["iou", "ratio"]),
    st.booleans(),
)
def test_every_wish_is_granted_unless_a_better_one_is(objects, strategy, neighbours):
    targets, images = [o[:4] for o in objects], [o[4] for o in objects]
    found = assigned(targets, images, strategy=strategy, neighbours=neighbours)
    wishes = candidates(targets, images, strategy, neighbours)
    assert set(found) == {(image, place) for image, place, _, _ in wishes}
    for image, place, _, fit in wishes:
        # so an object is without a place only if better fits hold all that it wanted
        winner = found[image, place]
        assert max(w[3] for w in wishes if w[:3] == (image, place, winner)) >= fit


def kept(target, iou, cost, top=10):
    """Indices of the candidates that are kept."""
    places = torch.arange(len(target))
    candidates = Candidates(torch.zeros_like(places), places, torch.tensor(target), torch.tensor(cost))
    return keep_dynamic(candidates, torch.tensor(iou), top).place.tolist()


def test_an_object_keeps_as_many_places_as_predict_it_well():
    # object 0: 0.9 + 0.8 + 0.7 + 0.1 = 2.5, two places, the cheapest; object 1: 0.4, one place all the same
    target, iou, cost = [0, 1, 0, 0, 1, 0, 1], [0.9, 0.1, 0.8, 0.7, 0.1, 0.1, 0.2], [3.0, 5.0, 1.0, 2.0, 4.0, 0.0, 6.0]
    assert kept(target, iou, cost) == [2, 4, 5]
    # of the two highest alone: 1.7, one place
    assert kept(target, iou, cost, top=2) == [4, 5]
    # of equal costs the first
    assert kept([3, 3, 3], [0.7, 0.7, 0.7], [1.0, 1.0, 1.0]) == [0, 1]
    assert kept([0, 0], [1.0, 1.0], [1.0, 1.0]) == [0, 1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 64), st.integers(-9, 9)), max_size=40),
    st.integers(1, 12),
)
def test_dynamic_places_as_plain_python_has_them(entries, top):
    entries = [(t, i / 64, float(c)) for t, i, c in entries]  # sums that floats hold exactly
    expected = []
    for number in {t for t, _, _ in entries}:
        mine = [(c, p) for p, (t, _, c) in enumerate(entries) if t == number]
        k = max(1, int(sum(sorted((i for t, i, _ in entries if t == number), reverse=True)[:top])))
        expected += [p for _, p in sorted(mine)[:k]]
    assert kept([e[0] for e in entries], [e[1] for e in entries], [e[2] for e in entries], top) == sorted(expected)
