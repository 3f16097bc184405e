"""The search for bad rows, on a turned clock and without processes: who fails, who does not, and how long it
may take."""

from __future__ import annotations

import random

import pytest
from conftest import load_function

MODULES = load_function("plugin-runner", "_probe", "_reply")
run_all, FrameReply = MODULES._probe.run_all, MODULES._reply.FrameReply
DEADLINE = 60.0


class Plugin:
    """Stands for a worker: each row takes its seconds, bad rows spoil the frame in which they are."""

    def __init__(self, bad: dict[int, str], seconds_per_row: float = 0.001) -> None:
        self.bad = bad
        self.seconds_per_row = seconds_per_row
        self.now = 0.0
        self.given: list[tuple[int, int]] = []

    def clock(self) -> float:
        return self.now

    def run(self, frames, limit):
        for left, frame in zip(range(len(frames), 0, -1), frames):
            if self.now >= DEADLINE:
                return
            seconds = limit(frame, left)
            assert 0 < seconds <= DEADLINE - self.now
            self.given.append(frame)
            codes = [self.bad[row] for row in range(*frame) if row in self.bad]
            takes = (frame[1] - frame[0]) * self.seconds_per_row
            if "plugin_timeout" in codes or takes > seconds:
                self.now += seconds
                yield frame, FrameReply(error=("plugin_timeout", "slow"))
            else:
                self.now += takes
                yield frame, FrameReply(error=(codes[0], "bad")) if codes else self.good(frame)

    def good(self, frame):
        rows = list(range(*frame))
        return FrameReply(rows=rows, places=[rows])


def outcome_of(plugin: Plugin, count: int, size: int):
    outcome = run_all(count, size, plugin.run, DEADLINE, plugin.clock)
    good = [row for frame in outcome.frames for row in frame.rows]
    failed = [position for position, *_ in outcome.failures]
    assert sorted(good + failed) == list(range(count)), "every row has a result or a failure, and only one"
    assert plugin.now <= DEADLINE
    return outcome, set(good), {position: code for position, code, *_ in outcome.failures}


@pytest.mark.parametrize("seed", range(60))
def test_exactly_the_bad_rows_fail_each_with_its_own_code(seed):
    chance = random.Random(seed)
    count, size = chance.randint(1, 1000), chance.randint(1, 200)
    codes = [
        "plugin_row_failed",
        "plugin_died",
        "plugin_memory",
        "step_wrong_return",
        "plugin_protocol_error",
    ]
    bad = {row: chance.choice(codes) for row in chance.sample(range(count), min(count, chance.randint(0, 8)))}
    outcome, _, failed = outcome_of(Plugin(bad), count, size)
    assert failed == bad
    assert outcome.probes <= MODULES._probe.PROBES_MAX


@pytest.mark.parametrize("rows", [[0], [63], [500], [999], [10, 700]])
def test_hanging_rows_are_isolated_and_all_others_keep_their_results(rows):
    _, good, failed = outcome_of(Plugin(dict.fromkeys(rows, "plugin_timeout")), 1000, 64)
    assert failed == dict.fromkeys(rows, "plugin_timeout") and len(good) == 1000 - len(rows)


def test_a_hanging_row_in_the_only_frame_is_isolated_although_no_speed_is_known():
    _, good, failed = outcome_of(Plugin({5: "plugin_timeout"}), 64, 64)
    assert failed == {5: "plugin_timeout"} and len(good) == 63


def test_a_plugin_that_hangs_on_every_row_ends_in_time_with_failures_that_invite_a_retry():
    _, good, failed = outcome_of(Plugin(dict.fromkeys(range(1000), "plugin_timeout")), 1000, 64)
    assert good == set() and set(failed.values()) <= {"plugin_timeout", "plugin_not_probed"}


def test_a_slow_plugin_is_not_taken_for_a_hanging_one():
    _, good, failed = outcome_of(Plugin({}, seconds_per_row=0.05), 1000, 64)
    assert len(good) == 1000 and failed == {}


def test_what_a_plugin_that_is_too_slow_has_done_by_the_deadline_is_kept():
    _, good, failed = outcome_of(Plugin({}, seconds_per_row=0.2), 1000, 16)
    assert len(good) >= 200 and set(failed.values()) <= {"plugin_timeout", "plugin_not_probed"}


def test_a_single_row_may_use_all_the_time_of_the_call():
    _, good, _ = outcome_of(Plugin({}, seconds_per_row=55.0), 1, 64)
    assert good == {0}


def test_a_lone_row_whose_process_died_is_tried_once_more():
    plugin = Plugin({0: "plugin_died"})
    outcome_of(plugin, 1, 64)
    assert plugin.given == [(0, 1), (0, 1)]


