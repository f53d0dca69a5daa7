"""The gate in an Azure ML workspace. The services are stand-ins with the limits of the real ones; azure-ai-ml is real."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppe_yolo.azure.lint.official import is_installed
from ppe_yolo.core.errors import UserError
from ppe_yolo.gate.azure_models import AzureModels, BlobLease, connect
from ppe_yolo.gate.lock import hold
from ppe_yolo.gate.registry import Registry

pytestmark = pytest.mark.skipif(not is_installed(), reason="azure-ai-ml is not installed: pip install '.[azureml]'")


class ModelService:
    """The models of a workspace: custom models from the outputs of jobs; no dots in names, no new paths, no deletion."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] = {}
        self.models = self

    def list(self, name: str) -> list[Any]:
        from azure.core.exceptions import ResourceNotFoundError

        if not self.stored:
            raise ResourceNotFoundError(f"no model {name}")
        return [SimpleNamespace(version=m.version, tags=dict(m.tags)) for m in self.stored.values()][::-1]

    def get(self, name: str, version: str) -> Any:
        return self.stored[version]

    def create_or_update(self, model: Any) -> Any:
        from azure.ai.ml.exceptions import AssetPathException

        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}", model.name)
        assert model.type == "custom_model"  # a folder without an MLmodel
        assert re.fullmatch(r"azureml://jobs/\w+/outputs/artifacts/paths/\S+", model.path)
        if model.version is None:
            assert model._auto_increment_version
            model.version = str(len(self.stored) + 1)
        elif self.stored[model.version].path != model.path:
            raise AssetPathException("another path", no_personal_data_message="", target="", error_category="")
        self.stored[model.version] = model
        return model

    def delete(self, *arguments: str) -> None:
        raise AssertionError("Azure ML does not delete registered models")


class Blob:
    """A blob with leases: one holder at a time, who may be gone when its lease has expired."""

    container_name, blob_name = "azureml", "ppe-yolo/helmet.promotion.lock"

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.holder: object | None = None

    def exists(self) -> bool:
        return self.content is not None

    def upload_blob(self, content: bytes, *, overwrite: bool) -> None:
        if self.content is not None:
            raise refusal(409)
        self.content = content

    def acquire_lease(self, lease_duration: int) -> Any:
        assert self.content is not None
        assert lease_duration == -1 or 15 <= lease_duration <= 60  # the limits of Azure Storage
        if self.holder is not None:
            raise refusal(409)
        self.holder = mine = object()

        def require() -> None:
            if self.holder is not mine:
                raise refusal(409)

        def release() -> None:
            require()
            self.holder = None

        return SimpleNamespace(renew=require, release=release)


def refusal(status: int) -> Exception:
    from azure.core.exceptions import HttpResponseError

    return HttpResponseError("refused", response=SimpleNamespace(status_code=status, reason="Conflict"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/model.onnx").write_text("a model")
    return tmp_path / "files"


def test_registry_in_workspace_promotes_and_rolls_back(tmp_path: Path, files: Path) -> None:
    service, blob = ModelService(), Blob()
    registry = Registry(f"sqlite:///{tmp_path}/runs.db", "helmet", models=AzureModels(service, "helmet"), lease=BlobLease(blob))
    assert registry.champion() is None
    for expected in (1, 2):
        with registry.locked():
            version = registry.register(files, {"recall": "0.9"})
            registry.promote(version)
        assert registry.champion() is not None and registry.champion().number == expected
    assert [v.tags["stage"] for v in registry.versions()] == ["retired", "champion"]
    (tmp_path / "downloaded").mkdir()
    assert (registry.files(version, tmp_path / "downloaded") / "model.onnx").read_text() == "a model"
    with registry.locked():
        registry.roll_back()
    assert [v.tags["stage"] for v in registry.versions()] == ["champion", "rejected"]
    assert blob.holder is None


def test_blob_lease_lets_one_in_and_expires() -> None:
    blob = Blob()
    dead, heir = BlobLease(blob), BlobLease(blob)
    assert dead.acquire() and not heir.acquire() and dead.renew()
    blob.holder = None  # the storage service ends the lease of a holder that does not renew it
    assert heir.acquire() and not dead.renew()
    dead.release()
    assert heir.renew()
    heir.release()
    with hold(dead, lambda where: pytest.fail(where)) as check:
        check()
        blob.holder = object()
        with pytest.raises(UserError, match=r"lost the lock azureml/ppe-yolo/helmet\.promotion\.lock"):
            check()


def test_azure_models_name_with_dot_is_refused() -> None:
    with pytest.raises(UserError, match=r"name: expected letters, digits, - and _, as Azure ML requires, got 'helmet\.gate'"):
        AzureModels(ModelService(), "helmet.gate")


def test_connect_without_workspace_in_the_address_is_refused() -> None:
    with pytest.raises(UserError, match="expected azureml://REGION"):
        connect("azureml://east", "helmet")
