"""Azure's own validation, offline: azure-ai-ml loads each file and reports what it rejects."""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppe_yolo.azure.yaml.document import Mistake
from ppe_yolo.core.words import one_line


def is_installed() -> bool:
    """Whether azure-ai-ml is installed. Does not import it, which takes seconds."""
    try:
        return importlib.util.find_spec("azure.ai.ml") is not None
    except ModuleNotFoundError:  # there is no package `azure` at all
        return False


def validate(files: Sequence[tuple[Path, str]]) -> list[Mistake] | None:
    """Validates files with azure-ai-ml.

    Args:
        files: Paths with their kinds, see `kind_of`.

    Returns:
        The mistakes that azure-ai-ml reports, or None if it is not installed.
    """
    if not is_installed():
        return None
    for name in ("azure", "msrest"):
        logging.getLogger(name).setLevel(logging.ERROR)  # their warnings about preview features hide the mistakes
    from azure.ai import ml
    from azure.ai.ml.entities._load_functions import load_schedule  # documented, but not exported

    loaders: dict[str, Any] = {
        "pipeline": ml.load_job,
        "command": ml.load_job,
        "component": ml.load_component,
        "pipeline component": ml.load_component,
        "environment": ml.load_environment,
        "compute": ml.load_compute,
        "data": ml.load_data,
        "schedule": load_schedule,
    }
    mistakes = []
    for path, kind in files:
        try:
            entity = loaders[kind](path)
        # The loaders raise a dozen exception types, some from libraries below azure-ai-ml. Each one is a mistake in the file.
        except Exception as error:
            mistakes.append(Mistake(path=path, line=1, kind="azure-ai-ml", message=one_line(error, 300)))
            continue
        check = getattr(entity, "_validate", None)
        result = check() if check else None
        for message in (result.error_messages if result is not None else {}).items():
            mistakes.append(Mistake(path=path, line=1, kind="azure-ai-ml", message=": ".join(map(str, message))))
    return mistakes
