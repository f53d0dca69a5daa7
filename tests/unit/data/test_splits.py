"""Splits that keep images that look alike together."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppe_yolo.data.dataset import AnnotatedDataset
from ppe_yolo.data.splits import group_alike, hold_out, near_any


def brute_force(hashes: list[int], max_distance: int) -> list[int]:
    """The first image of each image's group, by comparing all pairs."""
    group = list(range(len(hashes)))
    for i, a in enumerate(hashes):
        for j, b in enumerate(hashes[:i]):
            if (a ^ b).bit_count() <= max_distance and group[i] != group[j]:
                first, other = sorted((group[i], group[j]))
                group = [first if g == other else g for g in group]
    return group


def first_of_group(groups: Sequence[int]) -> list[int]:
    return [list(groups).index(g) for g in groups]


def test_group_alike_matches_hand_calculation() -> None:
    hashes = np.array([0, 0b11110000, 2**64 - 1, 0b1111_1111, 2**63, 0b11110000], dtype=np.uint64)
    assert group_alike(hashes).tolist() == [0, 0, 1, 0, 0, 0]  # 0 and 0b1111_1111 through 0b11110000
    assert group_alike(hashes, 3).tolist() == [0, 1, 2, 3, 0, 1]
    assert group_alike(hashes[:0]).tolist() == []
    assert group_alike(hashes[:1]).tolist() == [0]


@given(
    scenes=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6),
    flips=st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 63), max_size=9)), max_size=60),
    max_distance=st.integers(0, 6),
)
def test_group_alike_agrees_with_brute_force(scenes: list[int], flips: list[tuple[int, set[int]]], max_distance: int) -> None:
    hashes = [scenes[scene % len(scenes)] ^ sum(1 << bit for bit in bits) for scene, bits in flips]
    groups = group_alike(np.array(hashes, dtype=np.uint64), max_distance).tolist()
    assert first_of_group(groups) == brute_force(hashes, max_distance)


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_group_alike_agrees_with_brute_force_in_large_buckets(bits: int) -> None:
    # the upper bits are all equal, so hundreds of hashes are compared with each other
    rng = np.random.default_rng(bits)
    hashes = rng.integers(2**bits, size=500, dtype=np.uint64) << np.uint64(20)
    groups = group_alike(hashes).tolist()
    assert first_of_group(groups) == brute_force(hashes.tolist(), 4)


def test_group_alike_stores_no_pairs() -> None:
    frames = np.random.default_rng(0).integers(2**14, size=20_000, dtype=np.uint64)  # 200 million pairs, most of them alike
    tracemalloc.start()
    groups = group_alike(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(groups.tolist()) == {0}
    assert peak < 64e6


def test_near_any_matches_hand_calculation() -> None:
    assert near_any([0b11111, 0], [0b1, 2**64 - 1]).tolist() == [True, True]
    assert near_any([0b11111, 0], [2**64 - 1]).tolist() == [False, False]
    assert near_any([7], []).tolist() == [False]
    assert near_any([], [7]).tolist() == []


@pytest.mark.parametrize("bits", [8, 16, 40])  # the fewer bits vary, the larger the buckets
def test_near_any_agrees_with_brute_force(bits: int) -> None:
    rng = np.random.default_rng(bits)
    ours, theirs = (rng.integers(2**bits, size=200, dtype=np.uint64) << np.uint64(20) for _ in range(2))
    theirs[:50] = ours[:50] ^ np.uint64(0b1001 << 40)
    for distance in (0, 2, 4):
        expected = [any((a ^ b).bit_count() <= distance for b in theirs.tolist()) for a in ours.tolist()]
        assert near_any(ours.tolist(), theirs.tolist(), distance).tolist() == expected


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
