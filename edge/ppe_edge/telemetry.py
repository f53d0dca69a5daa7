"""What Prometheus is told: counted where it happens, or asked of its owner when a scrape comes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STATES = ("connecting", "live", "frozen", "lost", "ended")


@dataclass(frozen=True)
class CameraFigures:
    """What a camera's reader has counted.

    Attributes:
        state: One of `STATES`.
        frames: Pictures read.
        dropped: Pictures that a newer one replaced before they were looked at.
        reconnects: How often the camera was opened again.
        errors: Pictures that could not be decoded, connections that failed.
        age: Seconds since the last picture; None before the first.
    """

    state: str
    frames: int
    dropped: int
    reconnects: int
    errors: int
    age: float | None


@dataclass(frozen=True)
class Asked(Collector):
    """Figures that their owners keep anyway: read at a scrape, at no cost to a frame.

    Attributes:
        cameras: Camera -> what its reader counted.
        waiting: Sink -> messages that wait for it.
        durable: Whether messages are on the disk.
    """

    cameras: Callable[[], Mapping[str, CameraFigures]]
    waiting: Callable[[], Mapping[str, int]]
    durable: Callable[[], bool]

    def collect(self) -> Iterable[Metric]:
        """See `prometheus_client.registry.Collector`."""
        totals = {
            "frames": CounterMetricFamily("ppe_edge_camera_frames", "Pictures read from the camera", labels=["camera"]),
            "dropped": CounterMetricFamily("ppe_edge_camera_dropped", "Pictures replaced by a newer one", labels=["camera"]),
            "reconnects": CounterMetricFamily("ppe_edge_camera_reconnects", "Times opened again", labels=["camera"]),
            "errors": CounterMetricFamily("ppe_edge_camera_errors", "Failed connections and pictures", labels=["camera"]),
        }
        state = GaugeMetricFamily("ppe_edge_camera_state", "1 for the state that it is in", labels=["camera", "state"])
        age = GaugeMetricFamily("ppe_edge_camera_frame_age_seconds", "Since the last picture", labels=["camera"])
        for name, figures in self.cameras().items():
            for key, family in totals.items():
                family.add_metric([name], getattr(figures, key))
            for each in STATES:
                state.add_metric([name, each], float(figures.state == each))
            if figures.age is not None:
                age.add_metric([name], figures.age)
        depth = GaugeMetricFamily("ppe_edge_outbox_waiting", "Messages that the sink has not taken yet", labels=["sink"])
        for sink, count in self.waiting().items():
            depth.add_metric([sink], count)
        durable = GaugeMetricFamily(
            "ppe_edge_outbox_durable", "0 while messages are in memory only: full disk", value=float(self.durable())
        )
        return [*totals.values(), state, age, depth, durable]


class Telemetry:
    """The counters of one runtime, in a registry of its own.

    Args:
        asked: What others count.
    """

    def __init__(self, asked: Asked) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(asked)
        self.processed = Counter("ppe_edge_frames_processed", "Pictures looked at", ["camera"], registry=self.registry)
        self.alerts = Counter("ppe_edge_alerts", "Messages put into the outbox", ["camera", "kind"], registry=self.registry)
        self.faults = Counter("ppe_edge_faults", "Errors that the loop survived", ["where"], registry=self.registry)
        self.changes = Counter("ppe_edge_configuration_changes", "Twin patches", ["outcome"], registry=self.registry)
        self._model = Gauge("ppe_edge_model", "The model at work", ["name", "sha256"], registry=self.registry)
        stage = Histogram("ppe_edge_stage_seconds", "A batch's stages", ["stage"], buckets=SECONDS, registry=self.registry)
        # asking a family for a child takes a lock and a look-up: once, not for every frame
        self._stages = {name: stage.labels(name) for name in ("detect", "track", "rules", "alert", "record")}
        self.latency = Histogram(
            "ppe_edge_latency_seconds", "From the camera to the rules' verdict", buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "ppe_edge_batch_frames", "Pictures in a batch", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )

    def observe(self, name: str, seconds: float) -> None:
        """Notes what a stage took."""
        self._stages[name].observe(seconds)

    def set_model(self, name: str, sha256: str) -> None:
        """Names the model at work; the one before it is named no longer."""
        self._model.clear()
        self._model.labels(name, sha256).set(1)

    def text(self) -> bytes:
        """All figures, in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)
