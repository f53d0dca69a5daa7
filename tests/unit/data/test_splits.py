"""Splits that keep images that look alike together."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.splits import groups_of, hold_out, near_any, near_pairs


def test_near_pairs_by_hand() -> None:
    hashes = np.array([0, 0b1111, 0b11111, 2**64 - 1, 2**63], dtype=np.uint64)
    assert near_pairs(hashes).tolist() == [[0, 1], [0, 4], [1, 2]]
    assert near_pairs(hashes, 5).tolist() == [[0, 1], [0, 2], [0, 4], [1, 2], [1, 4]]
    assert near_pairs(hashes[:0]).shape == (0, 2)
    assert near_any([0b11111, 0], [0b1, 2**64 - 1]).tolist() == [True, True]
    assert near_any([0b11111, 0], [2**64 - 1]).tolist() == [False, False]
    assert near_any([7], []).tolist() == [False]


def test_near_pairs_across_blocks() -> None:
    hashes = np.random.default_rng(0).integers(2**63, size=600, dtype=np.uint64)
    hashes[599] = hashes[300] = hashes[3]
    assert near_pairs(hashes).tolist() == [[3, 300], [3, 599], [300, 599]]


def test_groups_of_is_transitive() -> None:
    groups = groups_of(5, np.array([[0, 3], [3, 4]]))
    assert groups[0] == groups[3] == groups[4]
    assert len(set(groups.tolist())) == 3
    assert groups_of(0, np.zeros((0, 2), dtype=np.int64)).tolist() == []


@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_hold_out_never_divides_a_group(groups: list[int], fraction: float, seed: int, data: st.DataObject) -> None:
    count = len(groups)
    ids, numbers = [f"image{i:03d}" for i in range(count)], np.array(groups)
    larger, held = hold_out(ids, numbers, fraction, seed)
    assert sorted([*larger, *held]) == list(range(count))
    assert not set(numbers[larger]) & set(numbers[held])
    wanted = max(round(fraction * count), 1)
    assert len(held) <= wanted
    left = [int((numbers == g).sum()) for g in set(numbers[larger].tolist())]
    assert not left or len(held) + min(left) > wanted  # no other group would fit
    # the order of the images and the numbers of the groups do not matter
    order = data.draw(st.permutations(range(count)))
    again = hold_out([ids[i] for i in order], 50 - numbers[order], fraction, seed)[1]
    assert sorted(order[i] for i in again) == held.tolist()


def test_hold_out_depends_on_seed() -> None:
    ids, groups = [str(i) for i in range(100)], np.arange(100)
    divisions = [hold_out(ids, groups, 0.2, seed)[1].tolist() for seed in (0, 0, 1)]
    assert divisions[0] == divisions[1] != divisions[2]
    assert len(divisions[0]) == 20


def test_dataset_without_splits_keeps_scenes_together(make_voc, tmp_path: Path) -> None:
    stems = [f"{scene}_{moment}" for scene in "abcdefghij" for moment in range(2)]
    root = make_voc(tmp_path, stems)
    for scene in "abcdefghij":  # the same scene a moment later
        (root / "JPEGImages" / f"{scene}_1.jpg").write_bytes((root / "JPEGImages" / f"{scene}_0.jpg").read_bytes())
    dataset = AnnotatedDataset.open(root, progress=False)
    scenes = {split: [i.image_id[0] for i in images] for split, images in dataset.splits.items()}
    assert {split: len(names) for split, names in scenes.items()} == {"trainval": 16, "test": 4}
    assert not set(scenes["trainval"]) & set(scenes["test"])
