"""Calendar days at the provider: never over, and all of a day's quota used where the day allows it.

The days are California's: 23 hours on 2026-03-08, 25 hours on 2026-11-01, a year's end, a leap day.
The provider's own reset comes up to 5 s before ours or up to 60 s after it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random  # noqa: TID251 - seeded
from zoneinfo import ZoneInfo

import pytest

from headgate.core.quota import Ask, Counts, Grant, Kind, Limit, Mode
from headgate.policy.days import PACIFIC, day_start, next_reset
from headgate.policy.quota.ledger import QuotaLedger
from headgate.policy.quota.windows import RESET_EARLY, RESET_LATE, bucket_width, expiry

ZONE = ZoneInfo(PACIFIC)
HOUR = 3_600_000
GUARD = 350
LIMIT = 20

DAYS = {  # a day, and how long it is
    "spring": ("2026-03-08", 23),
    "autumn": ("2026-11-01", 25),
    "year's end": ("2026-12-31", 24),
    "leap day": ("2028-02-29", 24),
}
DRIFTS = (-RESET_EARLY, -1, 0, 1, 30_000, RESET_LATE)


def midnights(first: str, count: int) -> list[int]:
    """Resets in milliseconds, beginning with that which begins the day `first`."""
    start = datetime.fromisoformat(first).replace(tzinfo=ZONE).timestamp()
    found = [start]
    while len(found) < count:
        found.append(next_reset(found[-1]))
    return [int(moment * 1000) for moment in found]


def daily(mode: Mode = Mode.EARLY, amount: int = LIMIT) -> Limit:
    return Limit("rpd", Counts.REQUESTS, amount, Kind.CALENDAR, mode=mode, guard=GUARD)


def try_all(ledger: QuotaLedger, moments: list[int], latency: int = 0) -> list[tuple[int, int]]:
    """Asks at each moment; returns admission and settlement of each call."""
    sent: list[tuple[int, int]] = []
    open_until: list[tuple[int, str]] = []
    for number, now in enumerate(moments):
        while open_until and open_until[0][0] <= now:
            done, rid = open_until.pop(0)
            ledger.settle(rid, {}, done)
        rid = str(number)
        if isinstance(ledger.acquire(Ask(rid, {Counts.REQUESTS: 1}), now, 1), Grant):
            open_until.append((now + latency, rid))
            sent.append((now, now + latency))
    for done, rid in open_until:
        ledger.settle(rid, {}, done)
    return sent


def most_in_a_day(spans: list[tuple[int, int]], resets: list[int], drift: int) -> int:
    """The most a provider's day can hold if each call is counted at the worst moment of its span."""
    edges = [reset + drift for reset in resets]
    return max(
        sum(lo < end and hi >= begin for lo, hi in spans)
        for begin, end in zip([0, *edges], [*edges, 1 << 60], strict=True)
    )


