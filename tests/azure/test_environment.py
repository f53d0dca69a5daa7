"""What Azure installs is what pyproject.toml lists, so that neither is changed without the other."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_conda_file_lists_what_pyproject_lists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # azureml brings the whole mlflow, of which registry needs a part
    listed = (*project["dependencies"], *extras["azureml"], *extras["blob"], *extras["registry"])
    wanted = {r for r in listed if not r.startswith("mlflow-skinny")}
    (pip,) = [d["pip"] for d in yaml.safe_load((ROOT / "azureml/environments/conda.yml").read_text())["dependencies"][2:]]
    assert set(pip) == wanted
    assert len(pip) == len(set(pip))
