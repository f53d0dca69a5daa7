"""The detector of the box: an ONNX file, onnxruntime, and settings for a small machine."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from ppe_edge.errors import EdgeError, NotReadyError
from ppe_yolo.core.cores import available_cores
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.onnx_session import OnnxModel, open_session, read_model

# TensorRT builds its engine for minutes at the first start, so it runs only if the configuration names it
_DEFAULT_PROVIDERS = ("CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider")
# Time that the model's threads spin while they wait for work. By default it is so long that a few frames per second keep all
# cores busy; this bridges the gaps between two operators, and between two frames at full speed.
_SPIN_US = "2000"

_log = logging.getLogger(__name__)


class EdgeDetector(OnnxModel):
    """Detects objects in frames with an ONNX model.

    Args:
        model: The .onnx file.
        providers: Execution providers of onnxruntime in order of preference; None for the usual ones.
        threads: Threads per operator; None for one per core that this process may use.

    Attributes:
        path: The .onnx file.
        name: Its file name.
        sha256: Hash of its content.

    Raises:
        EdgeError: The file does not exist, onnxruntime cannot run it, or a provider is not available; `NotReadyError` if it is
            installed but cannot be used.
        ContractError: The model has no contract, or one that contradicts the graph.
    """

    def __init__(self, model: Path, providers: Sequence[str] | None = None, threads: int | None = None) -> None:
        import onnxruntime as ort  # slow to import, and reading the configuration does not need it

        try:
            content = read_model(model)
            chosen = choose_providers(providers, ort.get_available_providers())
            session = open_session(
                content,
                str(model),
                providers=chosen,
                threads=available_cores() if threads is None else threads,
                memory_pattern=False,  # it would keep a plan, and memory, for every batch size that ever occurred
                log_severity=3,
                config_entries={"session.intra_op.spin_duration_us": _SPIN_US},
            )
        except UserError as error:
            raise EdgeError(str(error)) from error
        super().__init__(session, str(model))
        if self.provider != chosen[0]:  # onnxruntime falls back to the next one, and only logs it
            if providers is not None:
                raise NotReadyError(
                    f"{chosen[0]} is installed but cannot be used here",
                    setting="model.providers",
                    hint="remove it from the list, or fix its driver",
                )
            _log.warning("%s cannot be used here: the model runs on %s", chosen[0], self.provider)
        self.path = model
        self.name = model.name
        self.sha256 = hashlib.sha256(content).hexdigest()


def choose_providers(requested: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Returns the execution providers to try, in order: the requested ones that are available.

    Args:
        requested: Names in order of preference; None for the usual ones.
        available: Names that this onnxruntime has.

    Raises:
        EdgeError: None of the requested ones is available.
    """
    chosen = [name for name in (requested or _DEFAULT_PROVIDERS) if name in available]
    if not chosen:
        raise EdgeError(setting="model.providers", expected=f"some of {', '.join(available)}", got=", ".join(requested or ()))
    return chosen
