"""Messages of any size between two processes over a socket, each preceded by its length (framing)."""

from __future__ import annotations

import select
import socket
import struct

LENGTH = struct.Struct("!Q")
"""How the length of a message is written."""


class Channel:
    """One end of a connection.

    Args:
        end: a connected stream socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._waiting = select.poll()
        self._waiting.register(end, select.POLLIN | select.POLLHUP)

    def send(self, message: bytes) -> None:
        """Write a message.

        Raises:
            OSError: the other end is gone.
        """
        self._socket.sendall(LENGTH.pack(len(message)))
        self._socket.sendall(message)

    def receive(self) -> bytearray:
        """Read a message.

        Raises:
            EOFError: the other end is gone.
            OSError: the connection is broken.
        """
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return self._exactly(length)

    def ready(self, seconds: float) -> bool:
        """Whether there is something to read, or the end of it, within some seconds."""
        return bool(self._waiting.poll(seconds * 1000))

    def close(self) -> None:
        """Read and write no more."""
        self._socket.close()

    def _exactly(self, length: int) -> bytearray:
        message = bytearray(length)
        view, got = memoryview(message), 0
        while got < length:
            count = self._socket.recv_into(view[got:])
            if not count:
                raise EOFError("the other end is gone")
            got += count
        return message
