"""Votes of recent frames on whether a head is a violation."""

from collections import deque

from ppe_edge.rules.config import RuleConfig

MIN_VOTES = 3  # for a decision by time, however slow the camera


class VoteWindow:
    """The votes of the last frames in which a head was detected.

    Args:
        rule: Length of the window, and the share of votes that decides.
    """

    def __init__(self, rule: RuleConfig) -> None:
        self._rule = rule
        self._votes: deque[tuple[float, bool]] = deque()  # (time, vote), oldest first
        self.positive = 0  # kept up to date: counting all votes of all heads in every frame would be slow

    def add(self, time: float, vote: bool) -> None:
        """Adds the vote of a frame, and drops votes that leave the window."""
        self._votes.append((time, vote))
        self.positive += vote
        while self._oldest_left_window(time):
            self.positive -= self._votes.popleft()[1]

    def decides(self, vote: bool, observed_s: float) -> bool:
        """Returns whether enough votes are equal to `vote`.

        Args:
            vote: True for a violation.
            observed_s: For how long the head has been observed under this rule. Shorter than the window never decides, unless
                the window is counted in frames.
        """
        count = len(self._votes)
        votes = self.positive if vote else count - self.positive
        if self._rule.seconds is None:
            return votes >= self._rule.frames
        return observed_s >= self._rule.seconds and count >= MIN_VOTES and votes * self._rule.of >= self._rule.frames * count

    def _oldest_left_window(self, now: float) -> bool:
        if self._rule.seconds is None:
            return len(self._votes) > self._rule.of
        return now - self._votes[0][0] > self._rule.seconds
