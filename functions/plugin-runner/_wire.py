"""Length-prefixed messages between the handler and a worker: one JSON header, then raw blocks of bytes.

    magic "GRN2" | bytes of the header (u32, little endian) | bytes of all blocks (u64)
        | CRC-32 of header and blocks (u32) | header | blocks

The header is JSON in UTF-8; the blocks follow one after the other.

The header's "blocks" lists the length of each block. The checksum finds what another process, a child of a
worker for instance, wrote in between; whoever means to forge a message can make a right one. What a worker sends is never unpickled and never
trusted: lengths are checked before anything is allocated, JSON is parsed as JSON, and the meaning is checked
by ``_reply.py``.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import select
import struct
import time
import zlib
from typing import Any, Callable

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_MAGIC = b"GRN2"
_PREFIX = struct.Struct("<4sIQI")
_READ_BYTES = 1024 * 1024
_WATCH_MS = 250.0
_ODD = re.compile(rb"\\u[dD]|[0-9]{19}|[eE]\+?[0-9]{3}")
"""Bytes without which JSON holds no half characters, no giant integers and no numbers beyond a float."""


class WireError(Exception):
    """The other side sent something that is no message."""


class PeerGone(Exception):
    """The other side closed the pipe."""


class OutOfTime(Exception):
    """The deadline passed before the message was complete."""


class Overdrawn(Exception):
    """The other side took more than it may while it was waited for; the text says what."""


def encode(header: dict, blocks: list[bytes] | None = None) -> list[bytes]:
    """The parts of one message, in the order in which they are written."""
    blocks = blocks or []
    whole = {**header, "blocks": [len(b) for b in blocks]}
    try:
        body = json.dumps(whole, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # Half a character somewhere; escaped it can at least be sent.
        body = json.dumps(whole, allow_nan=False).encode("utf-8")
    checksum = functools.reduce(lambda sum_, part: zlib.crc32(part, sum_), blocks, zlib.crc32(body))
    prefix = _PREFIX.pack(_MAGIC, len(body), sum(len(b) for b in blocks), checksum)
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
        self.watch: Callable[[], None] | None = None
        """Called now and then during long waits; may raise Overdrawn."""

        self.received_bytes = 0
        """Of the last message that was received."""

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
        self.received_bytes = 0
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
            self.received_bytes += len(part)
        return b"".join(parts)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if self.death_fd is not None:
            poll.register(self.death_fd, select.POLLIN)
        while (left_ms := (deadline - time.monotonic()) * 1000) > 0:
            ready = {got for got, _ in poll.poll(min(left_ms, _WATCH_MS))}
            if fd in ready:
                return
            if ready:
                # The worker is dead and nothing it wrote is left to be read.
                raise PeerGone
            if self.watch is not None:
                self.watch()
        raise OutOfTime


def _parse(read: Callable[[int], bytes], bytes_max: int | None) -> tuple[dict, list[bytes]]:
    magic, header_bytes, blocks_bytes, checksum = _PREFIX.unpack(read(_PREFIX.size))
    if magic != _MAGIC:
        raise WireError("the message does not begin with the right bytes")
    if bytes_max is not None and header_bytes + blocks_bytes > bytes_max:
        raise WireError(
            f"the message has {header_bytes + blocks_bytes} bytes; at most {bytes_max} are accepted"
        )
    body = read(header_bytes)
    try:
        header = json.loads(body, parse_constant=_no_number)
        if bytes_max is not None and _ODD.search(body):
            _check_values(header)
    except (ValueError, RecursionError):
        raise WireError("the header is not JSON that can be passed on") from None
    lengths = header.get("blocks") if isinstance(header, dict) else None
    if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
        raise WireError("the header lists no block lengths")
    if sum(lengths) != blocks_bytes:
        raise WireError("the block lengths do not add up")
    blocks = [read(n) for n in lengths]
    if functools.reduce(lambda sum_, part: zlib.crc32(part, sum_), blocks, zlib.crc32(body)) != checksum:
        raise WireError("the checksum is not that of the message")
    return header, blocks


def _no_number(name: str) -> None:
    raise ValueError(name)


def _check_values(header: Any) -> None:
    """Raises ValueError for what JSON's grammar allows and its readers do not agree on."""
    waiting = [header]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in value:
                key.encode("utf-8")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            value.encode("utf-8")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number that is too large")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("an integer of more than 64 bits")


def _read_exactly(fd: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.read(fd, min(count, _READ_BYTES))
        if not part:
            raise PeerGone
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
