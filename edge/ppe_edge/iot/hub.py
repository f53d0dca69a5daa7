"""The connection to the hub of IoT Edge, shared by the IoT Hub sink and the module twin.

A module identity may be connected only once. azure-iot-device loses messages in flight when the hub disconnects, waits forever
when the hub freezes, and may report a connection although patches no longer arrive. Therefore its own retries are off: at the
first problem the client is discarded, and a new one is created.
"""

import asyncio
import contextlib
import gc
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ppe_edge.common.backoff import Backoff
from ppe_edge.errors import EdgeError

if TYPE_CHECKING:
    from azure.iot.device.aio import IoTHubModuleClient  # takes a fifth of a second, and is only needed with IoT Edge

_log = logging.getLogger(__name__)
logging.getLogger("azure.iot").setLevel(logging.ERROR)  # it logs six lines per message
_KEEP_ALIVE_S = 10  # also bounds how long a TLS handshake with a frozen hub blocks the only thread of the client
_CONNECT_S = 30.0
_SHUTDOWN_S = 5.0
_SHUTDOWN_TRIES = 3
_VARIABLES = {"IOTEDGE_WORKLOADURI", "EdgeHubConnectionString"}  # set in a module, and on a developer's machine
_T = TypeVar("_T")


class HubUnavailable(Exception):  # noqa: N818 - a state, not an error
    """There is no connection to the hub, or it was lost.

    Args:
        reason: One line.
        outcome_unknown: Whether the call may have succeeded.
    """

    def __init__(self, reason: str, outcome_unknown: bool) -> None:
        super().__init__(reason)
        self.outcome_unknown = outcome_unknown


