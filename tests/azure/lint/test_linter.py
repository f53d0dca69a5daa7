"""Lint finds every kind of mistake, planted one at a time in a copy of the repository's YAML, with its file and line."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PIPELINE, TRAIN, EXPORT = "pipeline.yml", "components/train.yml", "components/export.yml"
ENVIRONMENT, GPU, WEEKLY, SCORE = (
    "environments/ppe-yolo.yml",
    "compute/gpu-cluster.yml",
    "schedules/weekly.yml",
    "components/score.yml",
)
CONDA = "environments/conda.yml"
WEEKLY_JOB, SAMPLES, SAMPLES_STEP = "schedules/weekly-job.yml", "schedules/samples-job.yml", "components/samples.yml"
CRON = 'cron\n  expression: "0 2 * * 0"'
VERSION = str(yaml.safe_load((ROOT / "azureml" / ENVIRONMENT).read_text())["version"])
RunCli = Callable[..., int]

# name: file, text, replacement, part of the reported line, kind, part of the message
PLANTED: dict[str, tuple[str, str, str, str, str, str]] = {
    "unknown parent input": (
        PIPELINE,
        "max_epochs: ${{parent.inputs.max_epochs}}",
        "max_epochs: ${{parent.inputs.max_epoch}}",
        "parent.inputs.max_epoch}}",
        "unknown-parent-input",
        "no input max_epoch",
    ),
    "unknown job in a binding": (
        PIPELINE,
        "model: ${{parent.jobs.export.outputs.model}}",
        "model: ${{parent.jobs.exprot.outputs.model}}",
        "exprot",
        "unknown-job",
        "no job exprot",
    ),
    "unknown output in a binding": (
        PIPELINE,
        "model: ${{parent.jobs.export.outputs.model}}",
        "model: ${{parent.jobs.export.outputs.onnx}}",
        "outputs.onnx",
        "unknown-output",
        "has no output onnx; outputs: model",
    ),
    "invalid binding": (
        PIPELINE,
        "model: ${{parent.jobs.export.outputs.model}}",
        "model: ${{jobs.export.outputs.model}}",
        "{{jobs.export",
        "unknown-binding",
        "expected ${{parent.inputs.NAME}}",
    ),
    "undeclared input of a component": (
        PIPELINE,
        "      margin: ${{parent.inputs.margin}}",
        "      margin: ${{parent.inputs.margin}}\n      marign: 1",
        "marign: 1",
        "undeclared-input",
        "promote.yml has no input marign",
    ),
    "undeclared output of a component": (
        PIPELINE,
        "      decision: ${{parent.outputs.decision}}",
        "      decisoin: ${{parent.outputs.decision}}",
        "decisoin",
        "undeclared-output",
        "has no output decisoin",
    ),
    "required input missing": (
        PIPELINE,
        "      validation: ${{parent.jobs.evaluate.outputs.validation}}\n",
        "",
        "^    inputs:$",
        "missing-input",
        "expected the input validation of report.yml",
    ),
    "literal of the wrong type": (
        PIPELINE,
        "  max_epochs: 120",
        "  max_epochs: many",
        "max_epochs: many",
        "wrong-value",
        "expected integer, got 'many'",
    ),
    "string that YAML reads as a boolean": (
        PIPELINE,
        "  model_name: helmet",
        "  model_name: on",
        "model_name: on",
        "wrong-value",
        "got True (boolean)",
    ),
    "literal out of range": (
        PIPELINE,
        "  max_epochs: 120",
        "  max_epochs: 0",
        "max_epochs: 0",
        "wrong-value",
        "expected 1 or more, got 0",
    ),
    "literal above its range": (
        PIPELINE,
        "  min_recall: 0.5",
        "  min_recall: 50",
        "min_recall: 50",
        "wrong-value",
        "expected at most 1, got 50",
    ),
    "literal outside the enum": (
        PIPELINE,
        "  on_error: stop",
        "  on_error: ignore",
        "on_error: ignore",
        "wrong-value",
        "expected one of stop, skip",
    ),
    "folder given as a file": (
        "components/promote.yml",
        "  model: {type: uri_folder}",
        "  model: {type: uri_file}",
        "model: ${{parent.jobs.export.outputs.model}}",
        "type-mismatch",
        "expected uri_file, got a binding to uri_folder",
    ),
    "output of another type than the pipeline's": (
        PIPELINE,
        "  decision: {type: uri_folder}",
        "  decision: {type: uri_file}",
        "decision: ${{parent.outputs.decision}}",
        "type-mismatch",
        "the pipeline's output decision is uri_file",
    ),
    "string where a number is expected": (
        PIPELINE,
        "      max_epochs: ${{parent.inputs.max_epochs}}",
        "      max_epochs: ${{parent.inputs.recipe}}",
        "recipe: yolov3",
        "wrong-value",
        "which is max_epochs of job train: expected integer",
    ),
    "cycle": (
        PIPELINE,
        "      validation: ${{parent.jobs.evaluate.outputs.validation}}",
        "      validation: ${{parent.jobs.export.outputs.model}}",
        "^  report:",
        "cycle",
        "jobs report, export, promote need each other",
    ),
    "missing script": (
        TRAIN,
        "python scripts/train.py",
        "python scripts/trian.py",
        "scripts/trian.py",
        "missing-script",
        "scripts/trian.py: no such file in the code folder",
    ),
    "missing code folder": (TRAIN, "code: ../..", "code: ../../src", "code:", "missing-code", "code: no such folder"),
    "misspelled key of the distribution": (
        PIPELINE,
        "      process_count_per_instance: 1",
        "      process_count_per_node: 1",
        "process_count_per_node",
        "unknown-key",
        "did you mean process_count_per_instance?",
    ),
    "misspelled key of a component": (
        EXPORT,
        "display_name: Export",
        "dispaly_name: Export",
        "dispaly",
        "unknown-key",
        "did you mean display_name?",
    ),
    "environment without a version": (
        EXPORT,
        "azureml:ppe-yolo:HASH",
        "azureml:ppe-yolo",
        "environment:",
        "missing-version",
        "azureml:ppe-yolo:VERSION",
    ),
    "undeclared environment version": (
        EXPORT,
        "azureml:ppe-yolo:HASH",
        "azureml:ppe-yolo:7",
        "environment:",
        "unknown-reference",
        "declare version HASH",
    ),
    "misspelled environment name": (
        EXPORT,
        "azureml:ppe-yolo:HASH",
        "azureml:ppe-yola:1",
        "environment:",
        "unknown-reference",
        "did you mean ppe-yolo?",
    ),
    "data without a version": (
        PIPELINE,
        "azureml:site-photos:1",
        "azureml:site-photos",
        "path:",
        "missing-version",
        "expected azureml:site-photos:VERSION or azureml:site-photos@latest",
    ),
    "illegal component name": (
        EXPORT,
        "name: ppe_yolo_export",
        "name: PPE-export",
        "name: PPE-export",
        "illegal-name",
        "not starting with a digit, got 'PPE-export'",
    ),
    "missing component file": (
        PIPELINE,
        "component: ./components/export.yml",
        "component: ./components/exprot.yml",
        "exprot.yml",
        "missing-component",
        "job export: no such component file ./components/exprot.yml",
    ),
    "undeclared cluster": (
        PIPELINE,
        "default_compute: azureml:gpu-cluster",
        "default_compute: azureml:gpu-clutser",
        "default_compute",
        "unknown-reference",
        "did you mean gpu-cluster?",
    ),
    "cluster without azureml:": (
        PIPELINE,
        "default_compute: azureml:gpu-cluster",
        "default_compute: gpu-cluster",
        "default_compute",
        "unknown-reference",
        "expected azureml:NAME",
    ),
    "no cluster": (
        PIPELINE,
        "settings:\n  default_compute: azureml:gpu-cluster\n",
        "settings:\n",
        "^  (train|evaluate):",
        "missing-compute",
        "job train: expected compute, or default_compute",
    ),
    "unknown distribution": (
        PIPELINE,
        "      type: pytorch",
        "      type: pytoch",
        "type: pytoch",
        "unknown-distribution",
        "expected one of pytorch",
    ),
    "distribution without a type": (
        PIPELINE,
        "      type: pytorch\n",
        "",
        "^    distribution:",
        "missing-key",
        "distribution: expected type",
    ),
    "zero instances": (
        PIPELINE,
        "      instance_count: 1",
        "      instance_count: 0",
        "instance_count: 0",
        "wrong-count",
        "resources.instance_count: expected a whole number of 1 or more, got 0",
    ),
    "unknown type of an input": (
        EXPORT,
        "  run: {type: uri_folder}",
        "  run: {type: uri_foldr}",
        "uri_foldr",
        "unknown-type",
        "got 'uri_foldr'",
    ),
    "default out of range": (
        EXPORT,
        "min: 1, default: 200",
        "min: 1, default: 0",
        "default: 0",
        "wrong-default",
        "default of calibration_photos: expected 1 or more, got 0",
    ),
    "output mode on an input": (
        PIPELINE,
        "    mode: ro_mount",
        "    mode: rw_mount",
        "mode: rw_mount",
        "unknown-mode",
        "input data: expected one of the modes ro_mount,",
    ),
    "undeclared input in a command": (
        EXPORT,
        "--max-drop ${{inputs.max_drop}}",
        "--max-drop ${{inputs.max_loss}} ${{inputs.max_drop}}",
        "inputs.max_loss",
        "undeclared-in-command",
        "${{inputs.max_loss}}: no such input is declared",
    ),
    "unclosed expression in a command": (
        EXPORT,
        "--max-drop ${{inputs.max_drop}}",
        "--max-drop ${{inputs.max_drop ${{inputs.max_drop}}",
        "--max-drop",
        "unknown-binding",
        "got ${{inputs.max_drop",
    ),
    "unused input of a component": (
        EXPORT,
        "--max-drop ${{inputs.max_drop}}",
        "--max-drop 1",
        "max_drop: {",
        "unused-port",
        "input max_drop is declared, but the command does not use it",
    ),
    "optional input outside brackets": (
        TRAIN,
        "$[[--model.weights ${{inputs.weights}}]]",
        "--model.weights ${{inputs.weights}}",
        "--model.weights",
        "optional-not-bracketed",
        "${{inputs.weights}} is optional: put the part of the command that needs it into",
    ),
    "unwritten output of the pipeline": (
        PIPELINE,
        "      model: ${{parent.outputs.model}}\n",
        "      model: {mode: rw_mount}\n",
        "^  model: ",
        "unwritten-output",
        "expected exactly one job that writes it, got none",
    ),
    "undeclared output of the pipeline": (
        PIPELINE,
        "      run: ${{parent.outputs.run}}",
        "      run: ${{parent.outputs.runs}}",
        "parent.outputs.runs",
        "unknown-parent-output",
        "no output runs",
    ),
    "unused input of the pipeline": (
        PIPELINE,
        "  seed: 0\n",
        "  seed: 0\n  sede: 0\n",
        "sede: 0",
        "unused-input",
        "input sede: no job uses it",
    ),
    "duplicate key": (
        PIPELINE,
        "  seed: 0\n",
        "  seed: 0\n  seed: 1\n",
        "seed: 1",
        "duplicate-key",
        "seed: duplicate key",
    ),
    "invalid YAML": (GPU, "tier: low_priority", "tier: [low_priority", "", "unreadable", "expected YAML"),
    "missing conda file": (
        ENVIRONMENT,
        "conda_file: conda.yml",
        "conda_file: cnoda.yml",
        "conda_file",
        "missing-file",
        "no such file cnoda.yml",
    ),
    "min_instances above max_instances": (
        GPU,
        "min_instances: 0",
        "min_instances: 9",
        "min_instances",
        "wrong-count",
        "at most max_instances, 4",
    ),
    "VM size without a local disk": (
        GPU,
        "Standard_NC4as_T4_v3",
        "Standard_D4s_v5",
        "size: ",
        "unsupported-size",
        "got Standard_D4s_v5",
    ),
    "unknown tier": (
        GPU, "tier: low_priority", "tier: spot", "tier: spot",
        "unknown-type", "tier: expected dedicated or low_priority, got 'spot'",
    ),
    "cron hour out of range": (
        WEEKLY,
        '"0 2 * * 0"',
        '"0 25 * * 0"',
        "expression",
        "wrong-schedule",
        "hour: expected numbers from 0 to 23",
    ),
    "cron expression with six fields": (
        WEEKLY,
        '"0 2 * * 0"',
        '"0 0 2 * * 0"',
        "expression",
        "wrong-schedule",
        "expected five fields (minute hour day month day-of-week), got 6",
    ),
    "schedule of a missing job": (
        WEEKLY,
        "./weekly-job.yml",
        "./weekly-jbo.yml",
        "create_job",
        "missing-file",
        "create_job: no such file ./weekly-jbo.yml: the path is relative to this file",
    ),
    "missing entry script": (
        SCORE,
        "scripts/score_batch.py",
        "scripts/score.py",
        "entry_script",
        "missing-script",
        "scripts/score.py: no such file in the code folder",
    ),
    "unknown schema": (
        GPU,
        "amlCompute.schema.json",
        "amlcomput.schema.json",
        "schema.json",
        "unknown-schema",
        "expected an Azure ML schema for one of",
    ),
    "rule that no threshold can meet": (
        PIPELINE,
        '  rule: "recall>=0.9"',
        '  rule: "recall>=2"',
        '  rule: "recall>=2"',
        "wrong-value",
        "expected a recall above 0 and up to 1",
    ),
    "class map that does not exist": (
        PIPELINE,
        "  class_map: default",
        "  class_map: hard-hats",
        "  class_map: hard-hats",
        "wrong-value",
        "/hard-hats' (no such file)",
    ),
    "recipe that does not exist": (
        PIPELINE,
        "  recipe: yolov3",
        "  recipe: yolov4",
        "  recipe: yolov4",
        "wrong-value",
        "recipe: expected quickstart, yolov3, yolov3-small, yolov3-tiny or a YAML file in the code folder, got yolov4",
    ),
    "side that is no multiple of 32": (
        PIPELINE,
        "  largest_side: 608",
        "  largest_side: 600",
        "  largest_side: 600",
        "wrong-value",
        "expected a multiple of 32, got 600",
    ),
    "smallest side above the largest": (
        PIPELINE,
        "  smallest_side: 320",
        "  smallest_side: 640",
        "  smallest_side: 640",
        "wrong-value",
        "expected at most largest_side, 608",
    ),
    "critical class that the class map lacks": (
        PIPELINE,
        "  critical_class: none",
        "  critical_class: person",
        "  critical_class: person",
        "wrong-value",
        "expected a class of the class map default (helmet, none), got person",
    ),
    "model name that Azure ML does not register": (
        PIPELINE,
        "  model_name: helmet",
        "  model_name: helmet.v2",
        "  model_name: helmet.v2",
        "wrong-value",
        "model_name: expected letters, digits, - and _, got 'helmet.v2'",
    ),
    "more nodes than the cluster has": (
        PIPELINE,
        "      instance_count: 1",
        "      instance_count: 8",
        "instance_count: 8",
        "wrong-count",
        "at most the 4 nodes",
    ),
    "unbalanced quote in a command": (
        TRAIN,
        "--seed_everything",
        "--seed_everything '",
        "command:",
        "invalid-command",
        "unexpected EOF while looking for matching",
    ),
    "invalid pip requirement": (
        "environments/conda.yml",
        "numpy>=2.0",
        "numpy=>2.0",
        "",
        "invalid-requirement",
        "expected a requirement, got 'numpy=>2.0'",
    ),
    "pip section without pip": (
        "environments/conda.yml",
        "  - pip\n",
        "",
        "",
        "missing-pip",
        "dependencies: expected pip in addition to its section",
    ),
    "shm_size that is no size": (
        PIPELINE,
        "shm_size: 8g",
        "shm_size: eight",
        "shm_size: eight",
        "wrong-value",
        "resources.shm_size: expected a number with b, k, m or g, such as 8g, got 'eight'",
    ),
    "unknown time zone": (
        WEEKLY,
        "time_zone: UTC",
        "time_zone: Europe/Berln",
        "time_zone",
        "wrong-schedule",
        "no such time zone 'Europe/Berln'",
    ),
    "misspelled datastores": (
        PIPELINE,
        "path: azureml:site-photos:1",
        "path: azureml://datastore/photos/paths/a",
        "path:",
        "unknown-reference",
        "got azureml://datastore/photos/paths/a",
    ),
    "two components of one name": (
        EXPORT,
        "name: ppe_yolo_export",
        "name: ppe_yolo_train",
        "name: ppe_yolo_train",
        "duplicate-name",
        "ppe_yolo_train is also the name of",
    ),
    "retry timeout of zero": (
        SCORE,
        "  timeout: 3600",
        "  timeout: 0",
        "timeout: 0",
        "wrong-value",
        "retry_settings.timeout: expected seconds from 1 to 259200, got 0",
    ),
    "experiment name with a blank": (
        PIPELINE,
        "experiment_name: ppe-yolo-training",
        "experiment_name: ppe yolo/training",
        "experiment_name",
        "illegal-name",
        "got 'ppe yolo/training'",
    ),
    "unknown Azure variable": (
        TRAIN,
        "AZUREML_NODE_COUNT:-1}\n",
        "AZUREML_NODES_COUNT:-1}\n",
        "AZUREML_NODES_COUNT",
        "unknown-variable",
        "AZUREML_NODES_COUNT: Azure ML sets no such variable: did you mean AZUREML_NODE_COUNT?",
    ),
    "asset name with a dot": (
        ENVIRONMENT,
        "name: ppe-yolo\n",
        "name: ppe.yolo\n",
        "name: ppe.yolo",
        "illegal-name",
        "got 'ppe.yolo'",
    ),
    "missing type": (EXPORT, "type: command\n", "", "", "missing-key", "expected type, which a component must have"),
    # options of our own commands
    "misspelt option": (
        "components/evaluate.yml", "--split val", "--splt val", "--splt", "unknown-option", "No such option: --splt",
    ),
    "misspelt option of fit": (
        TRAIN, "--trainer.max_epochs", "--trainer.max_epoch", "--trainer.max_epoch",
        "unknown-option", "Did you mean --trainer.max_epochs?",
    ),
    "misspelt argument of the entry script": (
        SCORE, "--model ${{", "--modle ${{", "--modle", "unknown-option", "score_batch.py: no such option --modle",
    ),
    "missing option": (EXPORT, "--out ${{outputs.model}}/model.onnx", "", "", "unknown-option", "expected --out, got none"),
    # single values
    "timeout of a step in days": (
        PIPELINE, "{timeout: 604800}", "{timeout: 7d}", "7d",
        "wrong-value", "limits.timeout: expected seconds from 1 to 2592000",
    ),
    "setting that is no boolean": (
        PIPELINE, "_failure: false", "_failure: never", "_failure: never",
        "wrong-value", "settings.continue_on_step_failure: expected true or false, got 'never'",
    ),
    "datastore with a space": (
        PIPELINE, "azureml:runs", "azureml:my runs", "my runs",
        "wrong-value", "settings.default_datastore: expected azureml: and a name",
    ),
    "more processes than GPUs": (
        PIPELINE, "instance: 1", "instance: 4", "instance: 4", "wrong-count", "at most the 1 GPUs of a node, got 4",
    ),
    "unknown identity": (
        PIPELINE, "type: managed", "type: managd", "managd", "wrong-value", "identity.type: expected one of managed,",
    ),
    "unknown logging level": (
        SCORE, "level: INFO", "level: LOUD", "LOUD", "wrong-value", "logging_level: expected one of info,",
    ),
    "negative threshold": (
        SCORE, "threshold: 0", "threshold: -2", "-2",
        "wrong-value", "mini_batch_error_threshold: expected -1 (any number) or more",
    ),
    "no deterministic": (
        "components/promote.yml", ": false #", ": no way #", "no way",
        "wrong-value", "is_deterministic: expected true or false",
    ),
    "outputs of an earlier run": (
        "components/promote.yml", "is_deterministic: false # the champion may have changed\n", "", "",
        "wrong-value", "otherwise Azure ML would reuse the outputs of an earlier run",
    ),
    "version with a space": (
        EXPORT, "version: 1", "version: v 1", "v 1", "wrong-value", "version: expected letters, digits, dots",
    ),
    "cluster without nodes": (
        GPU, "max_instances: 4", "max_instances: 0", ": 0", "wrong-count", "max_instances: expected 1 or more",
    ),
    "negative idle time": (GPU, "down: 300", "down: -1", "-1", "wrong-value", "idle_time_before_scale_down: expected seconds"),
    "model name with a dot": (
        "batch-scoring.yml", "azureml:helmet:1", "azureml:hel.met:1", "hel.met",
        "illegal-name", "expected a name of letters, digits, - and _, got 'hel.met'",
    ),
    # the environment
    "changed environment with the old version": (
        CONDA, "numpy>=2.0", "numpy>=2.1", "", "outdated-version", "the hash of image and conda.yml",
    ),
    "Python that is too old": (CONDA, "python=3.11", "python=3.9", "3.9", "invalid-requirement", "requires >=3.11, got 3.9"),
    "package listed twice": (
        CONDA, '- "jinja2', '- "Jinja2>=3"\n      - "jinja2', "jinja2>=3.1", "invalid-requirement", "jinja2 is listed twice",
    ),
    "index that hides PyPI": (
        CONDA, "--extra-index-url", "--index-url", "--index-url", "invalid-requirement", "use --extra-index-url",
    ),
    # references and addresses
    "environment without azureml:": (
        EXPORT, "azureml:ppe-yolo:HASH", "ppe-yolo:HASH", "env",
        "unknown-reference", "expected azureml:NAME:VERSION, got 'ppe-yolo:HASH'",
    ),
    "label that is not latest": (
        "batch-scoring.yml", "helmet:1", "helmet@newest", "path:", "unknown-reference", "expected the label latest",
    ),
    "cluster with a version": (
        PIPELINE, "azureml:cpu-cluster", "azureml:cpu-cluster:1", "cpu", "unknown-reference", "a compute has no versions",
    ),
    "datastore that the template does not make": (
        PIPELINE, "azureml:runs", "azureml:run", "default_datastore", "unknown-reference", "did you mean runs?",
    ),
    "datastore of an input that the template does not make": (
        SAMPLES, "datastores/samples/", "datastores/sample/", "path:", "unknown-reference", "did you mean samples?",
    ),
    "address without paths": (
        SAMPLES, "samples/paths/", "samples/", "path:", "unknown-reference", "got azureml://datastores/samples/",
    ),
    "address of data": (
        "data/site-photos.yml", "../../data/", "azureml://data/", "path:",
        "unknown-reference", "got azureml://data/site-photos",
    ),
    "datastore of data that the template does not make": (
        "data/site-photos.yml", "../../data/", "azureml://datastores/sample/paths/", "path:",
        "unknown-reference", "did you mean samples?",
    ),
    # jobs
    "step without a timeout": (
        WEEKLY_JOB, "    limits: {timeout: 3600}\n", "", "^  submit:",
        "missing-timeout", "job submit: expected limits.timeout: without it a job that hangs keeps costing money",
    ),
    "mini-batch without a timeout": (
        SCORE, "  timeout: 3600\n", "", "^  score:", "missing-timeout", "job score: expected retry_settings.timeout",
    ),
    "cluster without GPUs": (
        PIPELINE, "{timeout: 604800}", "{timeout: 604800}\n    compute: azureml:cpu-cluster", "compute",
        "no-gpu", "expected a cluster with GPUs for accelerator: gpu, got cpu-cluster",
    ),
    "identity that the command needs": (
        PIPELINE, "    identity:\n      type: managed\n", "", "^  promote:",
        "missing-identity", "job promote: expected identity with type: managed",
    ),
    "identity: no mapping": (
        PIPELINE, "identity:\n      type: managed", "identity: managed", "identity",
        "wrong-shape", "identity: expected keys and values",
    ),
    "tags that are no mapping": (
        PIPELINE, "type: pipeline\n", "type: pipeline\ntags: [a]\n", "tags", "wrong-shape", "tags: expected keys and values",
    ),
    "misspelt module": (
        SAMPLES_STEP, "ppe_yolo.cli", "ppe_yolo.cil", "ppe_yolo.cil", "missing-script", "no such module: correct the name",
    ),
    "misspelt variable of the identity": (
        SAMPLES_STEP, "CLIENT_ID\n", "CLIENTID\n", "CLIENTID", "unknown-variable", "did you mean DEFAULT_IDENTITY_CLIENT_ID?",
    ),
    "task of another type": (
        SCORE, "run_function", "function", "type: function", "unknown-type", "task.type: expected one of run_function",
    ),
    "cluster of another type": (
        GPU, "type: amlcompute", "type: kubernetes", "type:", "unknown-type", "expected amlcompute, got 'kubernetes'",
    ),
    "VM size that is retired": (
        GPU, "Standard_NC4as_T4_v3", "Standard_NC6s_v3", "size:", "unsupported-size", "got Standard_NC6s_v3",
    ),
    # schedules
    "time zone of IANA": (
        WEEKLY, "zone: UTC", "zone: Europe/Berlin", "zone",
        "wrong-schedule", "expected one of Windows, such as W. Europe Standard Time",
    ),
    "start time with an offset": (
        WEEKLY, "zone: UTC", 'zone: UTC\n  start_time: "2026-12-01T08:00:00+01:00"', "start_time",
        "wrong-schedule", "expected a time without UTC offset",
    ),
    "hours that run backwards": (
        WEEKLY, '"0 2 ', '"0 18-6 ', "expression", "wrong-schedule", "write 18-23,0-6 if that is meant",
    ),
    "recurrence without an interval": (
        WEEKLY, CRON, "recurrence\n  frequency: day", "trigger:",
        "wrong-schedule", "interval: expected a number from 1 to 1000, got None",
    ),
    "recurrence above 1000": (
        WEEKLY, CRON, "recurrence\n  frequency: day\n  interval: 2000", "interval",
        "wrong-schedule", "from 1 to 1000, got 2000",
    ),
    "recurrence with two intervals": (
        WEEKLY, CRON, "recurrence\n  frequency: day\n  interval: [1, 2]", "interval", "wrong-schedule", "got [1, 2]",
    ),
    "days that run backwards": (
        WEEKLY, "* * 0", "* * FRI-MON", "expression", "wrong-schedule", "write FRI-SAT,SUN-MON if that is meant",
    ),
    "recurrence at 24 hours": (
        WEEKLY, CRON, "recurrence\n  frequency: day\n  interval: 1\n  schedule: {hours: 24, minutes: 0}",
        "schedule: {", "wrong-schedule", "schedule.hours: expected numbers from 0 to 23, got 24",
    ),
    "recurrence on an unknown day": (
        WEEKLY, CRON, "recurrence\n  frequency: week\n  interval: 1\n  schedule: {hours: 2, minutes: 0, week_days: [funday]}",
        "schedule: {", "wrong-schedule", "saturday, sunday, got ['funday']",
    ),
    "schedule of a component": (
        WEEKLY, "./weekly-job.yml", "../components/submit.yml", "job",
        "unknown-type", "create_job: expected a pipeline or a command",
    ),
    # what a schedule submits
    "class map of a schedule": (
        WEEKLY_JOB, "map: default", "map: hats", "^  submit:", "wrong-submission", "/hats' (no such file)",
    ),
    "pipeline of a schedule": (
        WEEKLY_JOB, "l/pipeline.yml", "l/pipelin.yml", "^  submit:", "wrong-submission", "pipelin.yml:1: cannot be read",
    ),
    "option of a schedule": (
        WEEKLY_JOB, "--set inputs.seed", "--sett inputs.seed", "^  submit:", "wrong-submission", "No such option: --sett",
    ),
    "input of a schedule": (
        WEEKLY_JOB, "inputs.seed", "inputs.sede", "^  submit:", "wrong-submission", "--set inputs.sede: no such key",
    ),
    "input of a schedule, after =": (
        WEEKLY_JOB, "--set inputs.seed", "--set=inputs.sede", "^  submit:",
        "wrong-submission", "--set inputs.sede: no such key",
    ),
    "limit of a schedule": (
        SAMPLES_STEP, "unsure_share>", "unsure_share=", "^  samples:",
        "wrong-submission", "only_if: expected FILE:KEY<LIMIT or FILE:KEY>LIMIT",
    ),
    "unknown option of pip": (
        CONDA, "--extra-index-url", "--extra-index", "index ",
        "invalid-requirement", "expected an option of a requirements file, got --extra-index",
    ),
}  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository's YAML and scripts. azure-ai-ml is off, since test_official covers it."""
    shutil.copytree(ROOT / "azureml", tmp_path / "azureml", ignore=shutil.ignore_patterns("devops", "*.sh", "parameters.json"))
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ppe_yolo.azure.lint.linter.validate", lambda files: None)
    return tmp_path


