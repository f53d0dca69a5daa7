"""The whole process: the runtime, the page and remote control, started and stopped together."""

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ppe_edge.config import EdgeSettings, load_settings
from ppe_edge.control import Control, read_desired
from ppe_edge.errors import EdgeError
from ppe_edge.iot.twin import TwinClient
from ppe_edge.runtime import GRACE, Runtime
from ppe_edge.web.config import listen
from ppe_edge.web.window import RuntimeWindow

if TYPE_CHECKING:
    from ppe_edge.web.server import WebServer

_log = logging.getLogger(__name__)


class Application:
    """Made, run once, gone.

    Args:
        config_file: edge.yaml.
        settings: What it holds.
        record: A folder for annotated videos; none when None.

    Raises:
        EdgeError: Something that is needed at start cannot be used.
    """

    def __init__(self, config_file: Path, settings: EdgeSettings, record: Path | None) -> None:
        # before anything is opened, stored or sent: what holds the port is often another box with the same state folder
        self._door = listen(settings.web) if settings.web.enabled else None
        desired = read_desired(settings.state_dir)
        try:
            self.runtime = Runtime(load_settings(config_file, desired) if desired else settings, record)
        except EdgeError as error:
            if not desired:
                raise
            # the file, or a file that it names, has changed since; the twin is asked again as soon as it can be reached
            _log.warning("what the twin wanted last no longer holds: %s", error)
            desired = {}
            self.runtime = Runtime(settings, record)
        control = Control(self.runtime, config_file, desired)
        methods = {"health": control.health, "snapshot": control.snapshot, "reload": control.reload}
        hub = self.runtime.hub if settings.twin.enabled else None
        self._twin = None if hub is None else TwinClient(hub, control.apply, methods, control.reported)

    def run(self) -> int:
        """Works until the runtime ends or is asked to; returns the exit code."""
        if self._twin is not None:
            self._twin.start()
        self.runtime.start()
        web = None
        try:
            web = self._serve()
            self.runtime.wait()
        finally:
            self._stop(web)
        return 1 if self.runtime.failed else 0

    def _serve(self) -> "WebServer | None":
        if self._door is None:
            return None
        from ppe_edge.web.server import WebServer  # its library is slow to load, and the cameras need not wait for it

        web = WebServer(self.runtime.settings.web, RuntimeWindow(self.runtime), self._door)
        web.start()
        return web

    def _stop(self, web: "WebServer | None") -> None:
        _log.info("stopping")
        # a decoder or a client that hangs in C must not keep the process
        last_resort = threading.Timer(GRACE - 0.1, os._exit, [1])
        last_resort.daemon = True
        last_resort.start()
        if web is not None:
            web.stop()
        if self._twin is not None:
            self._twin.stop(0.2)
        self.runtime.stop()
