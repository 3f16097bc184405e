"""Runs the rows of a call frame by frame and finds the rows that spoil a frame.

A frame that raises, hangs or ends its process is halved until the bad rows stand alone; the others keep their
results. All of it happens within one deadline and a number of tries: what could not be tried by then fails
with a code that invites a retry. Time is kept here, with a clock that tests can turn.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Callable, Iterator, NamedTuple, Protocol

from _reply import Fault, FrameReply

PROBES_MAX = 256
RENEWALS_MAX = 64
"""New processes of a call that replace one in which rows that had been good fail."""

RENEWALS_WITHOUT_PROOF_MAX = 2
"""As above while no row of the call has been good, so that none can be run again."""

SECOND_TRIES_MAX = 32
"""Rows that are run once more, alone, before they fail, in a process that had run others before."""

FRAME_ROWS_MIN = 4
"""A frame that fails as a whole, by what its steps make of it, is halved only if the halves are frames too: a
single row can lose neither its identity nor its place."""

FIRST_SECONDS_MIN = 10.0
PROBE_SECONDS_MIN = 2.0
PATIENCE = 10.0
"""A frame may take ten times as long as its rows have taken elsewhere before it counts as hanging."""

WARM_UP = 2.0
"""Any frame may take twice as long as the longest so far: the first one after a new start may have to load a
model."""

_SHORTEST_SECONDS = 0.02
_OF_FRAMES = ("row_identity_lost", "feature_column_missing")
_LOST = ("plugin_timeout", "plugin_died", "plugin_protocol_error", "plugin_disk", "plugin_not_probed")
"""After these there is a new process in any case."""

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
    """Answers of the frames that succeeded, and (position, code, message, traceback) of each row that did
    not."""

    frames: list[FrameReply] = field(default_factory=list)
    failures: list[tuple[int, str, str, str | None]] = field(default_factory=list)
    probes: int = 0
    renewals: int = 0


class Suspect(NamedTuple):
    """A frame that failed. ``worn``: its process had run others before. ``doubtful``: they may be to blame,
    since it gave no good answer afterwards; ``stale``: and cannot be asked any more, because it has ended."""

    frame: Frame
    fault: Fault
    worn: bool
    doubtful: bool = False
    stale: bool = False
    partly: FrameReply | None = None
    """The answer of a frame whose rows all failed for a reason that is the frame's; what is left of it counts
    if the frame cannot be taken apart."""


def split(count: int, size: int) -> list[Frame]:
    """The frames of so many rows."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def run_all(
    count: int,
    size: int,
    run: Runs,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
    renew: Callable[[bool], bool] | None = None,
) -> Outcome:
    """Runs all rows; returns an outcome in which every row is accounted for.

    ``renew`` replaces the process that runs the frames, and says whether it did; its argument says whether
    there is proof that the process is spoilt.
    """
    return _Probe(run, deadline, clock, renew).run(count, size)


