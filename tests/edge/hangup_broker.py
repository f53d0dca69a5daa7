"""A small MQTT broker that disconnects on purpose, as cloud brokers do."""

import contextlib
import socket
import threading
from typing import Self


class HangupBroker:
    """Accepts connections in threads; `received` holds (topic, payload) in order.

    Args:
        max_bytes: Disconnects when a PUBLISH is larger.
        on_connect: Whether to answer a CONNECT; otherwise disconnects.
        takeover: Whether a new connection closes the one before it, as for two clients of one id.
        confirms: Whether it confirms a larger PUBLISH before it disconnects, as mosquitto 2.0.11 does when it drops one.
    """

    def __init__(
        self, max_bytes: int = 1 << 28, on_connect: bool = True, takeover: bool = False, confirms: bool = False
    ) -> None:
        self.max_bytes, self._on_connect, self._takeover, self._confirms = max_bytes, on_connect, takeover, confirms
        self.received: list[tuple[str, bytes]] = []
        self.hangups = self.retained = 0
        self.connect_flags: list[int] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close_clients(self) -> None:
        """Closes every connection, as a broker does when another client takes over the id."""
        while self.clients:
            with contextlib.suppress(OSError):
                self.clients.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self._takeover:
                    self.close_clients()
                self.clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client, client.makefile("rb") as stream:
            while True:
                first, size, shift = _read(stream, 1)[0], 0, 0
                kind = first >> 4
                while True:
                    byte = _read(stream, 1)[0]
                    size |= (byte & 127) << shift
                    shift += 7
                    if not byte & 128:
                        break
                if size > self.max_bytes:
                    self.hangups += 1
                    if self._confirms:
                        body = _read(stream, size)
                        end = 2 + int.from_bytes(body[:2])
                        client.sendall(b"\x40\x02" + body[end : end + 2])
                    client.shutdown(socket.SHUT_RDWR)
                    return
                body = _read(stream, size)
                if kind == 1:
                    self.connect_flags.append(body[7])
                    if not self._on_connect:
                        return
                    client.sendall(b"\x20\x02\x00\x00")
                elif kind == 3:
                    self.retained += first & 1
                    end = 2 + int.from_bytes(body[:2])
                    self.received.append((body[2:end].decode(), body[end + 2 :]))
                    client.sendall(b"\x40\x02" + body[end : end + 2])
                elif kind == 12:
                    client.sendall(b"\xd0\x00")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.close()
        self.close_clients()


def _read(stream: socket.SocketIO | object, size: int) -> bytes:
    data: bytes = stream.read(size)  # type: ignore[union-attr]
    if len(data) < size:
        raise EOFError
    return data
