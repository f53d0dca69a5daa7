"""The module twin: applies desired properties, reports the outcome, and answers direct methods."""

import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ppe_edge.errors import EdgeError
from ppe_edge.iot.hub import HubConnection, HubUnavailable

if TYPE_CHECKING:
    from azure.iot.device import MethodRequest
    from azure.iot.device.aio import IoTHubModuleClient

_log = logging.getLogger(__name__)
_TIMEOUT_S = 15.0
_MAX_ANSWER_BYTES = 128 * 1024  # limit of IoT Hub for the response of a direct method


class TwinConfig(BaseModel):
    """Whether the module twin controls the box."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=False, description="Whether the module twin controls the box; requires IoT Edge.")


def merge_patch(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Applies a patch to a twin document: objects are merged, null removes a key (RFC 7396), $metadata is dropped."""
    merged = dict(document)
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge_patch(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


class TwinClient:
    """Passes desired values to the runtime, one document at a time, in a thread of its own.

    Args:
        hub: The connection. This object subscribes to it, so create it before `hub.start()`.
        apply: Applies the whole desired document (without $metadata), or raises `EdgeError` with a reason without changing
            anything. The reason must not contain passwords.
        methods: Name -> function of the request's payload that returns the response, or raises `EdgeError`.
        state: Returns more properties to report with each outcome and with each new connection.
    """

    def __init__(
        self,
        hub: HubConnection,
        apply: Callable[[dict[str, Any]], None],
        methods: Mapping[str, Callable[[Any], dict[str, Any]]],
        state: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._hub, self._apply, self._methods, self._state = hub, apply, dict(methods), state
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="twin", daemon=True)
        self._desired: dict[str, Any] = {}
        self._version: int | None = None  # None: unknown, so that a patch cannot be merged
        self._outcome: dict[str, Any] | None = None  # of the latest document
        hub.subscribe(self._listen, lambda: self._work.put(self._fetch))

    def start(self) -> None:
        """Starts the thread; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finishes the current document; gives up after `timeout_s`."""
        self._work.put(None)
        self._thread.join(timeout_s)

    def _listen(self, client: "IoTHubModuleClient") -> None:
        client.on_twin_desired_properties_patch_received = lambda patch: self._work.put(lambda: self._patch(patch))
        client.on_method_request_received = lambda request: self._work.put(lambda: self._answer(request))

    def _run(self) -> None:
        while (task := self._work.get()) is not None:
            try:
                task()
            except HubUnavailable as error:  # the next connection fetches the whole twin again
                self._version = None
                _log.warning("twin: %s", error)

    def _fetch(self) -> None:
        desired: dict[str, Any] = self._hub.call(lambda client: client.get_twin(), _TIMEOUT_S)["desired"]
        version, document = int(desired.get("$version", 0)), merge_patch({}, desired)
        if self._outcome is None or document != self._desired or version != self._outcome["version"]:
            self._set(document, version)
        else:
            self._version = version
            self._report()

    def _patch(self, patch: dict[str, Any]) -> None:
        version = patch.get("$version", 0)
        if self._version is not None and version <= self._version:
            return  # already fetched
        if self._version is None or version != self._version + 1:
            self._fetch()
        else:
            self._set(merge_patch(self._desired, patch), version)

    def _set(self, document: dict[str, Any], version: int) -> None:
        self._desired, self._version = document, version
        try:
            self._apply(json.loads(json.dumps(document)))
            self._outcome = {"version": version, "accepted": True, "reason": ""}
        except EdgeError as error:
            self._outcome = {"version": version, "accepted": False, "reason": str(error)[:1000]}
        except Exception as error:  # a bug must not end the remote control of the box
            _log.exception("twin: version %s failed", version)
            self._outcome = {"version": version, "accepted": False, "reason": f"internal error: {type(error).__name__}"}
        self._report()

    def _report(self) -> None:
        properties = {**self._state(), "config": self._outcome}
        self._hub.call(lambda client: client.patch_twin_reported_properties(properties), _TIMEOUT_S)

    def _answer(self, request: "MethodRequest") -> None:
        from azure.iot.device import MethodResponse

        status, payload = self._call_method(request.name, request.payload)
        if len(json.dumps(payload).encode()) > _MAX_ANSWER_BYTES:
            status, payload = 413, {"error": f"the response exceeds the {_MAX_ANSWER_BYTES} bytes that IoT Hub carries"}
        response = MethodResponse.create_from_method_request(request, status, payload)
        self._hub.call(lambda client: client.send_method_response(response), _TIMEOUT_S)

    def _call_method(self, name: str, payload: Any) -> tuple[int, dict[str, Any]]:
        if name not in self._methods:
            return 404, {"error": f"unknown method {name!r}, expected one of {', '.join(sorted(self._methods))}"}
        try:
            return 200, self._methods[name](payload)
        except EdgeError as error:
            return 400, {"error": str(error)}
        except Exception as error:
            _log.exception("twin: method %s failed", name)
            return 500, {"error": f"internal error: {type(error).__name__}"}
