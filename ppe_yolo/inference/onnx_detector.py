"""Detection with onnxruntime. An ONNX file is untrusted input."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.onnx_session import OnnxModel, Provider, read_model
from ppe_yolo.core.onnx_session import open_session as open_session_with_providers
from ppe_yolo.core.words import one_line

if TYPE_CHECKING:
    import onnxruntime as ort

_STANDARD_DOMAINS = ("", "ai.onnx")


class OnnxDetector(OnnxModel):
    """Detects objects in images with an ONNX model.

    Args:
        model: Content of the file, checked by `read_onnx`.
        source: Name of the file, for messages.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: Threads per operator; None leaves the choice to onnxruntime.

    Raises:
        UserError: onnxruntime cannot run the model, the graph contradicts the contract, or the device is not available.
    """

    def __init__(self, model: bytes, source: str, device: str = "auto", threads: int | None = None) -> None:
        super().__init__(open_session(model, source, device, threads), source)


def load_onnx_detector(path: str | Path, *, device: str = "auto", threads: int | None = None) -> OnnxDetector:
    """Loads a detector from an ONNX file; see `read_onnx` and `OnnxDetector` for the files that are rejected."""
    return OnnxDetector(read_onnx(path), str(path), device, threads)


def read_onnx(path: str | Path) -> bytes:
    """Reads an ONNX file and checks that it is complete in itself and uses standard operators only.

    Raises:
        UserError: The file does not exist, is too large, is not valid ONNX, keeps data in other files, or uses custom
            operators.
    """
    path = Path(path)
    content = read_model(path)
    try:
        model = onnx.load_model_from_string(content)
        _reject_foreign_content(model, path)
        onnx.checker.check_model(model)
    except UserError:
        raise
    except Exception as error:  # protobuf and the checker have exceptions of their own
        raise UserError(
            file=path,
            expected="an ONNX model",
            got=f"{len(content)} bytes that are not a complete one ({one_line(error, 100)})",
        ) from error
    return content


def open_session(model: bytes, source: str, device: str = "cpu", threads: int | None = None) -> "ort.InferenceSession":
    """Opens an onnxruntime session on a device.

    Args:
        model: Content of the file.
        source: Name of the file, for messages.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: Threads per operator; None leaves the choice to onnxruntime.

    Raises:
        UserError: The device is not available, or onnxruntime cannot run the model.
    """
    import onnxruntime as ort

    available = ort.get_available_providers()
    name, _, index = device.partition(":")
    if name not in ("auto", "cpu", "cuda") or (index and not (name == "cuda" and index.isdecimal())):
        raise UserError(f"{device!r} cannot be used with an ONNX model", setting="device", hint="try auto, cpu, cuda or cuda:1")
    providers: list[Provider] = ["CPUExecutionProvider"]
    if name == "cuda" or (name == "auto" and "CUDAExecutionProvider" in available):
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(index or 0)}))
    session = open_session_with_providers(model, source, providers=providers, threads=threads)
    if name == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise UserError(
            f"{device!r} cannot be used by this onnxruntime (it has {', '.join(available)})",
            setting="device",
            hint="install onnxruntime-gpu, or try cpu",
        )
    return session


def _reject_foreign_content(model: onnx.ModelProto, path: Path) -> None:
    """Rejects weights in other files, operators of other domains, and functions."""
    domains = {o.domain for o in model.opset_import}
    for graph in _graphs(model.graph):
        domains |= {n.domain for n in graph.node}
        attributes = [a for n in graph.node for a in n.attribute]
        tensors = [*graph.initializer, *(t for a in attributes for t in (a.t, *a.tensors))]
        outside = [t.name for t in tensors if t.external_data or t.data_location == onnx.TensorProto.EXTERNAL]
        if outside or any(s.values.external_data or s.indices.external_data for s in graph.sparse_initializer):
            raise UserError(file=path, expected="all weights in this file", got=f"some in another one ({outside[:1]})")
    foreign = sorted(domains.difference(_STANDARD_DOMAINS)) + sorted(f.name for f in model.functions)
    if foreign:
        raise UserError(file=path, expected="standard ONNX operators", got=f"those of {', '.join(foreign)[:100]}")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields a graph and the graphs inside its nodes (branches, loops)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _graphs(inner)
