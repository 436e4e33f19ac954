"""A line to a server that can be cut: to the page, the server is gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HERE = "127.0.0.1"


class Line:
    """Passes bytes on between `url` and a server's port, until it is cut, and again once mended."""

    def __init__(self, port: int) -> None:
        self._server = (HERE, port)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((HERE, 0))
        self._port = self._listener.getsockname()[1]
        self.url = f"http://{HERE}:{self._port}"
        self._answer()

    def cut(self) -> None:
        """Close every connection, and refuse new ones."""
        for end in (self._listener, *self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def mend(self) -> None:
        """Answer again, at the same address."""
        self._listener = socket.create_server((HERE, self._port))
        self._answer()

    def _answer(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                page, _ = listener.accept()
                server = socket.create_connection(self._server)
                self._open += page, server
                for ends in ((page, server), (server, page)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line for as long as this lasts."""
    line = Line(port)
    try:
        yield line
    finally:
        line.cut()
