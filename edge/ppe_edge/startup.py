"""How the process of the box starts: logging and memory, then the application; and how it handles signals."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppe_edge.application import Application


def prepare(config: Path, record: Path | None) -> "Application":
    """Builds the application, and sets up logging.

    Args:
        config: edge.yaml.
        record: Folder for annotated videos; None for none.

    Raises:
        UserError: The configuration is invalid, or something that it names cannot be used.
    """
    # slow to import: `ppe-edge --help` does without
    from ppe_edge.config import load_settings
    from ppe_edge.monitoring.memory import limit_heaps
    from ppe_edge.strict_yaml import read_yaml

    limit_heaps()
    document = read_yaml(config)  # once: the file may be replaced while the box starts
    settings = load_settings(config, document=document)
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    from ppe_edge.application import Application

    return Application(config, document, settings, record)


def handle_signals(stop: Callable[[], None], reload: Callable[[], object]) -> None:
    """Calls `stop` on SIGTERM and SIGINT, and `reload` on SIGHUP, in threads of their own.

    A Python handler runs in the main thread, which it interrupts anywhere: if that holds a lock that `stop` needs, a handler
    that calls `stop` would deadlock. And it does not run at all while the main thread waits, if the signal arrived just before
    the wait began. So the interpreter itself writes the signal to a pipe, from which the thread reads.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def wait() -> None:
        while os.read(read_end, 1)[0] == signal.SIGHUP:
            threading.Thread(target=reload, name="reload", daemon=True).start()  # it may take long, and must not delay `stop`
        stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
