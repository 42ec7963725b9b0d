"""Just enough HTTP/1.1 to read replies off a keep-alive socket cheaply.

It understands Content-Length and chunked bodies, and picks one header's value out of the head.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

__all__ = ["HttpReply", "ReplyReader", "connect", "exchange"]

_RECEIVE = 1 << 18


@dataclass(frozen=True)
class HttpReply:
    """One reply; `label` is the value of the header asked for, "" if it is absent."""

    status: int
    label: str
    body: bytes
    keep_alive: bool


class ReplyReader:
    """Collects one reply from pieces. `started` tells whether any byte of it came."""

    __slots__ = ("_buffer", "_label")

    def __init__(self, label_header: bytes = b"") -> None:
        """`label_header` is a lower-case header name."""
        self._buffer = b""
        self._label = b"\r\n" + label_header + b":" if label_header else b""

    @property
    def started(self) -> bool:
        """Whether any byte of a reply has come."""
        return bool(self._buffer)

    def feed(self, piece: bytes) -> HttpReply | None:
        """The whole reply once its last byte is here. Raises ValueError for what is not HTTP/1.1."""
        self._buffer = self._buffer + piece if self._buffer else piece
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._buffer[: end + 2].lower()
        if not head.startswith(b"http/1."):
            raise ValueError(f"the reply begins with {head[:20]!r}; expected HTTP/1.1")
        length = _header(head, b"\r\ncontent-length:")
        if length:
            stop = end + 4 + int(length)
            if len(self._buffer) < stop:
                return None
            body = self._buffer[end + 4 : stop]
        elif b"chunked" in _header(head, b"\r\ntransfer-encoding:"):
            whole = _dechunk(self._buffer, end + 4)
            if whole is None:
                return None
            body = whole
        else:
            body = b""
        label = _header(head, self._label).decode("latin-1") if self._label else ""
        reply = HttpReply(int(head[9:12]), label, body, b"close" not in _header(head, b"\r\nconnection:"))
        self._buffer = b""
        return reply


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(name)
    return b"" if at < 0 else head[at + len(name) : head.find(b"\r\n", at + 2)].strip()


def _dechunk(buffer: bytes, at: int) -> bytes | None:
    pieces: list[bytes] = []
    while True:
        line_end = buffer.find(b"\r\n", at)
        if line_end < 0:
            return None
        size = int(buffer[at:line_end].split(b";")[0], 16)
        begin = line_end + 2
        if len(buffer) < begin + size + 2:
            return None
        if size == 0:
            return b"".join(pieces)
        pieces.append(buffer[begin : begin + size])
        at = begin + size + 2


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected socket without Nagle's delay. Raises OSError."""
    made = socket.create_connection((host, port), timeout=timeout_s)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def exchange(sock: socket.socket, request: bytes) -> HttpReply:
    """Send a request and wait for its reply. Raises OSError (also if the peer closes early)."""
    sock.sendall(request)
    reader = ReplyReader()
    while True:
        piece = sock.recv(_RECEIVE)
        if not piece:
            raise ConnectionError("the peer closed the connection before a whole reply came")
        reply = reader.feed(piece)
        if reply is not None:
            return reply
