import threading
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ppe_edge.cameras.mailbox import Frame, FrameMailbox

IMAGE = np.zeros((2, 2, 3), dtype=np.uint8)
SOON = 10.0  # seconds that a thread may need on a busy machine


def frame(camera: str, number: int = 0) -> Frame:
    return Frame(camera=camera, number=number, time=0.0, monotonic=0.0, image=IMAGE)


def named(frames: list[Frame]) -> list[tuple[str, int]]:
    return [(f.camera, f.number) for f in frames]


def in_thread(target: object, *args: object, **kwargs: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, kwargs=kwargs, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def until(condition: object) -> None:
    end = time.monotonic() + SOON
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_newest_picture_replaces_the_one_that_waits() -> None:
    mailbox = FrameMailbox()
    assert [mailbox.put(frame("a", n)) for n in range(3)] == [False, True, True]
    assert named(mailbox.take(8, 0.0)) == [("a", 2)]
    assert mailbox.take(8, 0.0) == []


def test_who_waits_longest_comes_first_and_a_newer_picture_keeps_the_place() -> None:
    mailbox = FrameMailbox()
    for camera, number in [("a", 0), ("b", 0), ("c", 0), ("a", 1)]:
        mailbox.put(frame(camera, number))
    assert named(mailbox.take(2, 0.0)) == [("a", 1), ("b", 0)]
    mailbox.put(frame("a", 2))
    assert named(mailbox.take(2, 0.0)) == [("c", 0), ("a", 2)]


def test_a_fast_camera_takes_no_turn_from_the_others() -> None:
    mailbox = FrameMailbox()
    turns: Counter[str] = Counter()
    for number in range(300):
        for camera, pictures in (("fast", 7), ("b", 1), ("c", 1)):
            for _ in range(pictures):
                mailbox.put(frame(camera, number))
        turns.update(f.camera for f in mailbox.take(1, 0.0))
    assert turns == {"fast": 100, "b": 100, "c": 100}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from("abcd"), st.integers(1, 4)), max_size=60))
def test_every_picture_is_taken_or_counted_as_dropped(steps: list[str | int]) -> None:
    mailbox = FrameMailbox()
    put, dropped, taken = 0, 0, []
    for step in [*steps, 4]:
        if isinstance(step, str):
            dropped += mailbox.put(frame(step, put))
            put += 1
        else:
            batch = mailbox.take(step, 0.0)
            assert len({f.camera for f in batch}) == len(batch) <= step
            taken += batch
    assert put == dropped + len(taken)
    for camera in "abcd":
        numbers = [f.number for f in taken if f.camera == camera]
        assert numbers == sorted(set(numbers))


def test_of_a_file_every_picture_is_taken_in_order() -> None:
    mailbox = FrameMailbox()
    reader = in_thread(lambda: [mailbox.put(frame("clip", n), wait=True) for n in range(50)])
    taken: list[Frame] = []
    until(lambda: taken.extend(mailbox.take(8, 0.1)) or len(taken) == 50)
    assert [f.number for f in taken] == list(range(50))
    reader.join(SOON)
    assert not reader.is_alive()


@pytest.mark.parametrize("let_go", [FrameMailbox.close, lambda mailbox: mailbox.discard("clip")])
def test_who_waits_is_let_go(let_go: object) -> None:
    mailbox = FrameMailbox()
    reader = in_thread(mailbox.put, frame("clip"), wait=True)
    until(lambda: mailbox._waiting)
    assert reader.is_alive()
    let_go(mailbox)  # type: ignore[operator]
    reader.join(SOON)
    assert not reader.is_alive()


def test_a_picture_of_somebody_who_is_not_wanted_any_more_is_not_left() -> None:
    mailbox = FrameMailbox()
    mailbox.put(frame("a", 0))
    mailbox.discard("a")
    assert not mailbox.put(frame("a", 1), wait=True, unless=lambda: True)
    assert mailbox.take(8, 0.0) == []


def test_after_close_nothing_comes_in_and_what_waits_can_be_taken() -> None:
    mailbox = FrameMailbox()
    mailbox.put(frame("a"))
    mailbox.close()
    assert not mailbox.put(frame("b"), wait=True)
    assert named(mailbox.take(8, 60.0)) == [("a", 0)]
    assert mailbox.take(8, 60.0) == []  # at once: there will never be one


def test_who_takes_is_woken_by_a_picture() -> None:
    mailbox = FrameMailbox()
    taken: list[Frame] = []
    taker = in_thread(lambda: taken.extend(mailbox.take(8, 60.0)))
    mailbox.put(frame("a", 7))
    taker.join(SOON)
    assert named(taken) == [("a", 7)]
