import threading
from collections import Counter

import numpy as np
import pytest
from helpers import wait_until
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


def test_put_replaces_waiting_frame_of_same_camera() -> None:
    mailbox = FrameMailbox()
    assert [mailbox.put(frame("a", n)) for n in range(3)] == [False, True, True]
    assert named(mailbox.take(8, 0.0)) == [("a", 2)]
    assert mailbox.take(8, 0.0) == []


def test_take_returns_longest_waiting_camera_first_and_replacement_keeps_turn() -> None:
    mailbox = FrameMailbox()
    for camera, number in [("a", 0), ("b", 0), ("c", 0), ("a", 1)]:
        mailbox.put(frame(camera, number))
    assert named(mailbox.take(2, 0.0)) == [("a", 1), ("b", 0)]
    mailbox.put(frame("a", 2))
    assert named(mailbox.take(2, 0.0)) == [("c", 0), ("a", 2)]


def test_take_with_fast_camera_is_fair_to_others() -> None:
    mailbox = FrameMailbox()
    turns: Counter[str] = Counter()
    for number in range(300):
        for camera, frames in (("fast", 7), ("b", 1), ("c", 1)):
            for _ in range(frames):
                mailbox.put(frame(camera, number))
        turns.update(f.camera for f in mailbox.take(1, 0.0))
    assert turns == {"fast": 100, "b": 100, "c": 100}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from("abcd"), st.integers(1, 4)), max_size=60))
def test_every_frame_is_taken_or_counted_as_dropped(steps: list[str | int]) -> None:
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


def test_put_with_wait_delivers_every_frame_in_order() -> None:
    mailbox = FrameMailbox()
    reader = in_thread(lambda: [mailbox.put(frame("clip", n), wait=True) for n in range(50)])
    taken: list[Frame] = []
    wait_until(lambda: taken.extend(mailbox.take(8, 0.1)) or len(taken) == 50)
    assert [f.number for f in taken] == list(range(50))
    reader.join(SOON)
    assert not reader.is_alive()


@pytest.mark.parametrize("release", [FrameMailbox.close, lambda mailbox: mailbox.discard("clip")])
def test_waiting_reader_is_released_by_close_and_discard(release: object) -> None:
    mailbox = FrameMailbox()
    reader = in_thread(mailbox.put, frame("clip"), wait=True)
    wait_until(lambda: mailbox._waiting)
    assert reader.is_alive()
    release(mailbox)  # type: ignore[operator]
    reader.join(SOON)
    assert not reader.is_alive()


def test_put_with_unless_true_adds_nothing() -> None:
    mailbox = FrameMailbox()
    mailbox.put(frame("a", 0))
    mailbox.discard("a")
    assert not mailbox.put(frame("a", 1), wait=True, unless=lambda: True)
    assert mailbox.take(8, 0.0) == []


def test_closed_mailbox_rejects_frames_and_returns_waiting_ones() -> None:
    mailbox = FrameMailbox()
    mailbox.put(frame("a"))
    mailbox.close()
    assert not mailbox.put(frame("b"), wait=True)
    assert named(mailbox.take(8, 60.0)) == [("a", 0)]
    assert mailbox.take(8, 60.0) == []  # returns at once, since no frame can arrive


def test_take_wakes_up_on_put() -> None:
    mailbox = FrameMailbox()
    taken: list[Frame] = []
    taker = in_thread(lambda: taken.extend(mailbox.take(8, 60.0)))
    mailbox.put(frame("a", 7))
    taker.join(SOON)
    assert named(taken) == [("a", 7)]
