"""Metrics for Prometheus: counted where things happen, or collected from their owners at a scrape."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ppe_edge.cameras.camera import State
from ppe_edge.cameras.view_health import LABELS, ViewFault
from ppe_yolo.core.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, kw_only=True)
class CameraFigures:
    """Counters of a camera's reader.

    Attributes:
        state: State of the reader.
        frames: Frames read.
        dropped: Frames replaced by a newer one before they were processed.
        reconnects: Number of reconnections.
        errors: Frames that could not be decoded, and failed connections.
        age: Seconds since the last frame; None before the first.
        rate: Frames per second that are processed; None if unknown.
        required_rate: Frames per second that the rule and the setting need.
        is_slow: Whether the rate has been below the required one for some time, or the reader falls behind.
        view_fault: What is wrong with its view; None if nothing is, or the view is not watched.
        score_drift: Population stability index of the scores of the last day against the validation images; None if unknown.
    """

    state: State
    frames: int
    dropped: int
    reconnects: int
    errors: int
    age: float | None
    rate: float | None = None
    required_rate: float | None = None
    is_slow: bool = False
    view_fault: ViewFault | None = None
    score_drift: float | None = None


@dataclass(frozen=True, kw_only=True)
class SinkFigures:
    """Messages of a sink.

    Attributes:
        waiting: Messages that it has not confirmed.
        set_aside: Messages that it does not take.
        error: Why the last attempt failed; None if it succeeded.
    """

    waiting: int
    set_aside: int
    error: str | None = None


@dataclass(frozen=True)
class Collected(Collector):
    """Metrics that are read from their owners at a scrape, at no cost per frame.

    Attributes:
        cameras: Returns camera -> counters of its reader.
        sinks: Returns sink -> numbers of its messages.
        durable: Returns whether messages are on the disk.
    """

    cameras: Callable[[], Mapping[str, CameraFigures]]
    sinks: Callable[[], Mapping[str, SinkFigures]]
    durable: Callable[[], bool]

    def collect(self) -> Iterable[Metric]:
        """Builds the metrics; called at each scrape."""

        def counter(name: str, documentation: str) -> CounterMetricFamily:
            return CounterMetricFamily(name, documentation, labels=["camera"])

        def gauge(name: str, documentation: str, *more_labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, documentation, labels=["camera", *more_labels])

        of_figure: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            "frames": counter("ppe_edge_camera_frames", "Frames read from the camera"),
            "dropped": counter("ppe_edge_camera_dropped", "Frames replaced by a newer one"),
            "reconnects": counter("ppe_edge_camera_reconnects", "Reconnections to the camera"),
            "errors": counter("ppe_edge_camera_errors", "Failed connections and frames"),
            "age": gauge("ppe_edge_camera_frame_age_seconds", "Seconds since the last frame"),
            "rate": gauge("ppe_edge_camera_processed_rate", "Frames per second that are processed"),
            "required_rate": gauge("ppe_edge_camera_required_rate", "Frames per second that the rule and the setting need"),
            "is_slow": gauge(
                "ppe_edge_camera_slow",
                "1 while the processed rate is below the required one, or the box decodes more slowly than the camera sends",
            ),
            "score_drift": gauge(
                "ppe_edge_camera_score_drift",
                "Population stability index of the last day's scores against the validation images; above 0.25 they differ",
            ),
        }
        state = gauge("ppe_edge_camera_state", "1 for the current state of the camera", "state")
        view = gauge("ppe_edge_camera_view_fault", "1 for the current fault of the camera's view", "fault")
        for name, figures in self.cameras().items():
            for figure, family in of_figure.items():
                if (value := getattr(figures, figure)) is not None:
                    family.add_metric([name], float(value))
            for each in get_args(State):
                state.add_metric([name, each], float(figures.state == each))
            for fault in LABELS:
                view.add_metric([name, fault], float(figures.view_fault == fault))
        depth = GaugeMetricFamily("ppe_edge_outbox_waiting", "Messages that the sink has not confirmed", labels=["sink"])
        aside = GaugeMetricFamily("ppe_edge_outbox_set_aside", "Messages that the sink does not take", labels=["sink"])
        for sink, messages in self.sinks().items():
            depth.add_metric([sink], messages.waiting)
            aside.add_metric([sink], messages.set_aside)
        help_text = "0 while messages are in memory only: disk full"
        durable = GaugeMetricFamily("ppe_edge_outbox_durable", help_text, value=float(self.durable()))
        return [*of_figure.values(), state, view, depth, aside, durable]


class Telemetry:
    """The metrics of one runtime, in a registry of their own.

    Args:
        collected: Metrics that others count.
    """

    def __init__(self, collected: Collected) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(collected)
        self.processed = Counter("ppe_edge_frames_processed", "Frames processed", ["camera"], registry=self.registry)
        self.alerts = Counter("ppe_edge_alerts", "Alerts and closings stored", ["camera", "kind"], registry=self.registry)
        self.verdicts = Counter(
            "ppe_edge_verdicts",
            "Verdicts stored, those that replace another included: confirmed, false_alarm, or open if taken back",
            ["camera", "verdict"],
            registry=self.registry,
        )
        self.faults = Counter("ppe_edge_faults", "Internal errors survived", ["where"], registry=self.registry)
        self.changes = Counter(
            "ppe_edge_configuration_changes",
            "Requests of the twin",
            ["outcome"],
            registry=self.registry,
        )
        version = Gauge("ppe_edge_version", "1 for the version of the software", ["version"], registry=self.registry)
        version.labels(__version__).set(1)
        self._model = Gauge("ppe_edge_model", "The active model", ["name", "sha256"], registry=self.registry)
        stage = Histogram("ppe_edge_stage_seconds", "Duration of a stage", ["stage"], buckets=SECONDS, registry=self.registry)
        # labels() takes a lock and a look-up: once, not for every frame
        self._stages = {name: stage.labels(name) for name in ("detect", "track", "rules", "view", "alert", "record")}
        self.latency = Histogram(
            "ppe_edge_latency_seconds",
            "From decoding a frame to the rules",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "ppe_edge_batch_frames", "Frames per batch", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )

    def observe(self, name: str, seconds: float) -> None:
        """Records the duration of a stage."""
        self._stages[name].observe(seconds)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Records how long a stage takes, unless it fails."""
        start = time.perf_counter()
        yield
        self.observe(name, time.perf_counter() - start)

    def set_model(self, name: str, sha256: str) -> None:
        """Shows the active model, and no longer the one before it."""
        self._model.clear()
        self._model.labels(name, sha256).set(1)

    def text(self) -> bytes:
        """Returns all metrics in the text format of Prometheus (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)
