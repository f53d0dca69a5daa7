"""The box at work: readers -> one processing thread -> the outbox -> a delivery thread a sink."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ppe_edge.cameras.camera import CameraEvent, CameraReader
from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.config import EdgeSettings
from ppe_edge.delivery.dispatcher import DeliveryThread, stop_all
from ppe_edge.delivery.messages import CameraEventMessage, Message, ModelReference
from ppe_edge.delivery.outbox import Outbox
from ppe_edge.delivery.sinks import build_sinks
from ppe_edge.errors import EdgeError
from ppe_edge.iot.hub import HubConnection
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.model.store import ModelStore
from ppe_edge.pictures.recorder import Recorder
from ppe_edge.pictures.sampler import Sampler
from ppe_edge.pipeline import Model, Pipeline
from ppe_edge.rules.tracker import Tracker
from ppe_edge.rules.violations import ViolationMonitor
from ppe_edge.telemetry import Asked, CameraFigures, Telemetry
from ppe_yolo.core.contract import ModelContract

GRACE = 5.0  # seconds from SIGTERM to the end
BEAT = 10.0  # a processing loop that has not turned for so many seconds is dead
ALERTS_SHOWN = 20
NOTE_SECONDS = 10.0  # so often it is kept on the disk that a violation still lasts
MOST_FAULTS = 20  # batches that fail in a row; then the process ends, and whoever runs it starts it anew

_log = logging.getLogger(__name__)


class Runtime:
    """Everything between the cameras and the sinks.

    Args:
        settings: Checked.
        record: A folder for annotated videos; none when None.

    Raises:
        EdgeError: The model, the state folder or a sink cannot be used.
    """

    def __init__(self, settings: EdgeSettings, record: Path | None = None) -> None:
        self.settings = settings
        self.started_at = time.monotonic()
        self.beat = self.started_at  # when the processing loop last turned
        self.failed = False
        self.first_detection_at: float | None = None
        self.store = ModelStore(make_folder(settings.state_dir), settings.model)
        self.detector = self.store.open()
        self.model = model_of(self.detector)
        require_possible(settings, self.model.contract)
        self.hub = HubConnection() if settings.twin.enabled or settings.sinks.iothub is not None else None
        self.sinks = build_sinks(settings.sinks, self.hub)
        self.outbox = Outbox(settings.outbox, settings.state_dir, list(self.sinks))
        self.deliveries = [DeliveryThread(name, sink, self.outbox) for name, sink in self.sinks.items()]
        self.telemetry = Telemetry(
            Asked(self.camera_figures, lambda: self.outbox.stats().pending, lambda: not self.outbox.trouble)
        )
        self.telemetry.set_model(self.model.reference.name, self.model.reference.sha256)
        self.mailbox = FrameMailbox()
        self.readers: dict[str, CameraReader] = {}
        self.pipelines: dict[str, Pipeline] = {}
        self._record = None if record is None else make_folder(record)
        self._recorders: dict[str, Recorder] = {}
        self._sampler = Sampler(settings.sampler, settings.state_dir, self.model.contract)
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="processing", daemon=True)
        for name in settings.live_cameras:
            self.pipelines[name] = self._make_pipeline(settings, name)

    def start(self) -> None:
        """Starts the threads; returns at once."""
        for delivery in self.deliveries:
            delivery.start()
        for name in self.pipelines:
            self._start_reader(name)
        self._thread.start()
        if self.hub is not None:
            self.hub.start()

    def stop_soon(self) -> None:
        """Asks the processing thread to end; safe in a signal handler."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether the processing thread has ended, or has been asked to."""
        return self._stopping.is_set()

    def wait(self) -> None:
        """Returns when the processing thread has ended, or has been asked to."""
        self._stopping.wait()

    def stop(self) -> None:
        """Ends everything within `GRACE`: what is being looked at is finished, what can be delivered is delivered."""
        end = time.monotonic() + GRACE
        self.stop_soon()
        self.mailbox.close()
        for reader in self.readers.values():
            reader.stop(0.0)
        self._thread.join(GRACE / 2)
        stop_all(self.deliveries, max(0.0, end - time.monotonic() - 1.0))
        if self.hub is not None:
            self.hub.stop(max(0.1, end - time.monotonic() - 0.5))
        waiting = sum(self.outbox.stats().pending.values())
        self.outbox.close()
        _log.info("stopped; %d messages wait in the outbox", waiting)

    def between_frames(self, action: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Has the processing thread do something between two batches; returns what it returns, raises what it raises."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(action())
            except Exception as error:
                future.set_exception(error)

        self._actions.put(run)
        return future.result(timeout)

    def switch(self, settings: EdgeSettings, detector: EdgeDetector | None = None) -> None:
        """Goes on with other settings, and another model if one is given. Runs between two frames.

        Raises:
            EdgeError: A rule contradicts the model's contract; everything is as before.
        """
        model = self.model if detector is None else model_of(detector)
        require_possible(settings, model.contract)
        old = self.settings
        made: dict[str, Pipeline] = {}
        for name in settings.live_cameras:
            if model is not self.model or name not in self.pipelines or _looks(settings, name) != _looks(old, name):
                made[name] = self._make_pipeline(settings, name, model)
        moved = [n for n in self.readers if settings.live_cameras.get(n) is None or not _same_source(settings, old, n)]
        for name in moved:
            self.readers.pop(name).stop(0.0)
        for name in {*made, *(self.pipelines.keys() - settings.live_cameras.keys())} & self.pipelines.keys():
            before = self.pipelines.pop(name)
            if name in made:
                made[name].take_over(before)
            before.close()
        if detector is not None:
            self.detector, self.model = detector, model
            self.telemetry.set_model(model.reference.name, model.reference.sha256)
        if detector is not None or settings.sampler != old.sampler:
            self._sampler = Sampler(settings.sampler, settings.state_dir, model.contract)
        self.settings = settings
        self.pipelines.update(made)
        for name in settings.live_cameras.keys() - self.readers.keys():
            self._start_reader(name)

    def camera_figures(self) -> dict[str, CameraFigures]:
        """What the readers have counted."""
        now = time.monotonic()
        return {
            name: CameraFigures(
                reader.state,
                reader.frames,
                reader.dropped,
                reader.reconnects,
                reader.errors,
                None if reader.last_frame_at is None else now - reader.last_frame_at,
            )
            for name, reader in list(self.readers.items())
        }

    def put(self, message: Message, snapshot: bytes | None) -> str:
        """Into the outbox."""
        return self.outbox.put(message, snapshot)

    def _make_pipeline(self, settings: EdgeSettings, name: str, model: Model | None = None) -> Pipeline:
        before = self.pipelines.get(name)
        keeps = before is not None and settings.tracker == self.settings.tracker  # then heads keep their numbers
        tracker = before.tracker if before is not None and keeps else Tracker(settings.tracker)
        rule = settings.rule_of(name)
        return Pipeline(name, tracker, rule, settings.snapshot, model or self.model, self.put, self.telemetry)

    def _start_reader(self, name: str) -> None:
        self.readers[name] = CameraReader(name, self.settings.cameras[name], self.mailbox, self._on_event)
        self.readers[name].start()

    def _on_event(self, event: CameraEvent) -> None:
        level = logging.WARNING if event.kind in ("lost", "frozen") else logging.INFO
        _log.log(level, "%s: %s", event.camera, f"{event.kind} {event.detail}".rstrip())
        self.put(CameraEventMessage(camera=event.camera, time=event.time, event=event.kind, detail=event.detail), None)

    def _note_lasting(self) -> None:
        lasting = {violation: seen for p in self.pipelines.values() for violation, seen in p.lasting().items()}
        if lasting:
            self.outbox.note_seen(lasting)

    def _work(self) -> None:
        faults = 0
        next_note = self.started_at + NOTE_SECONDS
        try:
            while not self._stopping.is_set():
                self.beat = time.monotonic()
                if self.beat >= next_note:
                    next_note = self.beat + NOTE_SECONDS
                    self._note_lasting()
                while not self._actions.empty():
                    self._actions.get()()
                frames = self.mailbox.take(self.settings.batch, 0.1)
                if not frames:
                    if self._all_ended():
                        self._note_broken_files()
                        break
                    continue
                try:
                    self.look(frames)
                    faults = 0
                except EdgeError:
                    raise
                except Exception:  # one strange picture must not blind the box; it is told, counted and not endless
                    faults += 1
                    self.telemetry.faults.labels("processing").inc()
                    _log.exception("a batch of %s failed", ", ".join(f.camera for f in frames))
                    if faults >= MOST_FAULTS:
                        raise
        except Exception as error:
            self.failed = True
            _log.critical("the processing thread ends: %s", error)
        finally:
            self._finish()

    def _all_ended(self) -> bool:
        return bool(self.readers) and all(reader.state == "ended" for reader in self.readers.values())

    def _note_broken_files(self) -> None:
        for name, reader in self.readers.items():
            if reader.failure:
                self.failed = True
                _log.error("%s: not read to its end: %s", name, reader.failure)

    def look(self, frames: Sequence[Frame]) -> None:
        """A batch's whole way: model, tracks, rules, alerts, telemetry. In the processing thread."""
        start = time.perf_counter()
        found = self.detector.detect([f.image for f in frames])
        self.first_detection_at = self.first_detection_at or time.monotonic()
        self.telemetry.observe("detect", time.perf_counter() - start)
        self.telemetry.batch.observe(len(frames))
        for frame, detections in zip(frames, found, strict=True):
            pipeline = self.pipelines.get(frame.camera)
            if pipeline is None:  # taken out while its picture waited
                continue
            pipeline.process(frame, detections)
            self._sampler.offer(frame, detections)
            self.telemetry.latency.observe(time.monotonic() - frame.monotonic)
            if self._record is not None and pipeline.view is not None:
                self._write(self._record, pipeline)

    def _write(self, folder: Path, pipeline: Pipeline) -> None:
        start = time.perf_counter()
        view = pipeline.view
        assert view is not None
        recorder = self._recorders.setdefault(pipeline.camera, Recorder(folder, pipeline.camera))
        recorder.add(pipeline.annotated(view), view.frame.time)
        self.telemetry.observe("record", time.perf_counter() - start)

    def _finish(self) -> None:
        try:
            for pipeline in self.pipelines.values():
                pipeline.close()
            for recorder in self._recorders.values():
                recorder.close()
        except Exception:
            self.failed = True
            _log.exception("not everything could be closed")
        finally:
            self._stopping.set()


def make_folder(path: Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        EdgeError: It cannot be made, or not be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".ppe_edge.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EdgeError(f"{path}: expected a folder that can be written to ({error.strerror or error})") from error
    return path


def require_possible(settings: EdgeSettings, contract: ModelContract) -> None:
    """Refuses what cannot work with this model and on this machine.

    Raises:
        EdgeError: A rule that the model does not fit, or a camera's file or folder that is not there.
    """
    for name, camera in settings.live_cameras.items():
        ViolationMonitor(settings.rule_of(name), contract)
        # a stream may come back; a file that is not there is a slip of the pen
        if camera.ends and not Path(camera.address).exists():
            raise EdgeError(
                f"cameras.{name}.source: expected a video, a folder of photos or an address, got no such file: {camera.address}"
            )


def model_of(detector: EdgeDetector) -> Model:
    """What the pipelines need to know of a detector."""
    contract = detector.contract
    reference = ModelReference(name=detector.name, sha256=detector.sha256, provenance=contract.provenance)
    return Model(contract, reference)


def _looks(settings: EdgeSettings, name: str) -> tuple[Any, ...]:
    """What a camera's pipeline is made from."""
    return settings.rule_of(name), settings.tracker, settings.snapshot


def _same_source(a: EdgeSettings, b: EdgeSettings, name: str) -> bool:
    """Whether a camera's reader can go on: all but its rule is the same."""
    return all(
        getattr(a.cameras[name], key) == getattr(b.cameras[name], key)
        for key in type(a.cameras[name]).model_fields
        if key != "rule"
    )
