"""Splits that keep near-identical photos together, so that no validation photo was seen in training."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_DISTANCE = 4  # of 64 bits; photos of the same scene a moment apart


def near_pairs(hashes: NDArray[np.uint64], max_distance: int = MAX_DISTANCE) -> NDArray[np.int64]:
    """Pairs of photos that look alike: perceptual hashes [N] -> [P, 2], the first index below the second."""
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for start in range(0, len(hashes), 256):  # in blocks, since N x N would not fit for many photos
        distance = np.bitwise_count(hashes[start : start + 256, None] ^ hashes[None, :])
        first, second = np.nonzero(distance <= max_distance)
        first += start
        pairs.append(np.stack((first, second), axis=1)[first < second])
    return np.concatenate(pairs)


def near_any(hashes: Sequence[int], others: Sequence[int], max_distance: int = MAX_DISTANCE) -> NDArray[np.bool_]:
    """Which photos look like any of some others: perceptual hashes [N], [M] -> [N]."""
    theirs = np.array(others, dtype=np.uint64)
    return np.array([(np.bitwise_count(theirs ^ np.uint64(h)) <= max_distance).any() for h in hashes], dtype=bool)


def groups_of(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the group that each of `count` photos belongs to, when pairs [P, 2] belong together: [count]."""
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def hold_out(
    ids: Sequence[str], groups: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides photos into a larger and a held-out part, whole groups at a time.

    The result depends on names, groups and seed alone, not on the order of the list.

    Args:
        ids: Names of the photos.
        groups: Group of each photo [N].
        fraction: Part to hold out, reached as closely as whole groups allow.
        seed: Another seed, another division.

    Returns:
        Indices of the larger part and of the held-out part, both in rising order.
    """
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(ids)), key=lambda i: ids[i]):
        members.setdefault(int(groups[index]), []).append(index)

    def rank(group: int) -> bytes:
        first = ids[members[group][0]]
        return hashlib.blake2b(f"{seed}:{first}".encode(), digest_size=16).digest()

    wanted = round(fraction * len(ids))
    held: list[int] = []
    for group in sorted(members, key=rank):
        # a group that is much too large for the rest is passed over; smaller ones follow
        if len(held) + len(members[group]) <= max(wanted, 1):
            held += members[group]
    is_held = np.zeros(len(ids), dtype=bool)
    is_held[held] = True
    return np.nonzero(~is_held)[0], np.nonzero(is_held)[0]
