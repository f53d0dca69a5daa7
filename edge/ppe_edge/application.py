"""The whole process: runtime, web page and remote control, started and stopped together."""

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppe_edge.config import EdgeSettings, load_settings
from ppe_edge.control import Control, read_desired
from ppe_edge.errors import EdgeError
from ppe_edge.iot.twin import TwinClient
from ppe_edge.runtime import GRACE, Runtime
from ppe_edge.web.config import listen
from ppe_edge.web.status import RuntimeStatus

if TYPE_CHECKING:
    from ppe_edge.web.server import WebServer

_log = logging.getLogger(__name__)


class Application:
    """Everything that runs in the process. `run` may be called once.

    Args:
        config_file: edge.yaml.
        document: Its content.
        settings: The settings in this file.
        record: Folder for annotated videos; None for none.

    Attributes:
        runtime: The running box.
        reload: Reads edge.yaml again; see `Control.reload`.

    Raises:
        EdgeError: A part that is needed at the start cannot be used.
    """

    def __init__(self, config_file: Path, document: Mapping[str, Any], settings: EdgeSettings, record: Path | None) -> None:
        # before anything is opened, stored or sent: if the port is taken, another box often uses the same state folder
        self._listener = listen(settings.web) if settings.web.enabled else None
        desired = read_desired(settings.state_dir)
        try:
            self.runtime = Runtime(load_settings(config_file, desired, document=document) if desired else settings, record)
        except EdgeError as error:
            if not desired:
                raise
            # edge.yaml, or a file that it names, has changed since; the twin is read again as soon as it is reachable
            _log.warning("the latest desired values of the twin are no longer valid, and are ignored: %s", error)
            desired = {}
            self.runtime = Runtime(settings, record)
        self._control = control = Control(self.runtime, config_file, desired, document)
        self.reload = control.reload
        methods = {"health": control.health, "snapshot": control.snapshot, "reload": control.reload}
        hub = self.runtime.hub if settings.twin.enabled else None
        self._twin = None if hub is None else TwinClient(hub, control.apply, methods, control.reported)

    @property
    def page(self) -> str | None:
        """Address of the web page; None if it is not served."""
        web = self.runtime.settings.web
        return None if self._listener is None else f"http://{web.host}:{self._listener.getsockname()[1]}"

    def run(self) -> int:
        """Runs until the runtime ends or is asked to stop; returns the exit code."""
        if self._twin is not None:
            self._twin.start()
        self.runtime.start()
        web = None
        try:
            web = self._start_web()
            self.runtime.watch()
        finally:
            self._stop(web)
        return 1 if self.runtime.failed else 0

    def _start_web(self) -> "WebServer | None":
        if self._listener is None:
            return None
        from ppe_edge.web.server import WebServer  # aiohttp is slow to import, and the cameras need not wait for it

        web = WebServer(
            self.runtime.settings.web, RuntimeStatus(self.runtime), self.runtime.desk, self._control, self._listener
        )
        web.start()
        return web

    def _stop(self, web: "WebServer | None") -> None:
        _log.info("stopping")
        # a decoder or a client that hangs in C must not keep the process alive
        last_resort = threading.Timer(GRACE - 0.1, os._exit, [1])
        last_resort.daemon = True
        last_resort.start()
        if web is not None:
            web.stop()
        if self._twin is not None:
            self._twin.stop(0.2)
        self.runtime.stop()
