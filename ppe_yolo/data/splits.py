"""Splits that keep images that look alike together, so that no validation image was seen in training."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_DISTANCE = 4  # of 64 bits: the same scene a moment later
_BLOCK = 256  # rows compared at once; N x N would not fit into memory for many images


def near_pairs(hashes: NDArray[np.uint64], max_distance: int = MAX_DISTANCE) -> NDArray[np.int64]:
    """Finds pairs of images that look alike.

    Args:
        hashes: Perceptual hashes [N].
        max_distance: Largest number of differing bits.

    Returns:
        Indices [P, 2], the first below the second.
    """
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for start in range(0, len(hashes), _BLOCK):
        distance = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ hashes[None, :])
        first, second = np.nonzero(distance <= max_distance)
        first += start
        pairs.append(np.stack((first, second), axis=1)[first < second])
    return np.concatenate(pairs)


def near_any(hashes: Sequence[int], others: Sequence[int], max_distance: int = MAX_DISTANCE) -> NDArray[np.bool_]:
    """Whether each image looks like any of some others: perceptual hashes [N], [M] -> [N]."""
    theirs = np.array(others, dtype=np.uint64)
    return np.array([(np.bitwise_count(theirs ^ np.uint64(h)) <= max_distance).any() for h in hashes], dtype=bool)


def groups_of(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group of each of `count` images, if the images of each pair [P, 2] belong together: [count]."""
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def hold_out(
    ids: Sequence[str], groups: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides images into a larger and a held-out part; a group is never divided.

    The result depends on the names, the groups and the seed, not on the order of the images.

    Args:
        ids: Names of the images.
        groups: Group of each image [N].
        fraction: Fraction to hold out, met as closely as whole groups allow.
        seed: Seed of the choice.

    Returns:
        Indices of the larger part and of the held-out part, both ascending.
    """
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(ids)), key=lambda i: ids[i]):
        members.setdefault(int(groups[index]), []).append(index)

    def rank(group: int) -> bytes:
        first = ids[members[group][0]]
        return hashlib.blake2b(f"{seed}:{first}".encode(), digest_size=16).digest()

    wanted = max(round(fraction * len(ids)), 1)
    held: list[int] = []
    for group in sorted(members, key=rank):
        # a group that does not fit is skipped; smaller ones may follow
        if len(held) + len(members[group]) <= wanted:
            held += members[group]
    is_held = np.zeros(len(ids), dtype=bool)
    is_held[held] = True
    return np.nonzero(~is_held)[0], np.nonzero(is_held)[0]
