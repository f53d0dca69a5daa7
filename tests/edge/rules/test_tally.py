import pytest
from ppe_edge.rules.tally import CountedTrack, Tallies


def counted(*frames: tuple[str | None, bool], track: int = 1) -> list[CountedTrack]:
    tallies = Tallies("rule")
    for number, (zone, is_violation) in enumerate(frames):
        tallies.add(track, 5.0 + number, zone, is_violation)
    assert tallies.current() == tallies.end({track}) + tallies.current()  # a track that is present has not ended
    ended = tallies.end(set())
    assert tallies.end(set()) == tallies.current() == []
    return ended


@pytest.mark.parametrize(
    ("violations", "compliant", "is_violation"), [(3, 0, True), (2, 2, True), (2, 3, False), (0, 3, False), (40, 39, True)]
)
def test_track_counts_once_by_most_of_its_frames(violations: int, compliant: int, is_violation: bool) -> None:
    [track] = counted(*[(None, True)] * violations, *[(None, False)] * compliant)
    assert track == CountedTrack(rule="rule", zone=None, first_seen=5.0, is_violation=is_violation)


def test_track_counts_in_zone_of_most_frames() -> None:
    [track] = counted(("gate", True), ("yard", False), ("yard", False), ("yard", False))
    assert (track.zone, track.is_violation) == ("yard", False)


def test_track_of_two_frames_does_not_count() -> None:
    assert counted((None, True), (None, True)) == []


def test_take_over_counts_track_once() -> None:
    before, after = Tallies("rule"), Tallies("rule")
    for tallies in (before, before, after):
        if tallies is after:
            after.take_over(before)
        tallies.add(7, 1.0, None, True)
    assert before.end(set()) == [] and len(after.end(set())) == 1
