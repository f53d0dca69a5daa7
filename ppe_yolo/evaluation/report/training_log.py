"""Curves of a training, read from the TensorBoard log in its run folder."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ppe_yolo.core.errors import UserError

Curves = dict[str, tuple[Sequence[int], Sequence[float]]]  # name -> steps, values
# prefix of a logged name -> chart
_PARTS = {"train/": "loss", "val/": "average precision"}


def read_training_curves(run_dir: Path) -> Mapping[str, Curves]:
    """Loss terms and validation figures by chart.

    Raises:
        UserError: The folder has no log of a training.
    """
    if not list(run_dir.glob("events.out.tfevents.*")):
        raise UserError(
            file=run_dir,
            expected="a run folder with a TensorBoard log (events.out.tfevents...)",
            got="none" if run_dir.is_dir() else "no such folder",
        )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    log = EventAccumulator(str(run_dir), size_guidance={"scalars": 2000})
    log.Reload()
    parts: dict[str, Curves] = defaultdict(dict)
    for tag in log.Tags()["scalars"]:
        for beginning, part in _PARTS.items():
            if tag.startswith(beginning):
                events = log.Scalars(tag)
                parts[part][tag.removeprefix(beginning)] = ([e.step for e in events], [e.value for e in events])
    if not parts:
        raise UserError(
            "the TensorBoard log has no value of train/ or val/", file=run_dir, hint="give the run folder of a training"
        )
    return dict(parts)
