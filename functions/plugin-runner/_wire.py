"""Length-prefixed messages between the handler and a worker: one JSON header, then raw blocks of bytes.

    magic "GRN1" | bytes of the header (u32, little endian) | bytes of all blocks (u64) | header | blocks

The header is JSON in UTF-8; the blocks follow one after the other.

The header's "blocks" lists the length of each block. What a worker sends is never unpickled and never
trusted: lengths are checked before anything is allocated, JSON is parsed as JSON, and the meaning is checked
by ``_reply.py``.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Callable

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_MAGIC = b"GRN1"
_PREFIX = struct.Struct("<4sIQ")
_READ_BYTES = 1024 * 1024


class WireError(Exception):
    """The other side sent something that is no message."""


class PeerGone(Exception):
    """The other side closed the pipe."""


class OutOfTime(Exception):
    """The deadline passed before the message was complete."""


def encode(header: dict, blocks: list[bytes] | None = None) -> list[bytes]:
    """The parts of one message, in the order in which they are written."""
    blocks = blocks or []
    body = json.dumps({**header, "blocks": [len(b) for b in blocks]}, allow_nan=False).encode("utf-8")
    prefix = _PREFIX.pack(_MAGIC, len(body), sum(len(b) for b in blocks))
    return [prefix + body, *blocks]


def write_blocking(fd: int, parts: list[bytes]) -> None:
    """Writes a message on a blocking descriptor (the worker's side)."""
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]


def read_blocking(fd: int) -> tuple[dict, list[bytes]]:
    """Reads a message on a blocking descriptor (the worker's side). Raises PeerGone at the end of the
    pipe."""
    return _parse(lambda count: _read_exactly(fd, count), None)


class Channel:
    """The handler's end of a worker's two pipes; every wait ends at a deadline (``time.monotonic()``
    seconds)."""

    def __init__(self, write_fd: int, read_fd: int, death_fd: int | None) -> None:
        """``death_fd`` becomes readable when the worker ends: a child of it may hold its pipe open for
        ever."""
        self.write_fd = write_fd
        self.read_fd = read_fd
        self.death_fd = death_fd
        os.set_blocking(write_fd, False)
        os.set_blocking(read_fd, False)

    def send(self, header: dict, deadline: float) -> None:
        """Writes one message. Raises OutOfTime or PeerGone."""
        for part in encode(header):
            view = memoryview(part)
            while view:
                self._wait(self.write_fd, select.POLLOUT, deadline)
                try:
                    view = view[os.write(self.write_fd, view) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise PeerGone from None

    def receive(self, deadline: float) -> tuple[dict, list[bytes]]:
        """Reads one message. Raises OutOfTime, PeerGone or WireError."""
        return _parse(lambda count: self._read(count, deadline), MESSAGE_BYTES_MAX)

    def close(self) -> None:
        """Closes all descriptors."""
        for fd in (self.write_fd, self.read_fd, self.death_fd):
            if fd is not None:
                os.close(fd)

    def _read(self, count: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while count:
            self._wait(self.read_fd, select.POLLIN, deadline)
            try:
                part = os.read(self.read_fd, min(count, _READ_BYTES))
            except BlockingIOError:
                continue
            if not part:
                raise PeerGone
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if self.death_fd is not None:
            poll.register(self.death_fd, select.POLLIN)
        left_ms = (deadline - time.monotonic()) * 1000
        if left_ms <= 0:
            raise OutOfTime
        ready = {got for got, _ in poll.poll(left_ms)}
        if fd in ready:
            return
        # The worker is dead and nothing it wrote is left to be read.
        raise PeerGone if ready else OutOfTime


def _parse(read: Callable[[int], bytes], bytes_max: int | None) -> tuple[dict, list[bytes]]:
    magic, header_bytes, blocks_bytes = _PREFIX.unpack(read(_PREFIX.size))
    if magic != _MAGIC:
        raise WireError("the message does not begin with the right bytes")
    if bytes_max is not None and header_bytes + blocks_bytes > bytes_max:
        raise WireError(
            f"the message has {header_bytes + blocks_bytes} bytes; at most {bytes_max} are accepted"
        )
    try:
        header = json.loads(read(header_bytes))
    except (ValueError, RecursionError):
        raise WireError("the header is not JSON") from None
    lengths = header.get("blocks") if isinstance(header, dict) else None
    if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
        raise WireError("the header lists no block lengths")
    if sum(lengths) != blocks_bytes:
        raise WireError("the block lengths do not add up")
    return header, [read(n) for n in lengths]


def _read_exactly(fd: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.read(fd, min(count, _READ_BYTES))
        if not part:
            raise PeerGone
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
