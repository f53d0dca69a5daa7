"""Azure's own validation, offline: azure-ai-ml loads each file and says what it has against it."""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppe_yolo.azure.yaml.document import Mistake


def is_installed() -> bool:
    """Whether azure-ai-ml is there; without importing it, which takes seconds."""
    try:
        return importlib.util.find_spec("azure.ai.ml") is not None
    except ModuleNotFoundError:  # no package `azure` at all
        return False


def validate(files: Sequence[tuple[Path, str]]) -> list[Mistake] | None:
    """What azure-ai-ml finds in files of known kinds; None where it is not installed."""
    if not is_installed():
        return None
    for chatty in ("azure", "msrest"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    from azure.ai import ml
    from azure.ai.ml.entities._load_functions import load_schedule  # which it does not show, though it is documented

    loaders: dict[str, Any] = {
        "pipeline": ml.load_job,
        "command": ml.load_job,
        "component": ml.load_component,
        "environment": ml.load_environment,
        "compute": ml.load_compute,
        "data": ml.load_data,
        "schedule": load_schedule,
    }
    mistakes = []
    for path, kind in files:
        try:
            entity = loaders[kind](path)
        # it raises a dozen kinds of errors, its own and those of libraries below it, and each is a finding here
        except Exception as error:
            mistakes.append(Mistake(path, 1, "azure-ai-ml", " ".join(str(error).split())[:300]))
            continue
        check = getattr(entity, "_validate", None)
        result = check() if check else None
        for message in (result.error_messages if result is not None else {}).items():
            mistakes.append(Mistake(path, 1, "azure-ai-ml", ": ".join(map(str, message))))
    return mistakes
