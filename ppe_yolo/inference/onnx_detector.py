"""A detector from an ONNX file, which is untrusted input."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.onnx_session import session_contract

MAX_BYTES = 512 * 1024**2  # twice YOLOv3 in float32
_STANDARD = ("", "ai.onnx")


class OnnxDetector:
    """Runs a model with onnxruntime.

    Args:
        model: The file's content, checked by `read_onnx`.
        source: The file's name, for messages.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: Of one operation; onnxruntime's own choice when None.

    Raises:
        UserError: It cannot be run, it contradicts its contract, or the device cannot be used.
    """

    def __init__(self, model: bytes, source: str, device: str = "auto", threads: int | None = None) -> None:
        self.session = open_session(model, source, device, threads)
        self.contract = session_contract(self.session, source)
        self.provider: str = self.session.get_providers()[0]
        self._canvases = np.empty((0, *self.contract.input_size, 3), dtype=np.uint8)

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """See `Detector.detect`."""
        if not images:
            return []
        if len(images) > len(self._canvases):  # else those of the last call serve again
            self._canvases = np.empty((len(images), *self._canvases.shape[1:]), dtype=np.uint8)
        batch = self._canvases[: len(images)]
        contract = self.contract
        placements = [
            letterbox(i, contract.input_size, contract.pad_value, out=c)[1] for i, c in zip(images, batch, strict=True)
        ]
        boxes_xyxy, scores, labels = self.run(batch)
        found = np.count_nonzero(scores, axis=1).tolist()  # the rest are padding
        return [
            Detections(*placement.restore_detections(boxes_xyxy[i, :n], scores[i, :n], labels[i, :n]))
            for i, (n, placement) in enumerate(zip(found, placements, strict=True))
        ]

    def run(self, batch: NDArray[np.uint8]) -> list[Any]:
        """Letterboxed pictures uint8 [B, H, W, 3] -> boxes_xyxy [B, D, 4] in pixels of the input, scores, labels [B, D]."""
        return self.session.run(["boxes_xyxy", "scores", "labels"], {"images": batch})


def read_onnx(path: str | Path) -> bytes:
    """The content of an ONNX file that holds all of itself and nothing but standard operators.

    Raises:
        UserError: No such file, too large, not ONNX, with data in other files, or with operators of other people.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected an ONNX model, got {'a folder' if path.is_dir() else 'no such file'}")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{path}: expected an ONNX model of at most {MAX_BYTES} bytes, got {size}")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
        _refuse_foreign(model, path)
        onnx.checker.check_model(model)
    except UserError:
        raise
    except Exception as error:  # protobuf and the checker have kinds of their own
        reason = (" ".join(str(error).split()) or type(error).__name__)[:100]
        raise UserError(
            f"{path}: expected an ONNX model, got {size} bytes that are none or not all of one ({reason})"
        ) from error
    return content


def _refuse_foreign(model: onnx.ModelProto, path: Path) -> None:
    domains = {o.domain for o in model.opset_import}
    for graph in _graphs(model.graph):
        domains |= {n.domain for n in graph.node}
        attributes = [a for n in graph.node for a in n.attribute]
        tensors = [*graph.initializer, *(t for a in attributes for t in (a.t, *a.tensors))]
        outside = [t.name for t in tensors if t.external_data or t.data_location == onnx.TensorProto.EXTERNAL]
        if outside or any(s.values.external_data or s.indices.external_data for s in graph.sparse_initializer):
            raise UserError(f"{path}: expected all weights in this file, got some in another one ({outside[:1]}): refused")
    strange = sorted(domains.difference(_STANDARD)) + sorted(f.name for f in model.functions)
    if strange:
        raise UserError(f"{path}: expected standard ONNX operators, got those of {', '.join(strange)[:100]}: refused")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those within its nodes (branches, loops)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _graphs(inner)


def open_session(model: bytes, source: str, device: str = "cpu", threads: int | None = None) -> ort.InferenceSession:
    """An onnxruntime session on a device.

    Raises:
        UserError: The device is not there, or onnxruntime refuses the model.
    """
    available = ort.get_available_providers()
    name, _, index = device.partition(":")
    providers: list[Any] = ["CPUExecutionProvider"]
    if name not in ("auto", "cpu", "cuda") or (index and not (name == "cuda" and index.isdecimal())):
        raise UserError(f"device: {device!r} cannot be used with an ONNX model: try auto, cpu, cuda or cuda:1")
    if name == "cuda" or (name == "auto" and "CUDAExecutionProvider" in available):
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(index or 0)}))
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, they need no other line
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime has many kinds
        raise UserError(f"{source}: onnxruntime cannot run this model ({' '.join(str(error).split())[:150]})") from error
    if name == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise UserError(
            f"device: {device!r} cannot be used by this onnxruntime (it has {', '.join(available)}): "
            "install onnxruntime-gpu, or try cpu"
        )
    return session


def load_onnx_detector(path: str | Path, *, device: str = "auto", threads: int | None = None) -> OnnxDetector:
    """The detector in an ONNX file; see `read_onnx` and `OnnxDetector` for what is refused."""
    return OnnxDetector(read_onnx(path), str(path), device, threads)
