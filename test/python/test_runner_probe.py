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
        return FrameReply(rows=list(range(*frame)))


def outcome_of(plugin: Plugin, count: int, size: int):
    outcome = run_all(count, size, plugin.run, DEADLINE, plugin.clock)
    good = [row for frame in outcome.frames for row in frame.rows]
    failed = [position for position, _, _ in outcome.failures]
    assert sorted(good + failed) == list(range(count)), "every row has a result or a failure, and only one"
    assert plugin.now <= DEADLINE
    return outcome, set(good), {position: code for position, code, _ in outcome.failures}


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


def test_frames_with_lost_identity_are_not_halved():
    plugin = Plugin({3: "row_identity_lost"})
    _, good, failed = outcome_of(plugin, 20, 10)
    assert plugin.given == [(0, 10), (10, 20)]
    assert failed == dict.fromkeys(range(10), "row_identity_lost") and good == set(range(10, 20))


def test_when_every_row_is_bad_the_tries_are_bounded_and_the_rest_is_left_for_a_retry():
    plugin = Plugin(dict.fromkeys(range(5000), "plugin_row_failed"))
    outcome, _, failed = outcome_of(plugin, 5000, 64)
    assert outcome.probes <= MODULES._probe.PROBES_MAX
    assert list(failed.values()).count("plugin_row_failed") > 50 and "plugin_not_probed" in failed.values()
