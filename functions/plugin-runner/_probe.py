"""Runs the rows of a call frame by frame and finds the rows that spoil a frame.

A frame that raises, hangs or ends its process is halved until the bad rows stand alone; the others keep their
results. All of it happens within one deadline and a number of tries: what could not be tried by then fails
with a code that invites a retry. Time is kept here, with a clock that tests can turn.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Callable, Iterator, Protocol

from _reply import FrameReply

PROBES_MAX = 256
FIRST_SECONDS_MIN = 10.0
PROBE_SECONDS_MIN = 2.0
PATIENCE = 10.0
"""A frame may take ten times as long as its rows have taken elsewhere before it counts as hanging."""

WARM_UP = 2.0
"""Any frame may take twice as long as the longest so far: the first one after a new start may have to load a
model."""

_SHORTEST_SECONDS = 0.02

Frame = tuple[int, int]
"""Positions of the rows of a frame: first, and one after the last."""


class Runs(Protocol):
    """Runs frames in order and yields each with its answer; ``limit`` gives the seconds for the next
    frame."""

    def __call__(
        self, frames: list[Frame], limit: Callable[[Frame, int], float]
    ) -> Iterator[tuple[Frame, FrameReply]]: ...


@dataclass
class Outcome:
    """Answers of the frames that succeeded, and (position, code, message) of each row that did not."""

    frames: list[FrameReply] = field(default_factory=list)
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    probes: int = 0


def split(count: int, size: int) -> list[Frame]:
    """The frames of so many rows."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def run_all(
    count: int, size: int, run: Runs, deadline: float, clock: Callable[[], float] = time.monotonic
) -> Outcome:
    """Runs all rows; returns an outcome in which every row is accounted for."""
    return _Probe(run, deadline, clock).run(count, size)


class _Probe:
    def __init__(self, run: Runs, deadline: float, clock: Callable[[], float]) -> None:
        self.run_frames = run
        self.deadline = deadline
        self.clock = clock
        self.outcome = Outcome()
        self.seconds_per_row: float | None = None
        self.longest_seconds = 0.0

    def run(self, count: int, size: int) -> Outcome:
        suspects = self.pass_over(split(count, size), self.first_limit)
        # The last in the list is looked at next; so rows are isolated in their order, a few completely rather
        # than many half-way.
        stack = suspects[::-1]
        while stack:
            frame, code, message = stack.pop()
            if self.is_final(frame, code):
                self.fail(frame, code, message)
            elif not self.may_go_on():
                why = "time" if self.left() <= _SHORTEST_SECONDS else "number of tries"
                self.fail(
                    frame,
                    "plugin_not_probed",
                    f"the {why} ended before the row could be tried alone; a frame with it failed: {code}: {message}",
                )
            else:
                parts = _halves(frame)
                self.outcome.probes += len(parts)
                stack += self.pass_over(parts, self.probe_limit)[::-1]
        return self.outcome

    def pass_over(
        self, frames: list[Frame], limit: Callable[[Frame, int], float]
    ) -> list[tuple[Frame, str, str]]:
        """Runs frames, keeps the good answers and returns the others as suspects."""
        suspects = []
        waiting = list(frames)
        began = self.clock()
        for frame, reply in self.run_frames(frames, limit):
            waiting.remove(frame)
            now = self.clock()
            if reply.error is None:
                self.outcome.frames.append(reply)
                self.learn(now - began, frame[1] - frame[0])
            else:
                suspects.append((frame, *reply.error))
            began = now
        for frame in waiting:
            self.fail(frame, "plugin_not_probed", "the time of the call ended before the row was run")
        return suspects

    def is_final(self, frame: Frame, code: str) -> bool:
        if code in ("row_identity_lost", "plugin_not_probed"):
            # Smaller frames would hide such a fault of the steps, or cannot be run either; they find no
            # faulty row.
            return True
        return frame[1] - frame[0] == 1 and not (code == "plugin_died" and self.outcome.probes == 0)

    def may_go_on(self) -> bool:
        return self.outcome.probes + 2 <= PROBES_MAX and self.left() > _SHORTEST_SECONDS

    def fail(self, frame: Frame, code: str, message: str) -> None:
        self.outcome.failures += [(position, code, message) for position in range(*frame)]

    def left(self) -> float:
        return self.deadline - self.clock()

    def learn(self, seconds: float, rows: int) -> None:
        self.longest_seconds = max(self.longest_seconds, seconds)
        self.seconds_per_row = max(self.seconds_per_row or 0.0, seconds / rows)

    def first_limit(self, frame: Frame, frames_left: int) -> float:
        """Half of the time that is left, so that a hanging frame leaves time to look into it; a single row
        gets all."""
        rows = frame[1] - frame[0]
        if rows == 1 and frames_left == 1:
            return self.left()
        return min(self.left() / 2, max(FIRST_SECONDS_MIN, self.expected(rows)))

    def probe_limit(self, frame: Frame, frames_left: int) -> float:
        """An equal share for each halving that is still needed to isolate one row."""
        rows = frame[1] - frame[0]
        levels = math.ceil(math.log2(rows)) + 1 if rows > 1 else 1
        return min(self.left() / (2 * levels), max(PROBE_SECONDS_MIN, self.expected(rows)))

    def expected(self, rows: int) -> float:
        if self.seconds_per_row is None:
            return math.inf
        return max(PATIENCE * self.seconds_per_row * rows, WARM_UP * self.longest_seconds)


def _halves(frame: Frame) -> list[Frame]:
    start, stop = frame
    if stop - start == 1:
        # A single row whose process died on the first try: once more, since another tenant's or its own
        # leftovers may have been the cause.
        return [frame]
    middle = (start + stop) // 2
    return [(start, middle), (middle, stop)]
