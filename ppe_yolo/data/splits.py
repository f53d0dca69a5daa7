"""Splits that keep images that look alike together, so that no validation image was seen in training."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_DISTANCE = 4  # of 64 bits: the same scene a moment later
_BITS = 64
_SMALL_BUCKET = 16  # hashes; larger buckets are searched one hash after another, without storing pairs


def group_alike(hashes: NDArray[np.uint64], max_distance: int = MAX_DISTANCE) -> NDArray[np.int64]:
    """Groups images that look alike, directly or through others in between.

    The bits are cut into `max_distance` + 2 bands. Two hashes that differ in at most `max_distance` bits agree in at least two
    whole bands (pigeonhole principle), so only hashes that agree in two bands are compared: the result is exact, and the time
    grows almost linearly with N. Memory is proportional to N, however many images look alike.

    Args:
        hashes: Perceptual hashes [N].
        max_distance: Largest number of differing bits of two images that look alike, at most 62.

    Returns:
        Group of each image [N], numbered in the order of their first images.
    """
    distinct, index = np.unique(hashes, return_inverse=True)
    labels = np.arange(len(distinct))
    for mask in _masks(max_distance + 2):
        order = np.argsort(distinct & mask, kind="stable")
        first, second = _links(distinct[order], (distinct & mask)[order], labels[order], max_distance)
        links = (np.ones(len(first), dtype=bool), (first, second))
        labels = connected_components(coo_array(links, shape=(len(labels), len(labels))), directed=False)[1][labels]
    first_image, group = np.unique(labels[index], return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(first_image))[group]


def _masks(bands: int) -> Iterator[np.uint64]:
    """The bits of each pair of bands."""
    edges = [band * _BITS // bands for band in range(bands + 1)]
    masks = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    for one, other in combinations(masks, 2):
        yield np.uint64(one | other)


def _links(
    hashes: NDArray[np.uint64], keys: NDArray[np.uint64], labels: NDArray[np.int64], max_distance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels that belong together, as far as hashes of one key tell: first and second of each link.

    Args:
        hashes: Distinct hashes [N], in the order of their keys.
        keys: The part of each hash that must be equal for a comparison [N].
        labels: The groups known so far [N].
        max_distance: See `group_alike`.
    """
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(keys)])
    left = np.repeat(starts + sizes, sizes) - np.arange(len(keys))  # from each hash to the end of its bucket
    left[np.repeat(sizes > _SMALL_BUCKET, sizes)] = 0
    firsts, seconds = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for step in range(1, _SMALL_BUCKET):
        at = np.flatnonzero(left > step)
        at = at[np.bitwise_count(hashes[at] ^ hashes[at + step]) <= max_distance]
        firsts.append(labels[at])
        seconds.append(labels[at + step])
    for start, size in zip(starts[sizes > _SMALL_BUCKET], sizes[sizes > _SMALL_BUCKET], strict=True):
        rest = np.arange(start, start + size)
        if (labels[rest] == labels[start]).all():
            continue
        while len(rest):  # a search through one component; what is reached is never compared again
            reached = rest[:1].tolist()
            rest = rest[1:]
            while reached and len(rest):
                at = reached.pop()
                is_near = np.bitwise_count(hashes[rest] ^ hashes[at]) <= max_distance
                near, rest = rest[is_near], rest[~is_near]
                firsts.append(np.full(len(near), labels[at]))
                seconds.append(labels[near])
                reached += near.tolist()
    return np.concatenate(firsts), np.concatenate(seconds)


def near_any(hashes: Sequence[int], others: Sequence[int], max_distance: int = MAX_DISTANCE) -> NDArray[np.bool_]:
    """Whether each image looks like any of some others: perceptual hashes [N], [M] -> [N].

    Exact, and almost linear in N + M, for the reason that `group_alike` gives.
    """
    ours, index = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    theirs = np.unique(np.array(others, dtype=np.uint64))
    is_near = np.zeros(len(ours), dtype=bool)
    for mask in _masks(max_distance + 2):
        order = np.argsort(theirs & mask, kind="stable")
        keys = (theirs & mask)[order]
        left = np.flatnonzero(~is_near)  # compared with one hash of their bucket after another
        at = np.searchsorted(keys, ours[left] & mask, side="left")
        end = np.searchsorted(keys, ours[left] & mask, side="right")
        while (in_bucket := at < end).any():
            left, at, end = left[in_bucket], at[in_bucket], end[in_bucket]
            found = np.bitwise_count(ours[left] ^ theirs[order[at]]) <= max_distance
            is_near[left[found]] = True
            left, at, end = left[~found], at[~found] + 1, end[~found]
    return is_near[index]


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