@pytest.mark.parametrize("name", PLANTED)
def test_lint_planted_mistake_is_reported_with_file_and_line(
    name: str, checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text, becomes, where, kind, message = (part.replace("HASH", VERSION) for part in PLANTED[name])
    path = checkout / "azureml" / file
    before = path.read_text()
    assert before.count(text) >= 1
    path.write_text(before.replace(text, becomes, 1))
    assert run_cli("azureml", "lint", "azureml") == 1
    found = [
        match.groups()
        for line in capsys.readouterr().out.splitlines()
        if (match := re.fullmatch(r"(\S+?):(\d+): (.*) \[(\S+)\]", line))
    ]
    assert [m for m in found if m[3] == kind and message in m[2]], found
    for at, number, _, its_kind in found:
        if its_kind == kind and where:
            line = (checkout / at).read_text().splitlines()[int(number) - 1]
            assert re.search(where if where.startswith("^") else re.escape(where), line), (at, number, line)


def test_lint_own_yaml_has_no_mistakes(checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("azureml", "lint", "azureml") == 0
    printed = capsys.readouterr().out
    assert "0 mistakes" in printed
    assert "Azure's own validation was not run" in printed.replace("\n", " ")
    files = [p for p in (checkout / "azureml").rglob("*.yml") if "$schema" in p.read_text()]
    assert f"{len(files)} files checked" in printed


def test_lint_less_usual_forms_are_accepted(checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    for file, text, becomes in (
        # calls of submit
        ("components/submit.yml", "${{inputs.pipeline}} --no-wait", "--no-wait ${{inputs.pipeline}}"),
        ("components/submit.yml", "{type: string, default: azureml/pipeline.yml}", "{type: string}"),
        (WEEKLY_JOB, "pipeline: azureml/pipeline.yml", "pipeline: {type: string}"),  # known when the job starts
        (SAMPLES_STEP, ", default: 0.2", ""),
        (SAMPLES, "max_unsure_share: 0.2", "max_unsure_share: {type: number}"),
        (SAMPLES_STEP, ":unsure_share>${{inputs.max_unsure_share}}", ":unsure_share${{inputs.max_unsure_share}}"),  # ">0.2"
        # a name with -
        ("prepare-large.yml", "path: azureml:site-photos:1", "path: azureml://jobs/calm_tree/outputs/my-out"),
        # own variables
        (EXPORT, "command: >-", "environment_variables: {NODE_RANKS: 1}\ncommand: >-\n  echo $NODE_RANKS;"),
        (EXPORT, "$NODE_RANKS;", "$NODE_RANKS; read -r MASTER_ADR <<<x; for WORLDSIZE in $MASTER_ADR; do $WORLDSIZE; done;"),
    ):
        path = checkout / "azureml" / file
        assert text in path.read_text(), text
        path.write_text(path.read_text().replace(text, becomes, 1))
    run_cli("azureml", "lint", "azureml")
    assert " 0 mistakes" in (printed := capsys.readouterr().out), printed


def test_lint_template_without_datastores_is_no_mistake(checkout: Path, run_cli: RunCli) -> None:
    (checkout / "azureml/infra/template.json").write_text('{"variables": {"datastores": null}}')
    assert run_cli("azureml", "lint", "azureml") == 0


def test_lint_later_data_version_is_accepted(checkout: Path, run_cli: RunCli) -> None:
    path = checkout / "azureml" / PIPELINE
    path.write_text(path.read_text().replace("azureml:site-photos:1", "azureml:site-photos:17"))
    assert run_cli("azureml", "lint", "azureml") == 0


def test_lint_nodes_are_compared_with_the_cluster_of_the_whole_pipeline(
    checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / "azureml" / PIPELINE
    text = path.read_text().replace(
        "settings:\n  default_compute: azureml:gpu-cluster\n", "compute: azureml:gpu-cluster\nsettings:\n"
    )
    path.write_text(text)
    assert run_cli("azureml", "lint", "azureml/pipeline.yml") == 0
    path.write_text(text.replace("instance_count: 1", "instance_count: 8", 1))
    assert run_cli("azureml", "lint", "azureml/pipeline.yml") == 1
    assert "job train: instance_count: expected at most the 4 nodes of gpu-cluster, got 8" in capsys.readouterr().out


def test_lint_relative_file_in_subfolder_is_checked(
    checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("azureml", "lint", "azureml/components/train.yml") == 0
    assert run_cli("azureml", "lint", "azureml/pipeline.yml") == 0
    assert capsys.readouterr().out.count("1 files checked, 0 mistakes") == 2


def test_lint_line_100_is_printed_as_a_number(checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    """rich prints ":100:" as an emoji unless it is told not to."""
    text = (checkout / "azureml" / GPU).read_text()
    lines = text.replace("tier: low_priority", "tier: spot").splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith("tier"))
    (checkout / "azureml" / GPU).write_text("\n".join([*lines[:number], *["#"] * (99 - number), *lines[number:]]))
    assert run_cli("azureml", "lint", "azureml") == 1
    assert f"azureml/{GPU}:100: tier:" in capsys.readouterr().out


def test_lint_script_that_amlignore_excludes_is_reported(
    checkout: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / ".amlignore").write_text("/data/\n")
    assert run_cli("azureml", "lint", "azureml") == 0
    (checkout / ".amlignore").write_text("/data/\n/scripts/\n")
    assert run_cli("azureml", "lint", "azureml") == 1
    assert "scripts/train.py: .amlignore excludes scripts" in capsys.readouterr().out
