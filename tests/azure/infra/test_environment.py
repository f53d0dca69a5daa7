"""The environment of Azure ML installs the dependencies in pyproject.toml."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


def test_conda_file_lists_the_dependencies_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # azureml installs the full mlflow instead of mlflow-skinny
    listed = (*project["dependencies"], *extras["azureml"], *extras["blob"], *extras["registry"])
    wanted = {r for r in listed if not r.startswith("mlflow-skinny")}
    (pip,) = [d["pip"] for d in yaml.safe_load((ROOT / "azureml/environments/conda.yml").read_text())["dependencies"][2:]]
    assert set(pip) == wanted
    assert len(pip) == len(set(pip))