@pytest.mark.parametrize("day", DAYS)
def test_a_day_is_as_long_as_it_is_in_california(day: str) -> None:
    first, hours = DAYS[day]
    begin, end = midnights(first, 2)
    assert end - begin == hours * HOUR
    assert day_start(begin / 1000 + 1) * 1000 == begin
    limit = daily()
    assert expiry(limit, begin, [begin, end, end + 24 * HOUR]) == end + RESET_LATE


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("day", DAYS)
def test_never_over_whatever_is_asked_around_a_reset(day: str, drift: int) -> None:
    """Worst case: the whole quota wanted at every edge of the rule, by early and by late counting."""
    first, _ = DAYS[day]
    resets = midnights(first, 6)
    for mode, latency in ((Mode.EARLY, 0), (Mode.ENVELOPE, 0), (Mode.ENVELOPE, 80_000)):
        ledger = QuotaLedger([[daily(mode)]], resets)
        moments = []
        for reset in resets[1:4]:
            edges = (
                -GUARD - RESET_EARLY - 1, -GUARD - RESET_EARLY, -GUARD - RESET_EARLY + 1, -RESET_EARLY,
                -GUARD - 1, -GUARD, -1, 0, 1, 5_000, RESET_LATE - 1, RESET_LATE, RESET_LATE + 1,
                RESET_LATE + GUARD, 90_000, 6 * HOUR, 22 * HOUR,
            )  # fmt: skip
            moments += [reset + edge for edge in edges for _ in range(LIMIT // 3)]
        sent = try_all(ledger, sorted(moments), latency)
        spans = [(a, a + GUARD if mode is Mode.EARLY else done) for a, done in sent]
        worst = most_in_a_day(spans, resets, drift)
        assert worst <= LIMIT, f"{worst} of {LIMIT} in one provider day, {mode}, reset {drift} ms off"
        assert len(sent) >= 3 * LIMIT


@pytest.mark.parametrize("seed", range(12))
def test_random_demand_around_every_reset_stays_within(seed: int) -> None:
    chance = Random(seed)
    first, _ = chance.choice(list(DAYS.values()))
    resets = midnights(first, 7)
    mode = chance.choice(list(Mode))
    ledger = QuotaLedger([[daily(mode, chance.choice((1, 2, 7)))]], resets)
    amount = ledger.accounts[0].limits[0].amount
    moments = []
    for reset in resets[1:5]:
        near = [reset + chance.randint(-6_000, 62_000) for _ in range(30)]
        far = [reset + chance.randint(0, 20 * HOUR) for _ in range(5)]
        moments += near + far
    latency = chance.choice((0, 300, 20_000))
    sent = try_all(ledger, sorted(moments), latency)
    spans = [(a, a + GUARD if mode is Mode.EARLY else done) for a, done in sent]
    for drift in (*DRIFTS, chance.randint(-RESET_EARLY, RESET_LATE)):
        worst = most_in_a_day(spans, resets, drift)
        assert worst <= amount, f"seed {seed}: {worst} of {amount}, reset {drift} ms off"


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("day", DAYS)
def test_all_of_every_day_is_used_where_the_demand_is_away_from_the_reset(day: str, drift: int) -> None:
    first, _ = DAYS[day]
    resets = midnights(first, 6)
    ledger = QuotaLedger([[daily()]], resets)
    moments = [
        reset + 2 * HOUR + minute * 60_000 for reset in resets[:4] for minute in range(3 * LIMIT)
    ]
    sent = try_all(ledger, moments, 2_000)
    days = Counter(bisect_right([reset + drift for reset in resets], a + 100) for a, _ in sent)
    assert set(days.values()) == {LIMIT}, f"calls per provider day: {days}"
    assert len(days) == 4


def test_a_full_day_opens_when_the_latest_reset_is_past() -> None:
    resets = midnights("2026-03-08", 4)
    ledger = QuotaLedger([[daily()]], resets)
    try_all(ledger, [resets[0] + HOUR] * LIMIT)
    refusal = ledger.acquire(Ask("next", {Counts.REQUESTS: 1}), resets[0] + 2 * HOUR, 1)
    assert refusal.at == resets[1] + RESET_LATE
    assert not try_all(ledger, [refusal.at - 1])
    assert len(try_all(ledger, [refusal.at] * (LIMIT + 1))) == LIMIT


def test_what_may_be_counted_on_both_sides_of_a_reset_is_charged_to_both() -> None:
    resets = midnights("2026-11-01", 4)
    limit, edge = daily(), resets[1] - GUARD - RESET_EARLY
    assert expiry(limit, edge - 1, resets) == resets[1] + RESET_LATE
    assert expiry(limit, edge, resets) == resets[2] + RESET_LATE
    assert expiry(limit, resets[1] - 1, resets, counted_by=0) == resets[2] + RESET_LATE


def test_reset_by_reset_for_ten_years() -> None:
    """Against the zone's own calendar, walked in steps of quarter hours around every midnight."""
    reset = datetime(2026, 1, 1, tzinfo=ZONE).timestamp()
    while reset < datetime(2036, 1, 1, tzinfo=UTC).timestamp():
        following = next_reset(reset)
        was, is_now = (datetime.fromtimestamp(moment, ZONE) for moment in (reset, following))
        assert (is_now.hour, is_now.minute) == (0, 0)
        assert is_now.date() - was.date() == timedelta(days=1)
        for quarter in range(1, 8):
            assert next_reset(following - quarter * 900) == following
            assert day_start(following + quarter * 900) == following
        assert next_reset(following - 1) == following
        reset = following


def test_rolling_charges_end_a_window_after_their_bucket() -> None:
    minute = Limit("rpm", Counts.REQUESTS, 1, guard=GUARD)
    assert bucket_width(minute) == 100
    assert expiry(minute, 1_000_000, []) == 1_000_400 + 60_000
    assert expiry(minute, 1_000_050, []) == 1_000_400 + 60_000
    assert expiry(minute, 1_000_051, []) == 1_000_500 + 60_000
    tiny = Limit("rps", Counts.REQUESTS, 1, window=1, guard=0)
    assert bucket_width(tiny) == 1
    assert expiry(tiny, 5, []) == 6
    rolling_day = Limit("rpd", Counts.REQUESTS, 1, window=24 * HOUR, guard=0)
    assert bucket_width(rolling_day) == 300_000
    assert expiry(rolling_day, 1, []) == 300_000 + 24 * HOUR
