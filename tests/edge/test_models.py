"""A new model: downloaded over real HTTP, tested, activated; the old one stays active if any of that fails."""

import hashlib
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import onnx
import ppe_edge.model.store as models
import pytest
from onnx import numpy_helper
from ppe_edge.errors import EdgeError
from ppe_edge.model.store import ModelStore


class Server(ThreadingHTTPServer):
    """Serves `files`; `/cut` announces more than it sends, `/corrupt` is not HTTP, `/chunks` stops inside a chunk."""

    files: dict[str, bytes]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        if self.path == "/corrupt":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif self.path == "/chunks":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc")
        elif self.path == "/cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        elif self.path in self.server.files:
            body = self.server.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.files = {}
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def store(tiny_model: Path, tmp_path: Path) -> ModelStore:
    return make_store(tiny_model, tmp_path)


def make_store(model: Path, state_dir: Path) -> ModelStore:
    return ModelStore(state_dir, SimpleNamespace(path=model, providers=("CPUExecutionProvider",), threads=1))


def changed(model: Path, **values: object) -> bytes:
    """Returns the tiny model with other constants: another file, which works or not."""
    proto = onnx.load(model)
    for item in proto.graph.initializer:
        if item.name in values:
            item.CopyFrom(numpy_helper.from_array(np.asarray(values[item.name], np.float32), item.name))
    return proto.SerializeToString()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(state_dir: Path) -> list[str]:
    return sorted(p.name for p in (state_dir / "models").iterdir())


def test_store_opens_fetched_model_after_activation_and_restart(tiny_model, tmp_path, store, server):
    assert store.open().path == tiny_model
    new = changed(tiny_model, floor=0.2)
    server.files["/new.onnx"] = new
    fetched = store.fetch(server.url("/new.onnx"), digest(new))
    assert fetched.sha256 == digest(new)
    assert store.open().path == tiny_model  # until it is activated
    store.activate(fetched)
    again = make_store(tiny_model, tmp_path).open()
    assert again.sha256 == digest(new) and again.path == tmp_path / "models" / f"{digest(new)}.onnx"
    assert names(tmp_path) == sorted([f"{digest(new)}.onnx", "active.json"])


def test_activate_newer_model_deletes_the_older_one(tiny_model, tmp_path, store, server):
    for floor in (0.2, 0.3):
        content = changed(tiny_model, floor=floor)
        server.files["/m"] = content
        store.activate(store.fetch(server.url("/m"), digest(content)))
    assert names(tmp_path) == sorted([f"{digest(content)}.onnx", "active.json"])
    assert store.open().sha256 == digest(content)


def test_activate_configured_model_deletes_fetched_ones(tiny_model, tmp_path, store, server):
    content = changed(tiny_model, floor=0.2)
    server.files["/m"] = content
    store.activate(store.fetch(server.url("/m"), digest(content)))
    detector = store.open_configured()
    assert detector.path == tiny_model and store.open().sha256 == digest(content)  # until it is activated
    store.activate(detector)
    assert names(tmp_path) == [] and make_store(tiny_model, tmp_path).open().path == tiny_model


def test_fetch_of_stored_model_downloads_again_only_if_damaged(tiny_model, tmp_path, store, server):
    new = changed(tiny_model, floor=0.2)
    server.files["/m"] = new
    fetched = store.fetch(server.url("/m"), digest(new))
    del server.files["/m"]
    assert store.fetch(server.url("/m"), digest(new)).sha256 == digest(new)
    fetched.path.write_bytes(new[:100])
    with pytest.raises(EdgeError, match="Not Found"):
        store.fetch(server.url("/m"), digest(new))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing", r"cannot be downloaded \(Not Found\)"),
        ("/other", r"expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"),
        ("/cut", "model.url: http"),
        ("/chunks", "cannot be downloaded"),
        ("/corrupt", "cannot be downloaded"),
    ],
)
def test_fetch_of_incomplete_download_changes_nothing(path, message, tiny_model, tmp_path, store, server):
    server.files["/other"] = b"something else"
    before = changed(tiny_model, floor=0.2)
    server.files["/m"] = before
    store.activate(store.fetch(server.url("/m"), digest(before)))
    kept = names(tmp_path)
    with pytest.raises(EdgeError, match=message):
        store.fetch(server.url(path), "0" * 64)
    assert names(tmp_path) == kept and store.open().sha256 == digest(before)


def test_fetch_rejects_other_schemes_and_hides_passwords(store, tmp_path):
    with pytest.raises(EdgeError, match="expected http or https"):
        store.fetch("file:///etc/passwd", "0" * 64)
    for address in ("http://user:secret@127.0.0.1:1/m?sig=alsosecret", "http://user:secret@127.0.0.1/m"):
        with pytest.raises(EdgeError) as caught:
            store.fetch(address, "0" * 64)
        assert "secret" not in str(caught.value)
    assert names(tmp_path) == []


def test_fetch_of_too_large_file_is_aborted(tmp_path, store, server, monkeypatch):
    monkeypatch.setattr(models, "MAX_BYTES", 1000)
    server.files["/large"] = bytes(2000)
    with pytest.raises(EdgeError, match="at most 1000 bytes, got more"):
        store.fetch(server.url("/large"), digest(bytes(2000)))
    assert names(tmp_path) == []


def bad_models(tiny_model: Path) -> dict[str, tuple[bytes, str]]:
    no_contract = onnx.load(tiny_model)
    del no_contract.metadata_props[:]
    return {
        "corrupt": (b"\x00" * 500, "onnxruntime can run"),
        "no contract": (no_contract.SerializeToString(), "without a contract"),
        "no numbers": (changed(tiny_model, place=[[[np.nan] * 4]]), "not boxes, scores and labels"),
        "scores above one": (changed(tiny_model, white=1.0), "not boxes, scores and labels"),
    }


@pytest.mark.parametrize("kind", ["corrupt", "no contract", "no numbers", "scores above one"])
def test_fetch_of_model_that_fails_smoke_test_deletes_it(kind, tiny_model, tmp_path, store, server, monkeypatch):
    # a frame in which the tiny model detects a head, so that the smoke test has an output to check
    monkeypatch.setattr(models, "bundled_frame", lambda: np.full((64, 96, 3), (230, 20, 20), np.uint8))
    content, message = bad_models(tiny_model)[kind]
    server.files["/bad"] = content
    with pytest.raises(EdgeError, match=message):
        store.fetch(server.url("/bad"), digest(content))
    assert names(tmp_path) == [] and store.open().path == tiny_model


@pytest.mark.parametrize("damage", ["model", "note", "gone"])
def test_store_with_damaged_active_model_opens_the_configured_one(damage, tiny_model, tmp_path, store, server, caplog):
    new = changed(tiny_model, floor=0.2)
    server.files["/m"] = new
    fetched = store.fetch(server.url("/m"), digest(new))
    store.activate(fetched)
    if damage == "model":  # still a valid model, but another one
        fetched.path.write_bytes(changed(tiny_model, floor=0.3))
    elif damage == "gone":
        fetched.path.unlink()
    else:
        (tmp_path / "models" / "active.json").write_text('{"sha256"')
    with caplog.at_level(logging.ERROR):
        assert store.open().path == tiny_model
    assert f"back to {tiny_model}" in caplog.text


def test_store_with_forged_note_opens_the_configured_model(tiny_model, tmp_path, store):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "active.json").write_text(json.dumps({"sha256": "../../etc/passwd"}))
    assert store.open().path == tiny_model