class Merging(Plugin):
    """Its steps lose the rows' identity in every frame of more than one row."""

    def run(self, frames, limit):
        for frame in frames:
            self.given.append(frame)
            lost = frame[1] - frame[0] > 1
            yield frame, FrameReply(error=("row_identity_lost", "x")) if lost else self.good(frame)


@pytest.mark.parametrize("size", [2, 3, 4, 10, 64])
def test_a_fault_of_the_steps_that_small_frames_would_hide_fails_all_rows_after_one_halving(size):
    plugin = Merging({})
    _, good, failed = outcome_of(plugin, 64, size)
    assert len(plugin.given) <= len(range(0, 64, size)) + 2
    assert set(failed.values()) == {"row_identity_lost"} and len(good) == int(64 % size == 1)


def test_lost_identity_that_one_row_causes_fails_that_row_alone():
    for count, size in ((20, 10), (8, 8), (64, 64)):
        _, good, failed = outcome_of(Plugin({3: "row_identity_lost"}), count, size)
        assert failed == {3: "row_identity_lost"} and len(good) == count - 1


class Spoiling(Plugin):
    """Some rows spoil the process for the rows after them, whether they fail themselves or not."""

    def __init__(self, spoils: dict[int, bool], bad: dict[int, str] | None = None, worn: bool = False) -> None:
        super().__init__(bad or {})
        self.spoils = spoils
        self.frames_run = int(worn)
        self.spoilt = worn
        self.renewals = 0

    def renew(self, proven):
        self.frames_run, self.spoilt = 0, False
        self.renewals += 1
        return True

    def run(self, frames, limit):
        for frame in frames:
            self.given.append(frame)
            worn, self.frames_run = self.frames_run > 0, self.frames_run + 1
            codes = [] if not self.spoilt else ["plugin_row_failed"]
            for position in range(*frame):
                if position in self.bad:
                    codes.append(self.bad[position])
                if position in self.spoils:
                    self.spoilt = True
                    codes += ["plugin_row_failed"] if self.spoils[position] else []
                if codes:
                    break
            reply = FrameReply(error=(codes[0], "x")) if codes else self.good(frame)
            reply.worn = worn
            yield frame, reply


def spoiling(plugin, count, size):
    outcome = run_all(count, size, plugin.run, DEADLINE, plugin.clock, renew=plugin.renew)
    good = [row for frame in outcome.frames for row in frame.rows]
    failed = [position for position, *_ in outcome.failures]
    assert sorted(good + failed) == list(range(count))
    return set(failed)


@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("place", [0, 1, 7, 31, 62, 63])
@pytest.mark.parametrize("fails", [False, True])
def test_a_row_that_spoils_its_process_fails_no_other_row(size, place, fails):
    assert spoiling(Spoiling({place: fails}), 64, size) == ({place} if fails else set())


def test_a_process_that_an_earlier_call_spoilt_is_replaced_before_rows_fail():
    for count in (1, 5, 64):
        plugin = Spoiling({}, worn=True)
        assert spoiling(plugin, count, 16) == set() and plugin.renewals == 1


def test_rows_that_are_bad_by_themselves_cost_few_new_processes():
    for bad in ({3}, {63}, {3, 17, 40}, set(range(64))):
        plugin = Spoiling({}, dict.fromkeys(bad, "plugin_row_failed"))
        assert spoiling(plugin, 64, 16) == bad
        assert plugin.renewals == 0 or (len(bad) == 64 and plugin.renewals <= 2)


def test_when_every_row_is_bad_the_tries_are_bounded_and_the_rest_is_left_for_a_retry():
    plugin = Plugin(dict.fromkeys(range(5000), "plugin_row_failed"))
    outcome, _, failed = outcome_of(plugin, 5000, 64)
    assert outcome.probes <= MODULES._probe.PROBES_MAX
    assert list(failed.values()).count("plugin_row_failed") > 50 and "plugin_not_probed" in failed.values()


class Alarmed(Plugin):
    """A row fails the one after it, once."""

    def __init__(self, setter: int) -> None:
        super().__init__({})
        self.setter, self.is_set, self.frames_run = setter, False, 0

    def run(self, frames, limit):
        for frame in frames:
            self.given.append(frame)
            hit, self.is_set = self.is_set, self.setter in range(*frame)
            reply = FrameReply(error=("plugin_row_failed", "late")) if hit else self.good(frame)
            reply.worn, self.frames_run = self.frames_run > 0, self.frames_run + 1
            yield frame, reply


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("setter", [0, 5, 14, 15])
def test_what_a_row_leaves_to_happen_later_fails_no_other_row(size, setter):
    assert spoiling_free(Alarmed(setter), 16, size) == set()


def spoiling_free(plugin, count, size):
    outcome = run_all(count, size, plugin.run, DEADLINE, plugin.clock, renew=lambda proven: True)
    return {position for position, *_ in outcome.failures}
