"""The schedule of one file's attempts: what holds whatever fails, in whatever order."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from services.provisioner.config import Policy
from services.provisioner.core import policy
from services.provisioner.core.policy import End, Failure, Schedule

SIZE = 100_000_000

failures = st.builds(
    Failure,
    place=st.just(0),
    words=st.just("it failed"),
    held=st.integers(0, SIZE),
    permanent=st.booleans(),
    wrong_bytes=st.booleans(),
    retry_after=st.none() | st.floats(0, 10_000),
    counts=st.just(True),
)
rules = st.builds(
    Policy,
    attempts=st.integers(1, 30),
    first=st.floats(0.1, 60),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
    cap=st.floats(1, 1000),
)


def run(rule: Policy, places: int, given_failures: list[Failure]) -> list[tuple[Schedule, float]]:
    """The schedules after each failure, with its time: each attempt begins when it may."""
    schedule, now, seen = Schedule(), 0.0, []
    for failure in given_failures:
        if schedule.end:
            break
        now = max(now, schedule.at)
        schedule = policy.failed(
            schedule, rule, places, SIZE, failure._replace(place=schedule.place), now, 0.5
        )
        seen.append((schedule, now))
    return seen


@given(rules, st.integers(1, 4), st.lists(failures, max_size=60))
def test_the_next_attempt_is_at_a_place_that_has_not_refused(
    rule: Policy, places: int, given_failures: list[Failure]
) -> None:
    for schedule, now in run(rule, places, given_failures):
        if not schedule.end:
            assert schedule.place in set(range(places)) - schedule.refused
            assert now <= schedule.at <= now + max(rule.cap, policy.LONGEST_RETRY_AFTER)


@given(rules, st.integers(1, 4), st.lists(failures.map(lambda f: f._replace(held=0)), min_size=60))
def test_without_progress_it_ends_after_its_attempts(
    rule: Policy, places: int, given_failures: list[Failure]
) -> None:
    seen = run(rule, places, given_failures)
    assert len(seen) <= rule.attempts
    assert seen[-1][0].end
    if seen[-1][0].end == End.USED:
        assert len(seen) == rule.attempts


@given(rules, st.integers(1, 4), st.lists(failures, max_size=60))
def test_transient_failures_never_end_it_before_the_attempts_are_used(
    rule: Policy, places: int, given_failures: list[Failure]
) -> None:
    soft = [failure._replace(permanent=False, wrong_bytes=False) for failure in given_failures]
    for number, (schedule, _) in enumerate(run(rule, places, soft), 1):
        assert schedule.end != End.REFUSED
        if schedule.end:
            assert schedule.failures == rule.attempts <= number


@given(rules, st.integers(1, 5))
def test_when_every_place_has_refused_it_ends_at_once(rule: Policy, places: int) -> None:
    assume(rule.attempts >= places)
    refusals = [Failure(0, "404", 0, permanent=True)] * (places + 1)
    seen = run(rule, places, refusals)
    assert len(seen) == places and seen[-1][0].end == End.REFUSED
    assert all(now == 0 for _, now in seen)  # nobody waits between them


@given(rules, st.integers(2, 5))
def test_after_a_transient_failure_the_next_place_comes_at_once_and_a_wait_after_the_last(
    rule: Policy, places: int
) -> None:
    assume(rule.attempts > places)
    seen = run(rule, places, [Failure(0, "reset", 0)] * places)
    assert [schedule.place for schedule, _ in seen] == [*range(1, places), 0]
    assert [schedule.at for schedule, _ in seen[:-1]] == [0] * (places - 1)
    assert seen[-1][0].at == policy.backoff(rule, 0, 0.5) > 0


@given(rules, st.integers(0, 2000), st.floats(0, 0.999))
def test_waits_are_near_the_formula_and_never_beyond_the_cap(rule: Policy, waits: int, draw: float) -> None:
    wait = policy.backoff(rule, waits, draw)
    plain = min(rule.cap, rule.first * min(rule.factor, 10) ** min(waits, 300))
    assert 0 <= wait <= rule.cap
    assert plain * (1 - rule.jitter) * 0.999 <= wait <= plain * (1 + rule.jitter) * 1.001


def test_the_default_waits_are_those_that_are_documented() -> None:
    waits = [policy.backoff(Policy(), number, 0.5) for number in range(8)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


def test_progress_begins_the_count_and_the_waits_anew() -> None:
    rule = Policy(attempts=3, first=1, jitter=0)
    steps = [Failure(0, "reset", held) for held in (0, 0, 2_000_000, 2_000_000, 2_100_000, 2_100_000)]
    seen = run(rule, 1, steps)
    assert [schedule.failures for schedule, _ in seen] == [1, 2, 1, 2, 3]
    assert seen[2][0].at - seen[2][1] == 1
    assert seen[-1][0].end == End.USED  # 100 kB are no progress


def test_bytes_that_were_held_before_are_no_progress() -> None:
    # A server without ranges that breaks off at the same place every time.
    seen = run(Policy(attempts=5), 1, [Failure(0, "reset", SIZE // 2)] * 10)
    assert len(seen) == 6 - 1 and seen[-1][0].end == End.USED


def test_one_part_in_a_hundred_of_a_small_file_is_progress() -> None:
    schedule = policy.failed(Schedule(failures=4), Policy(), 1, 1000, Failure(0, "reset", 10), 0, 0.5)
    assert schedule.failures == 1
    schedule = policy.failed(Schedule(failures=4), Policy(), 1, 1000, Failure(0, "reset", 9), 0, 0.5)
    assert schedule.failures == 5


def test_wrong_bytes_are_borne_once_from_each_place() -> None:
    wrong = Failure(0, "another SHA-256", SIZE, wrong_bytes=True)
    seen = run(Policy(), 2, [wrong] * 9)
    assert [schedule.place for schedule, _ in seen] == [1, 0, 1, 1]
    assert seen[-1][0].end == End.REFUSED and len(seen) == 4


def test_retry_after_is_respected_up_to_ten_minutes() -> None:
    for asked, waited in ((30, 30), (1, 5), (86400, 600), (0, 5)):
        busy = Failure(0, "429", 0, retry_after=asked)
        assert policy.failed(Schedule(), Policy(jitter=0), 1, SIZE, busy, 100, 0.5).at == 100 + waited


def test_a_place_that_asked_for_time_gets_it_while_others_are_asked() -> None:
    schedule = policy.failed(
        Schedule(), Policy(jitter=0), 2, SIZE, Failure(0, "429", 0, retry_after=60), 0, 0.5
    )
    assert (schedule.place, schedule.at) == (1, 0)
    schedule = policy.failed(schedule, Policy(jitter=0), 2, SIZE, Failure(1, "reset", 0), 0, 0.5)
    assert (schedule.place, schedule.at) == (0, 60)
    assert policy.hurried(schedule, 10).at == 60  # not even the network's return is a reason


def test_without_a_network_no_attempt_is_used() -> None:
    seen = run(Policy(attempts=2), 1, [Failure(0, "no route", 0, counts=False)] * 50)
    assert len(seen) == 50 and not seen[-1][0].end
