"""A real mail server and a real web server, each a process of its own that can be killed, frozen and restarted.

As a program, `python receivers.py mail|web PORT FILE` appends a line of JSON to FILE for each message before it confirms it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from helpers import child_environment, free_port, is_listening, wait_until


class ReceiverProcess:
    """A server that is started when it is created.

    Args:
        kind: Mail (SMTP) or web (HTTP POST).
        file: Where it notes what it receives.
    """

    def __init__(self, kind: Literal["mail", "web"], file: Path) -> None:
        self._command = [sys.executable, __file__, kind, str(port := free_port()), str(file)]
        self._file, self.port = file, port
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def alive(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        with self._file.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(self._command, env=child_environment(), stdout=log, stderr=log)
        wait_until(lambda: is_listening(self.port), what=f"the port of {self._file.stem}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def received(self) -> list[dict[str, Any]]:
        """What the server has confirmed, and at most one message more for each time that it was killed."""
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []


def note(file: str, message: dict[str, Any]) -> None:
    """Appends a line in one piece."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{json.dumps(message)}\n".encode())
    os.close(descriptor)


def serve_mail(port: int, file: str) -> None:
    from aiosmtpd.controller import Controller

    class Handler:
        async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
            mail: Any = message_from_bytes(envelope.content, policy=policy.default)
            text = mail.get_body(("plain",)).get_content().strip()
            attached = {part.get_content_type(): len(part.get_payload(decode=True)) for part in mail.iter_attachments()}
            note(file, {"subject": mail["Subject"], "text": text, "attached": attached})
            return "250 OK"

    Controller(Handler(), "127.0.0.1", port).start()
    threading.Event().wait()


def serve_web(port: int, file: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            note(file, {name: body.get(name) for name in ("id", "kind", "redelivered")})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    {"mail": serve_mail, "web": serve_web}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
