"""Votes of recent frames on whether a head is a violation."""

import math
from collections import deque
from collections.abc import Iterable

from ppe_edge.rules.config import RuleConfig
from ppe_yolo.core.words import plural

MIN_VOTES = 3  # for a decision by time, however slow the camera
STRETCH_FRAMES = 2 * MIN_VOTES  # the window never reaches back further than `seconds` and this many frames of the camera
MIN_RATE = 0.2  # frames per second; the rule is tested down to this rate
SHARE_OF_SETTING = 0.5  # `fps` is a maximum, and a camera may deliver fewer frames at night


def frames_to_decide(rule: RuleConfig, fps: float) -> int:
    """Returns after how many frames a violation is reported, if each of them shows it.

    Args:
        rule: The rule.
        fps: Frames per second of the camera.
    """
    if rule.seconds is None:
        return rule.frames
    # in floating point, 1.5 * 8 may be a little more or less than 12
    return max(MIN_VOTES, math.ceil(rule.seconds * fps - 1e-6) + 1)


def why_too_short(rules: Iterable[RuleConfig], frames: int, seconds: float) -> str:
    """Returns why none of the rules can report anything in a video or a folder; empty if one can.

    Args:
        rules: The rules.
        frames: Number of frames.
        seconds: Time from the first to the last frame.
    """
    needed: dict[str, None] = {}
    for rule in rules:
        least, least_s = (rule.frames, 0.0) if rule.seconds is None else (MIN_VOTES, rule.seconds)
        if frames >= least and seconds >= least_s:
            return ""
        needed[f"{least} frames" + (f" and {least_s:g} s" if least_s else "")] = None
    return f"only {plural(frames, 'frame')} in {seconds:.3g} s: an alert needs {' or '.join(needed)}"


def required_rate(rule: RuleConfig, fps: float | None) -> float:
    """Returns how many frames per second a camera needs: half of its `fps`, and what the rule needs to decide in `seconds`.

    A lower `fps` is a decision of the user: the rule then asks for no more than 0.8 of it.

    Args:
        rule: The rule.
        fps: Setting of the camera; None for the rate of the stream.
    """
    by_rule = MIN_RATE if rule.seconds is None else max(MIN_RATE, (MIN_VOTES - 1) / rule.seconds)
    return by_rule if fps is None else max(SHARE_OF_SETTING * fps, min(by_rule, 0.8 * fps))


class VoteWindow:
    """The votes of the last frames in which a head was detected.

    By time (`seconds`), the window holds the votes of the last `seconds`. Where frames are rare, it stretches: it always holds
    the last `MIN_VOTES` votes, unless they are older than the last `STRETCH_FRAMES` frames of the camera. At more than
    5 / `seconds` frames per second, it therefore never stretches. A decision needs `MIN_VOTES` votes, `frames` / `of` of all
    votes in the window, and `seconds` of observation. With `seconds: 1.5`, it takes 13 frames (1.5 s) at 8 frames per second,
    3 frames (2 s from the first to the last) at 1, and 3 frames (10 s) at 0.2.

    By frames (`seconds: null`), the window holds the last `of` votes, and `frames` equal ones decide.

    Args:
        rule: Length of the window, and the share of votes that decides.
    """

    def __init__(self, rule: RuleConfig) -> None:
        self._rule = rule
        self._votes: deque[tuple[float, bool]] = deque()  # (time, vote), oldest first
        self.positive = 0  # kept up to date: counting all votes of all heads in every frame would be slow

    def add(self, time: float, vote: bool, stretch_from: float = -math.inf) -> None:
        """Adds the vote of a frame, and drops votes that leave the window.

        Args:
            time: Time of the frame, seconds.
            vote: Whether it shows a violation.
            stretch_from: Time of the camera's frame `STRETCH_FRAMES` - 1 frames ago.
        """
        self._votes.append((time, vote))
        self.positive += vote
        while self._oldest_left_window(time, stretch_from):
            self.positive -= self._votes.popleft()[1]

    def decides(self, vote: bool, observed_s: float) -> bool:
        """Returns whether enough votes are equal to `vote`.

        Args:
            vote: True for a violation.
            observed_s: For how long the head has been observed under this rule. Shorter than `seconds` never decides, unless
                the window is counted in frames.
        """
        count = len(self._votes)
        votes = self.positive if vote else count - self.positive
        if self._rule.seconds is None:
            return votes >= self._rule.frames
        return observed_s >= self._rule.seconds and count >= MIN_VOTES and votes * self._rule.of >= self._rule.frames * count

    def _oldest_left_window(self, now: float, stretch_from: float) -> bool:
        if self._rule.seconds is None:
            return len(self._votes) > self._rule.of
        oldest = self._votes[0][0]
        return now - oldest > self._rule.seconds and (len(self._votes) > MIN_VOTES or oldest < stretch_from)
