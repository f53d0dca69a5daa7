"""What the Azure Pipelines refer to exists: stages, jobs, outputs of steps, parameters and variables.

Azure finds an unknown stage or job when it starts a pipeline. An unknown output or variable is an empty string, hours later.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

DEVOPS = Path(__file__).resolve().parents[3] / "azureml/devops"
PIPELINES = sorted(DEVOPS.glob("*.yml"))
READ = re.compile(r"\b(?:stageDependencies|dependencies)\b[\w.]*(?:\['[^']*'\])?")
Node = Mapping[str, Any]


def mistakes(stages: list[Node]) -> Iterator[str]:
    """What Azure refuses, or reads as an empty string. Matrices and deployments have longer keys, which are not accepted."""
    jobs: dict[str, dict[str, Node]] = {}
    for stage in stages:
        name, earlier = stage["stage"], list(jobs)
        needed = listed(stage.get("dependsOn", earlier[-1:]))
        yield from (f"stage {name}: no earlier stage {n}" for n in needed if n not in earlier)
        # `dependencies` are stages in the condition of a stage, and jobs in a job
        outputs = {f"dependencies.{s}": {f"{j}.": job for j, job in jobs.get(s, {}).items()} for s in needed}
        yield from unreadable(name, {k: v for k, v in stage.items() if k != "jobs"}, outputs)
        jobs[name] = {}
        for job in stage["jobs"]:
            own = job.get("job") or job["deployment"]
            needed_jobs = listed(job.get("dependsOn", []))
            yield from (f"job {own}: no earlier job {n} in stage {name}" for n in needed_jobs if n not in jobs[name])
            outputs = {f"dependencies.{j}": {"": jobs[name].get(j, {})} for j in needed_jobs}
            outputs |= {f"stageDependencies.{s}.{j}": {"": other} for s in needed for j, other in jobs.get(s, {}).items()}
            yield from unreadable(own, job, outputs)
            jobs[name][own] = job


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def unreadable(where: str, node: Any, outputs: Mapping[str, Mapping[str, Node]]) -> Iterator[str]:
    """Expressions that read no output. `outputs` maps each source that may be read to its jobs, by the prefix of their keys."""
    for text in strings(node):
        for read in READ.findall(text):
            source, _, key = read.partition(".outputs['")
            steps = {prefix + output for prefix, job in outputs.get(source, {}).items() for output in outputs_of(job)}
            is_result = read.removesuffix(".result") in outputs and read.endswith(".result")
            if not is_result and key.removesuffix("']") not in steps:
                yield f"{where}: {read}: expected {source} in dependsOn, and one of its outputs ({', '.join(sorted(steps))})"
    for name, value in (node.get("variables", {}) if isinstance(node.get("variables"), dict) else {}).items():
        if READ.search(str(value)) and not re.fullmatch(r"\$\[.*\]", value):
            yield f"{where}: {name}: expected $[...], which Azure evaluates when the job starts, got {value}"


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from strings(child)


def used_in(script: str) -> set[str]:
    """The variables that a shell script reads."""
    return set(re.findall(r"\$\{?([A-Z][A-Z_]+)\b", script))


def outputs_of(job: Node) -> Iterator[str]:
    """STEP.VARIABLE of each output variable."""
    for step in job.get("steps", []) if "strategy" not in job else []:
        for variable in re.findall(r"task\.setvariable variable=(\w+);isOutput=true\]", json.dumps(step)):
            yield f"{step.get('name')}.{variable}"


@pytest.mark.parametrize("file", PIPELINES, ids=lambda f: f.name)
def test_stages_and_jobs_read_outputs_of_those_that_they_depend_on(file: Path) -> None:
    assert list(mistakes(yaml.safe_load(file.read_text())["stages"])) == []


@pytest.mark.parametrize(
    ("text", "becomes", "message"),
    [
        ("    dependsOn: data\n", "    dependsOn: date\n", "stage training: no earlier stage date"),
        ("    dependsOn: data\n", "    dependsOn: gate\n", "stage training: no earlier stage gate"),
        ("        dependsOn: submit\n", "        dependsOn: sumbit\n", "job wait: no earlier job sumbit in stage training"),
        ("        dependsOn: [submit, wait]\n", "        dependsOn: wait\n", "training: dependencies.submit.outputs"),
        ("stageDependencies.data.data.", "stageDependencies.data.store.", "submit: stageDependencies.data.store."),
        ("stageDependencies.data.data.", "stageDependencies.quality.quality.", "submit: stageDependencies.quality."),
        ("stageDependencies.data.data.", "dependencies.data.", "submit: dependencies.data.outputs"),
        ("outputs['store.version']", "outputs['stored.version']", r"submit: .*\(store.version\)"),
        ("outputs['store.version']", "outputs['store.versoin']", r"submit: .*\(store.version\)"),
        ("outputs['submit.job']", "output['submit.job']", "wait: dependencies.submit.output"),
        ("variable=job;isOutput=true", "variable=job", "wait: dependencies.submit.outputs"),
        ("            name: submit\n", "", "wait: dependencies.submit.outputs"),
        ("gate.outputs['gate.decision.promoted']", "gate.outputs['decision.promoted']", "release: dependencies.gate.outputs"),
        ("dependencies.gate.outputs", "stageDependencies.gate.outputs", "release: stageDependencies.gate.outputs"),
        ("$[dependencies.submit", "${{dependencies.submit", r"wait: JOB: expected \$\[\.\.\.\], which"),
    ],
)  # fmt: skip
def test_mistake_in_a_dependency_is_found(text: str, becomes: str, message: str) -> None:
    content = (DEVOPS / "mlops.yml").read_text()
    assert text in content
    found = list(mistakes(yaml.safe_load(content.replace(text, becomes))["stages"]))
    assert [f for f in found if re.match(message, f)], found


def test_templates_get_the_parameters_that_they_declare() -> None:
    """And every `${{ parameters.NAME }}` is declared, in pipelines too."""
    declared: dict[str, dict[str, bool]] = {}  # parameters of each file, and whether they have a default
    for file in [*PIPELINES, *DEVOPS.glob("steps/*.yml")]:
        content = yaml.safe_load(file.read_text())
        declared[file.name] = {p["name"]: "default" in p for p in content.get("parameters", [])}
        assert set(re.findall(r"\$\{\{\s*parameters\.(\w+)\s*\}\}", file.read_text())) == set(declared[file.name]), file.name
    calls = re.findall(r"- template: steps/(\S+)(?:\n +parameters: (.*))?", "".join(f.read_text() for f in PIPELINES))
    assert {name for name, _ in calls} == {"install.yml", "roll-out.yml"}
    for name, given in calls:
        names = set(yaml.safe_load(given) or {})
        required = {n for n, has_default in declared[name].items() if not has_default}
        assert required <= names <= set(declared[name]), name


@pytest.mark.parametrize("file", PIPELINES, ids=lambda f: f.name)
def test_variables_of_a_pipeline_are_used_and_those_of_its_scripts_are_set(file: Path) -> None:
    """Those of a variable group are named in the first lines of the file."""
    text = file.read_text()
    content, head = yaml.safe_load(text), re.match(r"(?:#.*\n)+", text)
    assert head is not None
    own = {v["name"] for v in content["variables"] if "name" in v}
    own |= {name for stage in content["stages"] for job in stage["jobs"] for name in job.get("variables", {})}
    scripts = " ".join(s for s in strings(content["stages"]) if "\n" in s or s.startswith(("ppe-yolo", "echo")))
    assert own <= used_in(scripts)
    everywhere = {v["name"] for v in content["variables"] if "name" in v} | set(re.findall(r"\b[A-Z][A-Z_]+\b", head[0]))
    for job in (job for stage in content["stages"] for job in stage["jobs"]):
        steps = [*strings(job)]
        unset = used_in(" ".join(s for s in steps if "\n" in s or s.startswith(("ppe-yolo", "echo")))) - everywhere
        unset -= set(job.get("variables", {})) | {n for s in steps for n in re.findall(r"\b([A-Z][A-Z_]+)=", s)}
        unset -= {name for step in job.get("steps", ()) for name in step.get("env", {})}
        assert not unset, job


def test_edge_image_and_manifest_have_the_same_accelerator() -> None:
    scripts = [s.replace("\\\n", " ") for s in strings(yaml.safe_load((DEVOPS / "edge.yml").read_text()))]
    (build,) = [s for s in scripts if "docker buildx build " in s]
    (fill,) = [s for s in scripts if "fill_manifest.py edge/deployment.template.json" in s]
    assert '--build-arg ACCELERATOR="$ACCELERATOR"' in build and '--accelerator "$ACCELERATOR"' in fill
    # a script gets no secret variable that `env` does not name
    (roll_out,) = [s for s in yaml.safe_load((DEVOPS / "steps/roll-out.yml").read_text())["steps"] if "env" in s]
    assert {f"$({name})" for name in re.findall(r"--keep (\w+)", fill)} <= set(roll_out["env"].values())
