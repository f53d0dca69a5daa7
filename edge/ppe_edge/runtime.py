"""The running box: camera readers -> one processing thread -> alert writer -> outbox -> one delivery thread per sink."""

import contextlib
import errno
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ppe_edge.camera_watch import EVENT_OF, CameraWatch
from ppe_edge.cameras.camera import CameraEvent, CameraReader, EventKind
from ppe_edge.cameras.mailbox import Frame, FrameMailbox
from ppe_edge.common.clock import is_set, note_passed, server_now
from ppe_edge.compliance.archive import ComplianceArchive
from ppe_edge.compliance.recorder import WRITE_INTERVAL, ComplianceRecorder
from ppe_edge.config import EdgeSettings
from ppe_edge.delivery.alert_history import AlertHistory
from ppe_edge.delivery.alert_writer import AlertWriter
from ppe_edge.delivery.dispatcher import DeliveryThread, stop_all
from ppe_edge.delivery.messages import Alert, CameraEventMessage, utc
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.delivery.sample_upload import SampleUploader
from ppe_edge.delivery.sinks import build_sinks
from ppe_edge.delivery.sinks.notify import Site
from ppe_edge.deployment import Deployment, camera_rules
from ppe_edge.errors import EdgeError, NotReadyError
from ppe_edge.iot.hub import HubConnection
from ppe_edge.model.detector import EdgeDetector
from ppe_edge.model.store import ModelStore
from ppe_edge.monitoring.telemetry import CameraFigures, Collected, SinkFigures, Telemetry
from ppe_edge.pictures.clip import ClipRecorder
from ppe_edge.pictures.recorder import Recorder
from ppe_edge.pictures.sampler import Sampler
from ppe_edge.pictures.snapshot import Image
from ppe_edge.pipeline import Pipeline
from ppe_edge.rules.config import DEFAULT_RULE
from ppe_edge.rules.votes import why_too_short
from ppe_edge.verdicts.desk import AlertDesk
from ppe_edge.verdicts.frames import AlertFrames
from ppe_edge.verdicts.viewings import ViewingRecord
from ppe_yolo.core.words import plural

