"""`ppe-yolo data` with a folder and with a real Azurite as the store."""

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import fsspec
import numpy as np
import pytest

from ppe_yolo.data.audit import engine

RunCli = Callable[..., int]
PPE_YOLO = [sys.executable, "-m", "ppe_yolo.cli"]
# the documented account and key of every Azurite
ACCOUNT, KEY = "devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SETTINGS = ("CONNECTION_STRING", "ACCOUNT_NAME", "ACCOUNT_KEY", "SAS_TOKEN", "ANON")
MANY = 400


def connection(port: int, key: str = KEY) -> str:
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )


def first_port(stream: IO[str]) -> int:
    for line in stream:
        if found := re.search(r"successfully listens on http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    pytest.fail("Azurite ended before it listened")


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Its port."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not on PATH: npm install azurite")
    pytest.importorskip("adlfs", reason="adlfs is not installed: pip install 'ppe-yolo[blob]'")
    options = ("--blobPort", "0", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
    process = subprocess.Popen(
        [program, "--location", str(tmp_path_factory.mktemp("azurite")), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield first_port(process.stdout)
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture(params=["folder", "azurite"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty store; access is configured by Azure's own variables."""
    for name in SETTINGS:
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    port = request.getfixturevalue("azurite")
    from adlfs import AzureBlobFileSystem

    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection(port))
    AzureBlobFileSystem.clear_instance_cache()  # the cache ignores changed variables
    yield f"az://c{uuid.uuid4().hex}/helmets"
    AzureBlobFileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, make_voc: Callable[..., Path]) -> Path:
    """Enough files to interrupt a transfer; the images are never decoded."""
    root = make_voc(tmp_path_factory.mktemp("many") / "folder", ["a"], {"trainval": ["a"]})
    random, xml = np.random.default_rng(0), (root / "Annotations" / "a.xml").read_text()
    for i in range(MANY):
        (root / "JPEGImages" / f"{i:03d}.jpg").write_bytes(random.bytes(2000))
        (root / "Annotations" / f"{i:03d}.xml").write_text(xml.replace("a.jpg", f"{i:03d}.jpg"))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_relative_to(folder / ".ppe-yolo")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def numbers(out: str) -> tuple[int, int, int]:
    """Number of all files, of those transferred, and of those already present."""
    found = re.search(
        r"version [0-9a-f]{16}: ([\d,]+) files; ([\d,]+) (?:uploaded|downloaded) \([\d.]+ MB\), ([\d,]+) already present", out
    )
    assert found is not None, out
    total, moved, present = (int(n.replace(",", "")) for n in found.groups())
    return total, moved, present


def test_push_list_and_pull_versions(
    url: str, tmp_path: Path, make_voc: Callable[..., Path], run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_voc(tmp_path / "folder", ["ä image", "b"], {"trainval": ["ä image", "b"]})
    assert run_cli("data", "push", folder, url) == 0
    first = re.findall(r"version (\w+)", capsys.readouterr().out)[0]
    before = contents(folder)
    make_voc(folder, ["c"], {"test": ["c"]})
    assert run_cli("data", "push", folder, url) == 0
    out = capsys.readouterr().out
    assert numbers(out) == (8, 8, 0)
    second = re.findall(r"version (\w+)", out)[0]
    assert run_cli("data", "push", folder, url) == 0
    assert numbers(capsys.readouterr().out) == (8, 0, 8)
    assert run_cli("data", "list", url) == 0
    assert re.findall(r"[0-9a-f]{16}", capsys.readouterr().out) == [first, second]
    assert run_cli("data", "pull", url, tmp_path / "new") == 0
    assert run_cli("data", "pull", url, tmp_path / "old", "--version", first) == 0
    assert contents(tmp_path / "new") == contents(folder)
    assert contents(tmp_path / "old") == before
    assert run_cli("audit", tmp_path / "new") == 0


def test_killed_push_and_pull_resume(
    url: str, many: Path, tmp_path: Path, run_cli: RunCli, capsys: pytest.CaptureFixture[str], kill_when: Callable[..., None]
) -> None:
    filesystem, root = fsspec.url_to_fs(url, use_listings_cache=False)

    def sent() -> int:
        try:
            return len([p for p in filesystem.find(root) if p.endswith((".jpg", ".xml"))])
        except FileNotFoundError:
            return 0

    total = 2 * MANY + 3
    kill_when(lambda: sent() >= 10, "data", "push", many, url)
    there = sent()
    assert 10 <= there < total, "the push was over before it was killed"
    assert run_cli("data", "list", url) == 0
    assert not re.search(r"[0-9a-f]{16}", capsys.readouterr().out)  # an incomplete version is invisible
    assert run_cli("data", "push", many, url) == 0
    out = numbers(capsys.readouterr().out)
    assert out == (total, total - there, there)

    folder = tmp_path / "pulled"
    kill_when(lambda: len(list(folder.rglob("*.jpg"))) >= 10, "data", "pull", url, folder)
    arrived = contents(folder)
    assert arrived.items() <= contents(many).items()  # complete files only
    assert len(arrived) < total, "the pull was over before it was killed"
    assert run_cli("data", "pull", url, folder) == 0
    assert numbers(capsys.readouterr().out) == (total, total - len(arrived), len(arrived))
    assert contents(folder) == contents(many)
    assert not (folder / ".ppe-yolo").exists()


def test_output_contains_no_key(azurite: int, tmp_path: Path, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key fails at once, in one line with neither the key nor the signature made with it."""
    wrong = KEY[::-1].replace("=", "A")[:-2] + "=="
    signature = "sv=2021-06-08&sr=c&sp=rwl&sig=aHVudGVyMg%3D%3D"
    with_key = {"AZURE_STORAGE_CONNECTION_STRING": connection(azurite, wrong)}
    base = connection(azurite).replace(f"AccountKey={KEY};", "")
    with_signature = {"AZURE_STORAGE_CONNECTION_STRING": f"{base}SharedAccessSignature={signature};"}
    commands = (("data", "push", many, "az://c/d"), ("data", "list", "az://c/d"), ("data", "pull", "az://c/d", tmp_path / "x"))
    cases = [
        (with_key, commands[0]),
        (with_signature, commands[1]),
        ({}, (*commands[2][:2], f"az://c/d?{signature}", tmp_path)),
    ]
    for environment, command in cases:
        done = subprocess.run(
            [*PPE_YOLO, *map(str, command)], env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("ppe-yolo: error: az://c/d: ") and done.stderr.count("\n") == 1, done.stderr
        assert wrong not in done.stdout + done.stderr and "aHVudGVyMg" not in done.stdout + done.stderr


def test_benchmark_audit_prints_all_stages(run_cli, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_cli("benchmark", "audit", "--images", 30, "--folder", tmp_path) == 0
    printed = capsys.readouterr().out
    for text in ("30 images", "first audit", "second audit", "look alike", "peak memory", "first / second audit:"):
        assert text in printed
    assert not list(tmp_path.iterdir())


def test_benchmark_loading_prints_all_ways(run_cli, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_cli("benchmark", "loading", "--images", 1, "--folder", tmp_path) == 0
    printed = capsys.readouterr().out
    for text in ("4032x3024", "full size", "reduced size", "copies, first epoch", "copies, later epochs", "CPU per image"):
        assert text in printed
    assert not list(tmp_path.iterdir())


def test_prepared_data_set_is_audited_without_decoding(
    make_voc: Callable[..., Path], tmp_path: Path, run_cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_voc(tmp_path / "data", ["a", "b", "c"], {"trainval": ["a", "b"], "test": ["c"]})
    assert run_cli("prepare", root, "--out", tmp_path / "ready") == 0
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "other machine"))
    monkeypatch.setattr(engine, "check_image", None)
    for data in (tmp_path / "ready", tmp_path / "ready" / "voc_test.txt"):
        assert run_cli("audit", data, "--class-map", tmp_path / "ready" / "class_map.yaml") == 0
    (tmp_path / "ready" / "image_checks.json").write_text("damaged")
    monkeypatch.undo()
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "third machine"))
    assert run_cli("audit", tmp_path / "ready", "--class-map", tmp_path / "ready" / "class_map.yaml") == 0