class HubConnection:
    """Keeps a client connected. The address of the hub comes from variables that IoT Edge sets.

    A thread of its own runs the loop, and it alone touches `_client`; `call` hands it what other threads want.

    Attributes:
        connected: Set while a client is connected.

    Raises:
        EdgeError: The variables are not set.
    """

    def __init__(self) -> None:
        if not _VARIABLES & set(os.environ):
            raise EdgeError(
                setting="sinks.iothub and twin",
                expected="the environment variables that IoT Edge sets in a module (IOTEDGE_WORKLOADURI, ...)",
                got="none of them",
                hint="run the box as an IoT Edge module, or remove sinks.iothub and twin",
            )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self._on_client: list[Callable[[IoTHubModuleClient], None]] = []
        self._on_connected: list[Callable[[], None]] = []
        self._client: IoTHubModuleClient | None = None
        self._broken = asyncio.Event()  # set in the loop's thread, by `_lose` and `stop`
        self._stopping = False
        self._problem = ""  # of the last attempt to connect
        self._tried = threading.Event()  # set when the first attempt has ended
        self.connected = threading.Event()

    def subscribe(self, on_client: Callable[["IoTHubModuleClient"], None], on_connected: Callable[[], None]) -> None:
        """Registers callbacks; call before `start`.

        Args:
            on_client: Sets handlers on each new client; may block.
            on_connected: Called when a new client is connected.
        """
        self._on_client.append(on_client)
        self._on_connected.append(on_connected)

    def start(self) -> None:
        """Starts the thread that connects; returns at once."""
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Waits for the end of the first attempt to connect.

        Raises:
            HubUnavailable: It failed, or takes longer than `timeout_s`.
        """
        if not self._tried.wait(timeout_s) or not self.connected.is_set():
            raise HubUnavailable(self._problem or f"no answer from the hub within {timeout_s:g} s", outcome_unknown=False)

    def stop(self, timeout_s: float) -> None:
        """Disconnects; gives up after `timeout_s`, or earlier if there is no connection."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._broken.set)
        self._thread.join(timeout_s if self.connected.is_set() else min(timeout_s, 0.5))

    def call(self, action: Callable[["IoTHubModuleClient"], Awaitable[_T]], timeout_s: float) -> _T:
        """Calls a method of the client. Must not be called from the connection's own thread.

        Args:
            action: The call, such as `lambda client: client.get_twin()`.
            timeout_s: Seconds after which the call has failed and the client counts as broken.

        Raises:
            HubUnavailable: There is no connection, or the call failed or timed out.
        """
        if self._stopping or not self.connected.is_set():
            raise HubUnavailable("not connected to the hub", outcome_unknown=False)
        return asyncio.run_coroutine_threadsafe(self._call(action, timeout_s), self._loop).result()

    async def _call(self, action: Callable[["IoTHubModuleClient"], Awaitable[_T]], timeout_s: float) -> _T:
        client = self._client
        if client is None:
            raise HubUnavailable("not connected to the hub", outcome_unknown=False)
        task = asyncio.ensure_future(action(client))
        # a late call is neither cancelled, which breaks the client, nor awaited: discarding the client ends it
        finished, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not finished:
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
            self._lose(client)
            raise HubUnavailable(f"no answer from the hub within {timeout_s:g} s", outcome_unknown=True)
        try:
            return task.result()
        except Exception as error:  # the client wraps all kinds of errors
            self._lose(client)
            raise HubUnavailable(f"{type(error).__name__}: {error}", outcome_unknown=True) from error

    def _lose(self, client: "IoTHubModuleClient") -> None:
        """Stops using a client that failed; called in the loop's thread."""
        if client is self._client:
            self._client = None
            self.connected.clear()
            self._broken.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._supervise())
        finally:
            self.connected.clear()

    async def _supervise(self) -> None:
        """Uses one client after the other until `stop`; pauses in between."""
        backoff = Backoff(1.0, 15.0)
        while not self._stopping:
            self._broken.clear()
            gc.collect()  # a discarded client has reference cycles, and holds sockets until it is collected
            await self._use_client(backoff)
            if not self._stopping:
                with contextlib.suppress(TimeoutError):  # `_broken` ends the pause
                    await asyncio.wait_for(self._broken.wait(), backoff.next())

    async def _use_client(self, backoff: Backoff) -> None:
        """Connects a new client; returns when that fails, or when its connection is lost."""
        client = None
        try:
            client = await _in_thread(self._build, _CONNECT_S)
            await asyncio.wait_for(client.connect(), _CONNECT_S)
            for on_client in self._on_client:  # setting a handler subscribes, and blocks until the hub confirms
                await _in_thread(partial(on_client, client), _CONNECT_S)
            if not client.connected or self._stopping:
                return
            self._client = client
            self.connected.set()
            self._tried.set()
            backoff.reset()
            _log.info("hub: connected")
            for on_connected in self._on_connected:
                on_connected()
            await self._broken.wait()
            if not self._stopping:
                _log.warning("hub: connection lost")
        except Exception as error:  # any error: the next attempt uses a new client
            reason = f"{type(error).__name__}: {error}"
            self._problem = f"cannot connect: {reason}"
            _log.warning("hub: cannot connect: %s", reason)
        finally:
            self._client = None
            self.connected.clear()
            self._tried.set()
            if client is not None:
                await _discard(client)

    def _build(self) -> "IoTHubModuleClient":
        from azure.iot.device.aio import IoTHubModuleClient

        client = IoTHubModuleClient.create_from_edge_environment(
            auto_connect=False, connection_retry=False, ensure_desired_properties=False, keep_alive=_KEEP_ALIVE_S
        )

        def changed() -> None:
            if not client.connected:
                self._loop.call_soon_threadsafe(self._lose, client)

        client.on_connection_state_change = changed
        return client


async def _discard(client: "IoTHubModuleClient") -> None:
    """Shuts a client down. One that is just losing its connection fails at first, and would leak without another try."""
    for _ in range(_SHUTDOWN_TRIES):
        try:
            await asyncio.wait_for(client.shutdown(), _SHUTDOWN_S)
            return
        except Exception as error:
            _log.info("hub: the old client did not shut down: %s", type(error).__name__)
            await asyncio.sleep(0.1)


async def _in_thread(function: Callable[[], _T], timeout_s: float) -> _T:
    """Runs a blocking function in a daemon thread, so that one that hangs does not keep the process alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def finish(result: _T | None, error: BaseException | None) -> None:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = (function(), None)
        except BaseException as error:
            outcome = (None, error)
        loop.call_soon_threadsafe(finish, *outcome)

    threading.Thread(target=work, name="hub-call", daemon=True).start()
    return await asyncio.wait_for(future, timeout_s)