GRACE = 5.0  # seconds from SIGTERM to the end of the process
HEARTBEAT_TIMEOUT = 10.0  # seconds after which a processing loop or an alert writer that makes no progress counts as dead
NOTE_INTERVAL = 10.0  # seconds between updates on the disk of when open violations were last seen
FORGET_INTERVAL = 3600.0  # seconds between checks for frames of alerts that are too old
CHECK_INTERVAL = 1.0  # seconds between checks of the cameras
WATCH_INTERVAL = 1.0  # seconds between checks whether the box works
MAX_HANGING = 600  # consecutive checks with a processing thread that hangs after which the process ends, as after `MAX_FAULTS`
MAX_FAULTS = 20  # consecutive failed batches after which the process ends, so that its supervisor restarts it
WARNED: frozenset[EventKind] = frozenset({"lost", "frozen", "slow", "needs_attention", *EVENT_OF.values()})
_DISK_ERRORS = {errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS}

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Runtime:
    """All parts between the cameras and the sinks.

    Args:
        settings: Validated settings.
        record: Folder for annotated videos; None for none.

    Attributes:
        deployment: The running configuration. It is replaced as a whole, see `deploy`.
        readers: Camera -> its reader.
        pipelines: Camera -> its pipeline.
        sampler: Keeps uncertain frames for training.
        clips: Makes the clips of alerts; None if `clip.enabled` is not set.
        desk: Where people decide about alerts.
        failed: Whether the process must exit with code 1.
        started_at: Monotonic time of the start.

    Once it runs, only the processing thread changes `deployment`, `readers`, `pipelines` and `sampler`; other threads ask for
    it by `between_frames`. They may read all of these, but must copy a dict before they iterate over it.

    Raises:
        EdgeError: The model, the state folder or a sink cannot be used.
    """

    def __init__(self, settings: EdgeSettings, record: Path | None = None) -> None:
        self.started_at = time.monotonic()
        self.failed = False
        detector = ModelStore(make_folder(settings.state_dir), settings.model).open()
        self.deployment = Deployment(settings, detector)
        self.deployment.require_valid()
        self.hub = HubConnection() if settings.needs_hub else None
        history = AlertHistory(settings.state_dir / "outbox.db")
        sinks = build_sinks(settings.sinks, self.hub, self._topology, self._site, history.is_acknowledged)
        self.outbox = Outbox(settings.outbox, settings.state_dir, list(sinks), server_time=server_now)
        note_passed(self.outbox.resumed_at())
        self.telemetry = Telemetry(Collected(self.camera_figures, self.sink_figures, lambda: not self.outbox.trouble))
        self._show_model()
        self.readers: dict[str, CameraReader] = {}
        self.pipelines: dict[str, Pipeline] = {}
        self._watches: dict[str, CameraWatch] = {}
        self._beat = self.started_at  # when the processing loop made its last turn
        self._faults = 0  # batches in a row that failed
        self._alerts = AlertWriter(self.outbox, self.telemetry)
        self.clips = (
            ClipRecorder(settings.clip, self._alerts.submit, self.telemetry.faults.labels("clip").inc)
            if settings.clip.enabled
            else None
        )
        self._deliveries = [DeliveryThread(name, sink, self.outbox) for name, sink in sinks.items()]
        self.compliance = ComplianceRecorder(
            settings.compliance, settings.state_dir, self.outbox.age_time, self._send_compliance_report
        )
        self._frames = AlertFrames(
            settings.verdicts, settings.state_dir, settings.outbox.max_message_days, self.outbox.age_time
        )
        self.desk = AlertDesk(
            history=history,
            outbox=self.outbox,
            frames=self._frames,
            viewings=ViewingRecord(settings.state_dir / "viewings.jsonl"),
            telemetry=self.telemetry,
            contract=lambda: self.deployment.model.contract,
            topology=self._topology,
            threshold=self._threshold,
            time_zone=lambda: self.settings.site.time_zone,
        )
        self._mailbox = FrameMailbox()
        self._record = None if record is None else make_folder(record)
        self._recorders: dict[str, Recorder] = {}
        self.sampler = self._make_sampler(self.deployment)
        self._uploader = (
            None
            if settings.sinks.iothub is None or self.hub is None
            else SampleUploader(self.hub, lambda: self.sampler if self.settings.sampler.upload else None)
        )
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="processing", daemon=True)
        for name in settings.live_cameras:
            self.pipelines[name] = self._make_pipeline(self.deployment, name)
            self._watches[name] = CameraWatch(name, self.deployment)

    @property
    def settings(self) -> EdgeSettings:
        """The settings of the running configuration."""
        return self.deployment.settings

    @property
    def detector(self) -> EdgeDetector:
        """The open model of the running configuration."""
        return self.deployment.detector

    @property
    def stopping(self) -> bool:
        """Whether the processing thread has ended, or was asked to."""
        return self._stopping.is_set()

    @property
    def alive(self) -> bool:
        """Whether frames are processed and alerts are stored: neither thread hangs."""
        return not (self._hangs or self._alerts.is_stuck(HEARTBEAT_TIMEOUT) or self.stopping)

    @property
    def _hangs(self) -> bool:
        return time.monotonic() - self._beat >= HEARTBEAT_TIMEOUT

    def start(self) -> None:
        """Starts the threads; returns at once."""
        self._alerts.start()
        if self.clips is not None:
            self.clips.start()
        self.compliance.start()
        for delivery in self._deliveries:
            delivery.start()
        for name in self.pipelines:
            self._start_reader(name)
        self._thread.start()
        if self.hub is not None:
            self.hub.start()
        if self._uploader is not None:
            self._uploader.start()

    def request_stop(self) -> None:
        """Asks the processing thread to end; returns at once."""
        self._stopping.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the processing thread has ended or was asked to; returns False after `timeout` seconds."""
        return self._stopping.wait(timeout)

    def watch(self) -> None:
        """Waits as `wait` does, and logs when the box stops working, and when it works again.

        If the processing thread hangs for long, as a driver may, it fails, so that a supervisor restarts it; but not while an
        alert waits for the disk.
        """
        bad_checks = hanging_checks = 0  # consecutive ones
        is_reported = False
        while not self.wait(WATCH_INTERVAL):
            is_stuck, hangs = self._alerts.is_stuck(HEARTBEAT_TIMEOUT), self._hangs
            bad_checks = bad_checks + 1 if is_stuck or hangs else 0
            hanging_checks = hanging_checks + 1 if hangs and not is_stuck else 0
            if bad_checks == 2:  # after one, the whole process may just have been frozen
                what = "alerts are not stored: the disk" if is_stuck else "frames are not processed: the model or a driver"
                _log.critical("%s does not respond", what)
                is_reported = True
            elif is_reported and not bad_checks:
                _log.warning("frames are processed and alerts stored again")
                is_reported = False
            if hanging_checks >= MAX_HANGING:
                _log.critical("the box ends with exit code 1, to be restarted: the model or a driver does not respond")
                self.failed = True
                return

    def stop(self) -> bool:
        """Stops within `GRACE` seconds: finishes the current batch, stores its alerts, delivers what can be delivered.

        Returns:
            Whether the processing thread has ended; False if the model hangs.
        """
        end = time.monotonic() + GRACE
        self.request_stop()
        self._mailbox.close()
        for reader in list(self.readers.values()):  # the processing thread may still change it
            reader.stop(0.0)
        self._thread.join(GRACE / 2)
        self._alerts.close(0.5)  # again, in case the processing thread hangs
        stop_all(self._deliveries, max(0.0, end - time.monotonic() - 1.0))
        if self._uploader is not None:
            self._uploader.stop(0.2)
        if self.hub is not None:
            self.hub.stop(max(0.1, end - time.monotonic() - 0.5))
        waiting = sum(self.outbox.stats().pending.values())
        self.desk.history.close()
        self.outbox.close()
        _log.info("stopped; the outbox holds %s for its sinks", plural(waiting, "message"))
        return not self._thread.is_alive()

    def between_frames(self, action: Callable[[], _T], timeout: float = 30.0) -> _T:
        """Runs an action in the processing thread, between two batches; returns its result or raises its exception.

        Raises:
            TimeoutError: The processing thread did not run the action in time. It will not run later either.
        """
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(action())
            except Exception as error:
                future.set_exception(error)

        self._actions.put(run)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.cancel():
                raise TimeoutError("the processing loop does not respond") from None
            return future.result()  # it has begun in this moment

    def deploy(self, new: Deployment) -> None:
        """Replaces the running configuration. Must run between two batches, see `between_frames`.

        Readers and pipelines that are the same in both continue. Other pipelines of a camera take over its open violations.

        Raises:
            EdgeError: The settings contradict the model; nothing has changed.
        """
        new.require_valid()
        old = self.deployment
        cameras = new.settings.live_cameras
        made = {
            name: self._make_pipeline(new, name)
            for name in cameras
            if name not in self.pipelines or not new.looks_alike(old, name)
        }
        for name in [name for name in self.readers if not new.reads_alike(old, name)]:
            self.readers.pop(name).stop(0.0)
        for name in [name for name in self.pipelines if name in made or name not in cameras]:
            before = self.pipelines.pop(name)
            if name in made:
                made[name].continue_from(before)
            before.close()
        samples = [(d.detector, d.settings.sampler, d.settings.privacy) for d in (old, new)]
        if samples[0] != samples[1]:
            self.sampler = self._make_sampler(new)
        self.deployment = new
        self.pipelines.update(made)
        self._watches = {name: self._watches.get(name) or CameraWatch(name, new) for name in cameras}
        for watch in self._watches.values():
            watch.deploy(new)
        self._show_model()
        for name in cameras.keys() - self.readers.keys():
            self._start_reader(name)

    def camera_figures(self) -> dict[str, CameraFigures]:
        """Returns the counters of all readers."""
        watches = self._watches
        return {name: watches[name].figures(reader) for name, reader in list(self.readers.items()) if name in watches}

    def sink_figures(self) -> dict[str, SinkFigures]:
        """Returns how many messages wait for each sink, and why."""
        stats = self.outbox.stats()
        errors = {delivery.name: delivery.last_error for delivery in self._deliveries}
        return {
            sink: SinkFigures(waiting=waiting, set_aside=stats.set_aside.get(sink, 0), error=errors.get(sink))
            for sink, waiting in stats.pending.items()
        }

    def process_batch(self, frames: Sequence[Frame]) -> None:
        """Runs the model, the tracker and the rules on a batch of frames. Runs in the processing thread."""
        with self.telemetry.timed("detect"):
            detections_of_frames = self.detector.detect([f.image for f in frames])
        self.telemetry.batch.observe(len(frames))
        for frame, detections in zip(frames, detections_of_frames, strict=True):
            pipeline = self.pipelines.get(frame.camera)
            if pipeline is None:  # the camera was removed while the frame was waiting
                continue
            pipeline.process(frame, detections)
            with self.telemetry.timed("view"):
                event = self._watches[frame.camera].add(frame, detections)
            if event is not None:
                self._on_event(event)
            if self.sampler.wants(frame, detections):
                self._alerts.submit_spare(partial(self.sampler.keep, frame, detections), "a sample")
            self.telemetry.latency.observe(time.monotonic() - frame.monotonic)
            if self._record is not None and pipeline.view is not None:
                with self.telemetry.timed("record"):
                    self._record_frame(self._record, pipeline.annotated(pipeline.view), frame)

    def _record_frame(self, folder: Path, annotated: Image, frame: Frame) -> None:
        try:
            recorder = self._recorders.setdefault(frame.camera, Recorder(folder, frame.camera))
            recorder.add(annotated, frame.time)
        except EdgeError as error:  # a video that fills the disk must not end the alerts
            _log.error("nothing more is recorded, of any camera; alerts continue: %s", error)
            self.failed, self._record = True, None
            for recorder in self._recorders.values():
                with contextlib.suppress(Exception):  # it is the full disk again, or a video without a frame
                    recorder.close()
            self._recorders.clear()

    def _make_pipeline(self, deployment: Deployment, name: str) -> Pipeline:
        settings = deployment.settings
        return Pipeline(
            camera=name,
            rules=camera_rules(settings, deployment.model.contract, name),
            snapshot=settings.snapshot,
            hidden=settings.privacy.labels(deployment.model.contract),
            model=deployment.model,
            submit=self._alerts.submit,
            telemetry=self.telemetry,
            count=self.compliance.add,
            keep_frame=self._frames.keep,
            record=None if self.clips is None else self.clips.add,
        )

    def _topology(self) -> dict[str, list[str]]:
        """Returns the cameras and their rules."""
        settings = self.settings
        return {name: list(settings.rules_of(name)) for name in settings.live_cameras}

    def _threshold(self, alert: Alert) -> float | None:
        """Returns the alarm threshold that now applies to the camera, rule and class of an alert; None if there is none."""
        settings = self.settings
        rules = settings.rules_of(alert.camera) if alert.camera in settings.live_cameras else {}
        rule = rules.get(alert.rule or DEFAULT_RULE)
        if rule is None:
            return None
        known = self.detector.contract.alarm_thresholds.get(alert.class_name)
        return known if rule.alarm_threshold is None else rule.alarm_threshold

    def _site(self) -> Site:
        return Site(self.settings.site.zone, self.detector.contract.display_name)

    def compliance_archive(self) -> ComplianceArchive:
        """Returns the figures of compliance in the periods of the running configuration."""
        return ComplianceArchive(self.compliance.store, self.settings.site.zone, self.settings.site.shifts)

    def _send_compliance_report(self) -> None:
        """Sends the report of the latest period if that is due; runs in the recorder's thread."""
        unit, now = self.settings.compliance.report, time.time()
        if unit is None or not is_set(now):
            return
        archive = self.compliance_archive()
        report = archive.due_report(unit, now)
        if report is not None:
            self.outbox.put(report)
            archive.note_reported(report)

    def _make_sampler(self, deployment: Deployment) -> Sampler:
        settings = deployment.settings
        contract = deployment.model.contract
        return Sampler(settings.sampler, settings.state_dir, contract, settings.privacy.labels(contract))

    def _show_model(self) -> None:
        reference = self.deployment.model.reference
        self.telemetry.set_model(reference.name, reference.sha256)

    def _check_cameras(self) -> None:
        for name, reader in self.readers.items():
            watch = self._watches[name]
            for event in (watch.check_rate(reader), watch.check_attention(reader)):
                if event is not None:
                    self._on_event(event)

    def _start_reader(self, name: str) -> None:
        self.readers[name] = CameraReader(name, self.settings.cameras[name], self._mailbox, self._on_event)
        self.readers[name].start()

    def _on_event(self, event: CameraEvent) -> None:
        """Logs and sends an event; called by the processing thread and by the threads of the readers."""
        too_short, reader = "", self.readers.get(event.camera)
        if event.kind == "ended" and not event.detail and reader is not None:
            too_short = why_too_short(self.settings.rules_of(event.camera).values(), reader.frames, reader.seconds)
            event = replace(event, detail=too_short)
        level = logging.WARNING if event.kind in WARNED or too_short else logging.INFO
        _log.log(level, "%s: %s", event.camera, f"{event.kind} {event.detail}".rstrip())
        self.outbox.put(
            CameraEventMessage(
                camera=event.camera,
                time=utc(event.time),
                event=event.kind,
                detail=event.detail,
                time_uncertain=not is_set(event.time),
            )
        )

    def _note_open_violations(self) -> None:
        seen = {violation: last for p in self.pipelines.values() for violation, last in p.open_violations().items()}
        if seen:
            self._alerts.note_seen(seen)

    def _write_counted(self) -> None:
        self.compliance.write_soon([pipeline.counted_now() for pipeline in self.pipelines.values()])

    def _run(self) -> None:
        tasks = (
            _Task(self._note_open_violations, NOTE_INTERVAL),
            _Task(self._check_cameras, CHECK_INTERVAL),
            _Task(self._write_counted, WRITE_INTERVAL),
            _Task(self._frames.forget_old_soon, FORGET_INTERVAL),
        )
        try:
            self._frames.forget_old_soon()
            while not self._stopping.is_set():
                self._beat = time.monotonic()
                for task in tasks:
                    task.run_if_due(self._beat)
                while not self._actions.empty():
                    self._actions.get()()
                if frames := self._mailbox.take(self.settings.batch, 0.1):
                    self._process_or_count_fault(frames)
                elif self._all_ended():
                    self._report_broken_files()
                    break
        except Exception as error:
            self.failed = True
            _log.critical("the processing thread ends: %s", error)
        finally:
            self._finish()

    def _process_or_count_fault(self, frames: Sequence[Frame]) -> None:
        """Processes a batch. One unexpected frame must not blind the box, but `MAX_FAULTS` of them in a row end it."""
        try:
            self.process_batch(frames)
            self._faults = 0
        except Exception:
            self._faults += 1
            self.telemetry.faults.labels("processing").inc()
            _log.exception("a batch of %s failed", ", ".join(f.camera for f in frames))
            if self._faults >= MAX_FAULTS:
                raise

    def _all_ended(self) -> bool:
        return bool(self.readers) and all(reader.state == "ended" for reader in self.readers.values())

    def _report_broken_files(self) -> None:
        for name, reader in self.readers.items():
            if reader.failure:
                self.failed = True
                _log.error("%s: not read to its end: %s", name, reader.failure)

    def _finish(self) -> None:
        try:
            for pipeline in self.pipelines.values():
                pipeline.close()
            self.compliance.stop(GRACE / 5)
            for recorder in self._recorders.values():
                recorder.close()
        except Exception:
            self.failed = True
            _log.exception("not everything could be closed")
        finally:
            if self.clips is not None:
                self.clips.stop(GRACE / 5)
            if not self._alerts.close(GRACE / 3):
                self.failed = True
            self._stopping.set()


class _Task:
    """Work that the processing thread repeats every `interval` seconds."""

    def __init__(self, run: Callable[[], None], interval: float) -> None:
        self._run, self._interval = run, interval
        self._due = time.monotonic() + interval

    def run_if_due(self, now: float) -> None:
        if now >= self._due:
            self._due = now + self._interval
            self._run()


def make_folder(path: Path) -> Path:
    """Creates a folder if it does not exist.

    Raises:
        EdgeError: It cannot be created, or is not writable; `NotReadyError` if the disk is the cause.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".ppe_edge.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        kind = NotReadyError if error.errno in _DISK_ERRORS else EdgeError
        raise kind(file=path, expected="a writable folder", got=error.strerror or str(error)) from error
    return path
