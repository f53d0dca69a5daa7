"""Runs ONNX models: reads the file, opens a session, checks it against the contract, and detects objects in images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppe_yolo.core.contract import ONNX_METADATA_KEY, ContractError, ModelContract
from ppe_yolo.core.detections import Detections
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import refuse_lfs_pointer
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.core.words import one_line

if TYPE_CHECKING:
    import onnxruntime as ort

MAX_BYTES = 512 * 1024**2  # twice the size of YOLOv3 in float32
Provider = str | tuple[str, dict[str, Any]]  # an execution provider of onnxruntime, with its options

_OUTPUTS = ["boxes_xyxy", "scores", "labels"]


class OnnxModel:
    """An ONNX model of `ppe-yolo export`, run by onnxruntime.

    One object must not be used by several threads at the same time, since it reuses its memory.

    Args:
        session: The opened session; see `open_session`.
        source: Name of the file, for messages.

    Attributes:
        session: The session.
        contract: The model contract.
        provider: The execution provider that runs the model.

    Raises:
        ContractError: The model has no contract, or one that contradicts the graph.
    """

    def __init__(self, session: "ort.InferenceSession", source: str) -> None:
        self.session = session
        self.contract = session_contract(session, source)
        self.provider: str = session.get_providers()[0]
        self._canvases = np.empty((0, *self.contract.input_size, 3), dtype=np.uint8)

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detects objects in RGB images of any size, each uint8 [H, W, 3]; returns one `Detections` per image."""
        if len(images) == 0:  # an array of images is a sequence, too
            return []
        if len(images) > len(self._canvases):  # otherwise reuse those of earlier calls
            self._canvases = np.empty((len(images), *self._canvases.shape[1:]), dtype=np.uint8)
        batch = self._canvases[: len(images)]
        input_size, pad_value = self.contract.input_size, self.contract.pad_value
        placements = [
            letterbox(image, input_size, pad_value, out=canvas)[1] for image, canvas in zip(images, batch, strict=True)
        ]
        boxes_xyxy, scores, labels = self.run(batch)
        counts = [int(np.count_nonzero(row)) for row in scores]  # the rest is padding
        return [
            placement.restore_detections(boxes_xyxy[i, :n], scores[i, :n], labels[i, :n])
            for i, (n, placement) in enumerate(zip(counts, placements, strict=True))
        ]

    def run(self, batch: NDArray[np.uint8]) -> list[Any]:
        """Runs the graph on letterboxed images.

        Args:
            batch: uint8 [B, height, width, 3], RGB.

        Returns:
            boxes_xyxy float32 [B, D, 4] in pixels of the input, scores float32 [B, D], labels int64 [B, D], where D is
            `max_detections`. Padding has score 0.
        """
        return self.session.run(_OUTPUTS, {"images": batch})


def read_model(path: Path) -> bytes:
    """Reads an ONNX file.

    Raises:
        UserError: The file does not exist, is larger than MAX_BYTES, is a checkpoint, or cannot be read.
    """
    if not path.is_file():
        raise UserError(file=path, expected="an ONNX model", got="a folder" if path.is_dir() else "no such file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(file=path, expected=f"an ONNX model of at most {MAX_BYTES} bytes", got=str(size))
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path) from error
    refuse_lfs_pointer(path, content)
    if content.startswith(b"PK"):  # torch writes zip archives
        raise UserError(
            file=path,
            expected="an ONNX model",
            got="an archive like a checkpoint",
            hint=f"export it with `ppe-yolo export {path} --out {path.with_suffix('.onnx').name}`",
        )
    return content


def open_session(
    content: bytes,
    source: str,
    *,
    providers: Sequence[Provider],
    threads: int | None = None,
    memory_pattern: bool = True,
    log_severity: int = 4,
    config_entries: Mapping[str, str] | None = None,
) -> "ort.InferenceSession":
    """Opens an onnxruntime session.

    If the first provider cannot be used, onnxruntime falls back to the next one: compare `session.get_providers()[0]`.

    Args:
        content: Content of the file. A model opened from bytes cannot refer to other files of this machine as its weights.
        source: Name of the file, for messages.
        providers: Execution providers in order of preference.
        threads: Threads per operator; None leaves the choice to onnxruntime.
        memory_pattern: Whether onnxruntime plans its memory for each batch size.
        log_severity: Lowest severity that onnxruntime logs, 0 (verbose) to 4 (fatal).
        config_entries: Further configuration entries of the session.

    Raises:
        UserError: onnxruntime cannot run the model.
    """
    import onnxruntime as ort  # slow to import

    options = ort.SessionOptions()
    options.log_severity_level = log_severity
    options.enable_mem_pattern = memory_pattern
    if threads is not None:
        options.intra_op_num_threads = threads
    for key, value in (config_entries or {}).items():
        options.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(content, options, providers=list(providers))
    except Exception as error:  # onnxruntime raises many types
        raise UserError(
            file=source,
            expected="an ONNX model that onnxruntime can run",
            got=f"{len(content)} bytes ({one_line(error)})",
            hint="copy it again, and if that does not help, export it again with `ppe-yolo export`",
        ) from error


def session_contract(session: "ort.InferenceSession", source: str) -> ModelContract:
    """Reads the contract of an opened ONNX model, and checks it against the graph.

    Args:
        session: The session.
        source: Name of the file, for messages.

    Raises:
        ContractError: There is no contract, it cannot be read, or the graph contradicts it.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    if ONNX_METADATA_KEY not in metadata:
        raise ContractError(file=source, expected="a model of `ppe-yolo export`", got="one without a contract in its metadata")
    try:
        contract = ModelContract.from_json(metadata[ONNX_METADATA_KEY])
    except ContractError as error:
        raise ContractError(str(error), file=source) from error
    count = contract.max_detections
    expected = {
        "images": ("tensor(uint8)", [*contract.input_size, 3]),
        "boxes_xyxy": ("tensor(float)", [count, 4]),
        "scores": ("tensor(float)", [count]),
        "labels": ("tensor(int64)", [count]),
    }
    # the first dimension is the batch, which is dynamic
    actual = {v.name: (v.type, list(v.shape)[1:]) for v in (*session.get_inputs(), *session.get_outputs())}
    if "decoded_xyxy" in actual:
        raise ContractError(
            "exported with --without-nms, for other runtimes", file=source, hint="export it again without that option"
        )
    for name, promised in expected.items():
        if actual.get(name) != promised:
            raise ContractError(
                f"the contract promises {name} {_show(promised)}, the graph has {_show(actual.get(name))}",
                file=source,
                hint="export the model again",
            )
    unexpected = sorted(set(actual) - set(expected))
    if unexpected:
        raise ContractError(f"the graph has {', '.join(unexpected)}, which the contract does not mention", file=source)
    return contract


def _show(value: tuple[str, list[Any]] | None) -> str:
    return "nothing of this name" if value is None else f"{value[0]} [batch, {', '.join(map(str, value[1]))}]"