class _Probe:
    def __init__(
        self,
        run: Runs,
        deadline: float,
        clock: Callable[[], float],
        renew: Callable[[bool], bool] | None,
    ) -> None:
        self.run_frames = run
        self.renew = renew
        self.witness: Frame | None = None
        self.whole_frame_was_good = False
        self.frames_were_halved = False
        self.tried_again: set[Frame] = set()
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
            suspect = stack.pop()
            frame, (code, message, _) = suspect.frame, suspect.fault
            if self.is_final(suspect):
                if suspect.partly is not None:
                    self.outcome.frames.append(suspect.partly)
                else:
                    self.fail(frame, suspect.fault)
            elif not self.may_go_on():
                why = "time" if self.left() <= _SHORTEST_SECONDS else "number of tries"
                what = f"the {why} ended before the row could be tried alone; a frame with it failed"
                self.fail(
                    frame, Fault("plugin_not_probed", f"{what}: {code}: {message}", suspect.fault.traceback)
                )
            else:
                self.frames_were_halved |= code in _OF_FRAMES
                parts = _halves(frame)
                self.outcome.probes += len(parts)
                stack += self.pass_over(parts, self.probe_limit)[::-1]
        return self.outcome

    def pass_over(self, frames: list[Frame], limit: Callable[[Frame, int], float]) -> list[Suspect]:
        """Runs frames, keeps the good answers and returns the others as suspects.

        What one row does to its process (a patched library) must not fail others: where that may be so, a
        row that was good is run again, and if it fails now, a new process runs the doubtful frames.
        """
        suspects = self.pass_once(frames, limit)
        while self.renew is not None and self.outcome.renewals < RENEWALS_MAX and self.may_go_on():
            asked = [s for s in suspects if s.doubtful and not s.stale]
            spoilt = bool(asked) and self.is_spoilt(asked, len(suspects) == len(frames))
            again = [s for s in suspects if s.stale or (s.doubtful and spoilt)]
            if not again:
                break
            self.outcome.renewals += 1
            frames = [s.frame for s in again]
            settled = [s._replace(doubtful=False) for s in suspects if s not in again]
            suspects = settled + self.pass_once(frames, limit)
        return sorted(suspects, key=lambda s: s.frame)

    def is_spoilt(self, doubtful: list[Suspect], all_failed: bool) -> bool:
        """Whether the process was to blame; it has been replaced then."""
        if not all_failed and self.outcome.probes > 0 and all(s.frame[1] - s.frame[0] > 1 for s in doubtful):
            # They will be halved, and that tells more.
            return False
        if self.witness is None:
            return self.outcome.renewals < RENEWALS_WITHOUT_PROOF_MAX and self.renew(False)
        self.outcome.probes += 1
        for _, reply in self.run_frames([self.witness], self.probe_limit):
            return reply.error is not None and self.renew(True)
        return False

    def pass_once(self, frames: list[Frame], limit: Callable[[Frame, int], float]) -> list[Suspect]:
        """As pass_over, with whatever process there is."""
        suspects: list[Suspect] = []
        # Of the process that runs now: what it has failed since its last good answer is from here on.
        first_open = 0
        waiting = list(frames)
        began = self.clock()
        for frame, reply in self.run_frames(frames, limit):
            waiting.remove(frame)
            now = self.clock()
            if reply.error is None and (fault := _fault_of_frame(reply)) is not None:
                suspects.append(Suspect(frame, fault, reply.worn, partly=reply))
            elif reply.error is None:
                self.outcome.frames.append(reply)
                self.whole_frame_was_good |= frame[1] - frame[0] > 1 and any(
                    place is not None for places in reply.places for place in places
                )
                self.learn(now - began, frame[1] - frame[0])
                suspects[first_open:] = [s._replace(doubtful=False) for s in suspects[first_open:]]
                first_open = len(suspects)
                if self.witness is None and reply.rows:
                    self.witness = (frame[0], frame[0] + 1)
            else:
                fault = Fault(*reply.error)
                if fault.code in _LOST:
                    suspects[first_open:] = [s._replace(stale=s.doubtful) for s in suspects[first_open:]]
                    first_open = len(suspects) + 1
                suspects.append(Suspect(frame, fault, reply.worn, reply.worn and fault.code not in _LOST))
            began = now
        for frame in waiting:
            self.fail(frame, Fault("plugin_not_probed", "the time of the call ended before the row was run"))
        return suspects

    def is_final(self, suspect: Suspect) -> bool:
        frame, code = suspect.frame, suspect.fault.code
        rows = frame[1] - frame[0]
        if code in ("plugin_not_probed", "outputs_too_large"):
            # Smaller frames cannot be run, or find no row that is to blame.
            return True
        if code in _OF_FRAMES and not self.whole_frame_was_good:
            # A fault of the steps, which smaller frames would hide; unless halves show that it is a row's.
            return rows < FRAME_ROWS_MIN or self.frames_were_halved
        if rows > 1:
            return False
        # A process may end by what an earlier row did to it, or an earlier call; now there is a new one.
        if code == "plugin_died" and self.outcome.probes == 0:
            return False
        if not suspect.worn or code in ("plugin_timeout", "plugin_disk"):
            return True
        if code in _LOST:
            return False
        # What an earlier row left to happen later (an alarm) may have met this one.
        if frame in self.tried_again or len(self.tried_again) >= SECOND_TRIES_MAX:
            return True
        self.tried_again.add(frame)
        return False

    def may_go_on(self) -> bool:
        return self.outcome.probes + 2 <= PROBES_MAX and self.left() > _SHORTEST_SECONDS

    def fail(self, frame: Frame, fault: Fault) -> None:
        self.outcome.failures += [(position, *fault) for position in range(*frame)]

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


def _fault_of_frame(reply: FrameReply) -> Fault | None:
    """The fault of a frame in which every row failed for a reason that is none of its own."""
    if not reply.failures or any(code not in _OF_FRAMES for _, code, *_ in reply.failures):
        return None
    return Fault(*reply.failures[0][1:])


def _halves(frame: Frame) -> list[Frame]:
    start, stop = frame
    if stop - start == 1:
        # A single row whose process died: once more, since what others left there may have been the cause.
        return [frame]
    middle = (start + stop) // 2
    return [(start, middle), (middle, stop)]
