"""Whether a camera still sees its scene: not covered, overexposed, out of focus or turned away.

A look at the view every few seconds (`ppe_edge.cameras.look`) is compared with the camera's own history. The history forgets
slowly, learns nothing while the view is faulty, and needs no more memory after a year than after a minute.
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppe_edge.cameras.look import GRID, Floats, Look, displaced, look_at, reduce, unit_cells

ViewFault = Literal["covered", "overexposed", "out_of_focus", "turned"]
LABELS: Mapping[ViewFault, str] = {
    "covered": "covered or dark",
    "overexposed": "overexposed",
    "out_of_focus": "out of focus",
    "turned": "turned away",
}

CHECK_S = 3.0  # seconds between two looks
FADE_S = 8.0  # seconds over which frames are averaged, so that noise, rain and people who walk by fade
HISTORY_S = 600.0  # seconds over which the history forgets
SLOW_S = 6 * 3600.0  # seconds over which a second history forgets: mist that grows for an hour does not become usual in it
STEADY_S = 180.0  # seconds over which the steadiness of the camera is averaged
LEARN_LOOKS, LEARN_S = 8, 60.0  # the history counts from this many looks and seconds on
CONFIRM_S, CONFIRM_LOOKS = 20.0, 5  # a fault is reported after it has lasted this many seconds and looks
CLEAR_S, CLEAR_LOOKS = 9.0, 3  # a fault is cleared after this many seconds and looks without it
ACCEPT_S = 24 * 3600.0  # a view that stays turned for a day, and so through day and night, is the new view
NOISE_LOOKS = 7  # the noise is the median over this many pairs of frames
MAX_GAP_S = 60.0  # after a longer pause, the average starts again

BLANK = 1.5  # grey levels of contrast; a cell with less shows nothing
# A view with a smaller share of cells that show anything sees nothing, whatever its history. Cameras write the time and their
# name into the first and last rows of cells.
MIN_SHOWN, INNER_ROWS = 0.06, slice(1, -1)
STRUCTURED = 4.0  # grey levels of contrast; only such cells are compared
MIN_CELLS = 8  # with fewer of them, nothing is compared
# A cover lowers contrast but not brightness, or leaves a cell blank; night lowers both.
LOST_CONTRAST, KEPT_LEVEL, MAX_LOST = 0.3, 0.6, 0.7
BRIGHT = 245.0  # grey levels
MAX_BRIGHT = 0.5  # share of saturated cells
MIN_SHARPNESS = 0.45  # of the usual one
# The similarity of each cell's edges with the usual ones, minus the similarity with all other cells (the chance level): about 0
# for another view, 0.3 and more at night, under other lamps or in infrared. Below `MIN_LEARNT`, a look teaches nothing. A
# camera that is carried or patrols has no usual view to turn away from.
MIN_ALIGNED, MIN_LEARNT, MIN_STEADINESS = 0.12, 0.25, 0.4
# A camera that was turned a little still shows most of the usual view, but elsewhere: displaced, the edges fit this much better
# than as they are. In ordinary material, they fit worse: at most 0.6 times as well.
DISPLACED, MIN_DISPLACED = 1.5, 0.4
ALIKE = 0.5  # similarity of a cell in which the same things are visible; only such cells tell about the focus


@dataclass(frozen=True, kw_only=True)
class ViewChange:
    """A view that has become faulty, or has recovered.

    Attributes:
        fault: The fault; None if the view is well again.
        detail: The reason, in words.
    """

    fault: ViewFault | None
    detail: str


@dataclass(eq=False, kw_only=True)
class _History:
    """What is usual for a view.

    Attributes:
        look: Mean look over about `HISTORY_S`.
        slow: Mean look over about `SLOW_S`.
        looks: Number of looks in it.
        steadiness: Mean of how well the looks were aligned with it over about `STEADY_S`, whether it learnt from them or not.
        seen: Number of looks while the view was well.
        seconds: Time of these.
    """

    look: Look
    slow: Look
    looks: int = 1
    steadiness: float = 1.0
    seen: int = 0
    seconds: float = 0.0

    def note(self, aligned: float, elapsed: float) -> None:
        """Counts a look, and how well it was aligned."""
        self.seen += 1
        self.seconds += elapsed
        self.steadiness += max(1 / self.seen, 1 - math.exp(-elapsed / STEADY_S)) * (aligned - self.steadiness)

    def learn(self, look: Look, elapsed: float) -> None:
        """Moves towards a look. Cells without contrast teach nothing: they say nothing about sharpness and edges."""
        self.looks += 1
        self.look, self.slow = (
            _moved(before, look, max(1 / self.looks, 1 - math.exp(-elapsed / seconds)))
            for before, seconds in ((self.look, HISTORY_S), (self.slow, SLOW_S))
        )


def _moved(before: Look, look: Look, weight: float) -> Look:
    shown = np.where(look.contrast >= BLANK, np.float32(weight), np.float32(0))
    fine = np.kron(shown, np.ones((5, 5), dtype=np.float32))[..., None]
    return Look(
        level=before.level + shown * (look.level - before.level),
        contrast=before.contrast + shown * (look.contrast - before.contrast),
        sharpness=before.sharpness + shown * (look.sharpness - before.sharpness),
        edges=before.edges + fine * (look.edges - before.edges),
    )


@dataclass(frozen=True, eq=False)
class _Comparison:
    """How a look compares with the usual one.

    Attributes:
        structured: Which cells usually have structure [9, 16].
        alike: Similarity of each cell with itself [9, 16].
        aligned: Mean of these over cells with structure, minus the mean similarity with other cells; 1 if there are too few.
    """

    structured: NDArray[np.bool_]
    alike: Floats
    aligned: float


def _compare(look: Look, usual: Look) -> _Comparison:
    structured = usual.contrast >= STRUCTURED
    mine, others = unit_cells(look.edges), unit_cells(usual.edges)
    alike = (mine * others).sum(axis=1)
    cells = structured.ravel()
    count = int(np.count_nonzero(cells))
    if count < MIN_CELLS:
        return _Comparison(structured, alike.reshape(GRID), 1.0)
    all_pairs = float(mine[cells].sum(axis=0) @ others[cells].sum(axis=0))  # the sum of the similarities of all pairs
    chance = (all_pairs - float(alike[cells].sum())) / (count * (count - 1))
    return _Comparison(structured, alike.reshape(GRID), float(alike[cells].mean()) - chance)


def _lost(newest: Look, usual: Look, *, in_the_dark: bool = True) -> float:
    """Returns the share of the cells with structure that have lost it; 0 if there are too few.

    Args:
        newest: The look at the newest frame.
        usual: The usual look.
        in_the_dark: Whether cells that are blank and dark count: a cover leaves such cells, but so does nightfall.
    """
    structured = usual.contrast >= STRUCTURED
    if np.count_nonzero(structured) < MIN_CELLS:
        return 0.0
    lost = newest.contrast < LOST_CONTRAST * usual.contrast
    lost &= (newest.level > KEPT_LEVEL * usual.level) | (in_the_dark & (newest.contrast < BLANK))
    return float(lost[structured].mean())


def _moved_or_blurred(look: Look, usual: Look, *, in_the_dark: bool = True) -> ViewFault | None:
    """Returns whether a view is turned or out of focus compared with the usual one.

    Args:
        look: The look.
        usual: The usual look.
        in_the_dark: Whether the focus of a view that is darker than usual counts: lamps and noise change its sharpness.
    """
    comparison = _compare(look, usual)
    if np.count_nonzero(comparison.structured) < MIN_CELLS:
        return None
    here, elsewhere = displaced(look.edges, usual.edges)
    if comparison.aligned < MIN_ALIGNED or elsewhere >= max(MIN_DISPLACED, DISPLACED * here):
        return "turned"
    if not in_the_dark and np.median((look.level / np.maximum(usual.level, 1e-6))[comparison.structured]) < KEPT_LEVEL:
        return None
    both = comparison.structured & (look.contrast >= STRUCTURED / 2) & (comparison.alike >= ALIKE)
    if np.count_nonzero(both) >= MIN_CELLS:
        sharpness = float(np.median(look.sharpness[both] / np.maximum(usual.sharpness[both], 1e-6)))
        if sharpness < MIN_SHARPNESS:
            return "out_of_focus"
    return None


class ViewWatch:
    """Watches the view of one camera. Used by one thread; any may read `fault`.

    Attributes:
        fault: The reported fault; None while the view is well.
    """

    def __init__(self) -> None:
        self.fault: ViewFault | None = None
        self._mean: Floats | None = None  # of the last frames
        self._previous: Floats | None = None
        self._noise: deque[float] = deque(maxlen=NOISE_LOOKS)  # variance of the noise of the last frames
        self._frames = 0  # in the mean
        self._size: tuple[int, int] | None = None
        self._last = -math.inf
        self._history: _History | None = None
        self._changing: tuple[float, int] | None = None  # since when the view differs from `fault`, and in how many looks
        self._fault_since = 0.0

    def update(self, image: NDArray[np.uint8], now: float) -> ViewChange | None:
        """Looks at a frame, uint8 [H, W, 3], if the last look was long enough ago; returns a change that is now certain.

        Args:
            image: The frame.
            now: Its time, seconds, steady.
        """
        elapsed = now - self._last
        if 0 <= elapsed < CHECK_S:
            return None
        self._last = now
        size = (image.shape[0], image.shape[1])
        if self._size is not None and abs(size[1] / size[0] * self._size[0] / self._size[1] - 1) > 0.02:
            self._history = self._mean = None  # another shape shows another part of the scene
        self._size = size
        look, newest = self._average(reduce(image), elapsed)
        seconds = min(max(elapsed, 0.0), MAX_GAP_S) if math.isfinite(elapsed) else 0.0
        found = self._judge(look, newest)
        if self.fault is None:
            self._learn(look, newest, seconds, found is None)
        return self._confirm(found, now)

    def _average(self, grey: Floats, elapsed: float) -> tuple[Look, Look]:
        """Adds a frame to the mean; returns the looks of the mean and of the frame."""
        if self._mean is None or not 0 <= elapsed <= MAX_GAP_S:
            self._mean, self._previous, self._frames = grey, None, 0
            self._noise.clear()
        self._frames += 1
        weight = max(1 / self._frames, 1 - math.exp(-elapsed / FADE_S)) if math.isfinite(elapsed) else 1.0
        if self._previous is not None:
            # the fit leaves out a change of light, the first median what moves in the frame, the second one all other changes
            now, before = grey[::3, ::3].ravel(), self._previous[::3, ::3].ravel()
            (variance, covariance), _ = np.cov(before, now)
            change = (now - now.mean()) - covariance / max(variance, 1e-6) * (before - before.mean())
            deviation = float(np.median(np.abs(change))) / 0.6745
            self._noise.append(deviation * deviation / 2)
        self._previous = grey
        self._mean = self._mean + np.float32(weight) * (grey - self._mean)
        noise = statistics.median(self._noise) if self._noise else 0.0
        return look_at(self._mean, noise * max(1 / self._frames, weight / (2 - weight))), look_at(grey)

    def _judge(self, look: Look, newest: Look) -> ViewFault | None:
        bright = float((newest.level >= BRIGHT).mean())
        if float((newest.contrast[INNER_ROWS] >= BLANK).mean()) < MIN_SHOWN:
            return "overexposed" if bright >= MAX_BRIGHT else "covered"
        if self._history is None or self._history.seen < LEARN_LOOKS or self._history.seconds < LEARN_S:
            return None
        usual = self._history.look, self._history.slow
        if max(_lost(newest, usual[0]), _lost(newest, usual[1], in_the_dark=False)) >= MAX_LOST:
            return "overexposed" if bright >= MAX_BRIGHT else "covered"
        if self._history.steadiness < MIN_STEADINESS:
            return None
        return _moved_or_blurred(look, usual[0]) or _moved_or_blurred(look, usual[1], in_the_dark=False)

    def _learn(self, look: Look, newest: Look, seconds: float, is_well: bool) -> None:
        if self._history is None:
            if not is_well:
                return
            self._history = _History(look=look, slow=look)
        aligned = _compare(newest, self._history.look).aligned
        self._history.note(aligned, seconds)
        if is_well and aligned >= MIN_LEARNT:
            self._history.learn(look, seconds)

    def _confirm(self, found: ViewFault | None, now: float) -> ViewChange | None:
        if found == self.fault:
            self._changing = None
            if self.fault == "turned" and now - self._fault_since >= ACCEPT_S:
                self._history = None
                return self._report(None, now, "the changed view has lasted for a day and is taken as the new one")
            return None
        since, looks = self._changing or (now, 0)
        self._changing = since, looks + 1
        seconds, needed = (CLEAR_S, CLEAR_LOOKS) if found is None else (CONFIRM_S, CONFIRM_LOOKS)
        if now - since < seconds or looks + 1 < needed:
            return None
        if found is None:
            return self._report(None, now, f"the view is no longer {LABELS[self.fault] if self.fault else 'faulty'}")
        return self._report(found, now, f"the view is {LABELS[found]}")

    def _report(self, fault: ViewFault | None, now: float, detail: str) -> ViewChange:
        self.fault, self._changing, self._fault_since = fault, None, now
        return ViewChange(fault=fault, detail=detail)
