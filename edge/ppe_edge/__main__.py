"""`python -m ppe_edge --config edge.yaml`: the box's command line."""

import argparse
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppe_edge.errors import EdgeError
from ppe_yolo.core.contract import ContractError

if TYPE_CHECKING:
    from ppe_edge.application import Application

USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the box until SIGTERM, or until every source has ended when all are files.

    Returns:
        The exit code: 0, 2 for a mistake (told in one line), 1 for a failure (a supervisor starts it again).
    """
    parser = argparse.ArgumentParser("ppe_edge", description="Watches cameras for heads without a helmet, and raises alerts.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="edge.yaml")
    parser.add_argument("--dry-run", action="store_true", help="check configuration, model and cameras; say what would run")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write what the cameras saw, annotated, as DIR/CAMERA.mp4")
    options = parser.parse_args(arguments)
    try:
        return _run(options.config, options.dry_run, options.record)
    except (EdgeError, ContractError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR


def _run(config: Path, dry_run: bool, record: Path | None) -> int:
    if dry_run:
        from ppe_edge.config import load_settings
        from ppe_edge.dry_run import dry_run as check

        return check(load_settings(config), config)
    application = prepare(config, record)
    stop_on_signals(application.runtime.stop_soon)
    return application.run()


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Has SIGTERM and SIGINT call `stop`, in a thread of its own.

    A handler interrupts the main thread anywhere, even while it holds the lock that `stop` needs, and would wait for it for
    ever; a SimpleQueue may be filled from there.
    """
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait() -> None:
        asked.get()
        stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.put(number))


def prepare(config: Path, record: Path | None) -> "Application":
    """The process's parts, not yet started.

    Raises:
        EdgeError, ContractError: A mistake in the configuration, or something that it names cannot be used.
    """
    from ppe_edge.config import load_settings
    from ppe_edge.memory import give_pictures_back

    give_pictures_back()
    settings = load_settings(config)
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    from ppe_edge.application import Application

    return Application(config, settings, record)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # an ordinary end would wait for the threads of a client that is stuck with a frozen hub
    os._exit(code)
