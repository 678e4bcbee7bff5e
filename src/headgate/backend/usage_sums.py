"""Sums of what was used, and what is to be expected: from the ledger, else from memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from headgate.backend.accounts import ForecastOf, ForecastPoint, UsageBy, UsageForecast, UsageLine
from headgate.backend.measures import UsageMetrics, UsagePeriodName, UsagePeriods
from headgate.backend.measuring import dollars, instant, is_whole, second_of, wrong_request
from headgate.backend.monitoring import Monitoring
from headgate.core.ports import Clock
from headgate.core.usage import By, UsageFilter, UsageSum
from headgate.policy.analytics import DAY, HOUR, Bucket
from headgate.policy.forecast import Forecast, Point, forecast

__all__ = ["UsageSums", "group_of", "line_of", "regrouped"]

_HOURS_SHOWN = 24
_DAYS_SHOWN = 30
_HISTORY_DAYS = 28
"""How far a forecast looks back: four whole weeks."""

_MOST_AHEAD = 24 * 31

_GROUPS = {
    UsageBy.HOUR: By.HOUR,
    UsageBy.DAY: By.DAY,
    UsageBy.WEEK: By.DAY,
    UsageBy.MONTH: By.DAY,
    UsageBy.MODEL: By.MODEL,
    UsageBy.CALLER: By.CALLER,
    UsageBy.KEY: By.KEY,
    UsageBy.PROVIDER: By.PROVIDER,
}
_PERIODS = {UsagePeriodName.HOURLY: UsageBy.HOUR, UsagePeriodName.DAILY: UsageBy.DAY,
            UsagePeriodName.WEEKLY: UsageBy.WEEK, UsagePeriodName.MONTHLY: UsageBy.MONTH}  # fmt: skip


class UsageSums:
    """Sums over the ledger of a backend, or over its memory where none is kept."""

    def __init__(self, monitoring: Monitoring, clock: Clock) -> None:
        self._monitoring = monitoring
        self._clock = clock

    async def lines(
        self,
        by: UsageBy | str,
        *,
        model: str | None,
        caller: str | None,
        since: str | datetime | None,
        until: str | datetime | None,
    ) -> tuple[UsageLine, ...]:
        """Sums over periods, the oldest first, or over names, the dearest first.

        Raises:
            GeminiError: an argument is wrong, or needs a ledger where none is kept.
            StoreError: the ledger does not answer.
        """
        group = self._group(by)
        chosen = UsageFilter(
            0.0 if since is None else second_of("since", since, self._clock),
            None if until is None else second_of("until", until, self._clock),
            model,
            caller,
        )
        sums = await self._sums(_GROUPS[group], chosen)
        return tuple(line_of(one, group) for one in regrouped(sums, group))

    async def periods(self, model: str) -> UsagePeriods:
        """A model's last 24 hours and 30 days, the newest first."""
        hourly = await self.metrics(model, UsagePeriodName.HOURLY, _HOURS_SHOWN)
        return UsagePeriods(hourly, await self.metrics(model, UsagePeriodName.DAILY, _DAYS_SHOWN))

    async def metrics(self, model: str, period: UsagePeriodName, most: int) -> tuple[UsageMetrics, ...]:
        """Usage of a model by periods, the newest first; those without any are left out."""
        group = _PERIODS[period]
        span = {UsageBy.HOUR: HOUR, UsageBy.DAY: DAY, UsageBy.WEEK: 7 * DAY}.get(group, 31 * DAY)
        since = (self._clock.wall() // span - most + 1) * span
        if group is UsageBy.WEEK or group is UsageBy.MONTH:
            since -= span  # the first of them is to be whole
        sums = await self._sums(_GROUPS[group], UsageFilter(max(0.0, since), None, model))
        found = [_metrics(model, period, one) for one in regrouped(sums, group)]
        return tuple(reversed(found[-most:]))

    async def forecast(
        self, of: ForecastOf | str, model: str | None, hours: int
    ) -> UsageForecast | None:
        """The coming hours; None where too few whole hours are known.

        Raises:
            GeminiError: an argument is wrong.
            StoreError: the ledger does not answer.
        """
        what = self._what(of)
        if not is_whole(hours, 1, _MOST_AHEAD):
            raise wrong_request(
                f"hours takes a whole number from 1 to {_MOST_AHEAD}; got {hours!r:.40}.", self._clock
            )
        now = int(self._clock.wall() // HOUR)
        chosen = UsageFilter(float((now - _HISTORY_DAYS * 24) * HOUR), float(now * HOUR), model)
        sums = await self._sums(By.HOUR, chosen)
        if not sums:
            return None
        known = {int(one.start // HOUR): _value(one, what) for one in sums}
        values = [known.get(hour, 0.0) for hour in range(min(known), now)]
        made = forecast(values, hours, now)
        return None if made is None else _told(made, what, model)

    async def _sums(self, by: By, chosen: UsageFilter) -> list[UsageSum]:
        found = await self._monitoring.ask_store(lambda store: store.sums(by, chosen))
        return self._remembered(by, chosen) if found is None else found

    def _remembered(self, by: By, chosen: UsageFilter) -> list[UsageSum]:
        """The same out of memory, as far as that goes."""
        book = self._monitoring.book
        start, end = chosen.since, float("inf") if chosen.until is None else chosen.until
        if chosen.model is not None and chosen.caller is not None:
            raise wrong_request(
                "A model and a caller together need a usage ledger: set HEADGATE_USAGE.", self._clock
            )
        if by in (By.HOUR, By.DAY):
            span = HOUR if by is By.HOUR else DAY
            found = book.periods(span, start, end, model=chosen.model, caller=chosen.caller)
            return [bucket.sums("", begin) for begin, bucket in found.items()]
        if by is By.MODEL and chosen.caller is None:
            names = book.names(start, end, callers=False)
            if chosen.model is not None:
                names = {name: one for name, one in names.items() if name == chosen.model}
        elif by is By.CALLER and chosen.model is None:
            names = self._callers(start, end)
            if chosen.caller is not None:
                names = {name: one for name, one in names.items() if name == chosen.caller}
        else:
            raise wrong_request(f"Sums by {by} need a usage ledger: set HEADGATE_USAGE.", self._clock)
        sums = [
            bucket.sums(name) for name, bucket in names.items() if bucket.attempts + bucket.requests
        ]
        return sorted(sums, key=lambda one: (-one.cost, one.name))

    def _callers(self, start: float, end: float) -> dict[str, Bucket]:
        """Callers; what is left of everything is of those who gave no name."""
        book = self._monitoring.book
        named = book.names(start, end, callers=True)
        rest = Bucket()
        for bucket in book.names(start, end, callers=False).values():
            rest.merge(bucket)
        for bucket in named.values():
            rest.take_away(bucket)
        return {**named, "": rest}

    def _group(self, by: UsageBy | str) -> UsageBy:
        try:
            return UsageBy(by)
        except ValueError:
            raise wrong_request(
                f"by takes {', '.join(UsageBy)}; got {by!r:.40}.", self._clock
            ) from None

    def _what(self, of: ForecastOf | str) -> ForecastOf:
        try:
            return ForecastOf(of)
        except ValueError:
            raise wrong_request(
                f"of takes {', '.join(ForecastOf)}; got {of!r:.40}.", self._clock
            ) from None


def group_of(by: UsageBy) -> By:
    """What the ledger is to sum over: weeks and months are made of days."""
    return _GROUPS[by]


def regrouped(sums: Sequence[UsageSum], by: UsageBy) -> list[UsageSum]:
    """Days as weeks that begin on Monday, or as months; everything else as it is."""
    if by not in (UsageBy.WEEK, UsageBy.MONTH):
        return list(sums)
    found: dict[float, UsageSum] = {}
    for one in sums:
        day = instant(one.start)
        first = day - timedelta(days=day.weekday()) if by is UsageBy.WEEK else day.replace(day=1)
        start = first.timestamp()
        found[start] = found.get(start, UsageSum("", start)) + one
    return [found[start] for start in sorted(found)]


def line_of(one: UsageSum, by: UsageBy) -> UsageLine:
    """A sum in the backend's words."""
    start, name = None, one.name
    if by in (UsageBy.HOUR, UsageBy.DAY, UsageBy.WEEK, UsageBy.MONTH):
        start = instant(one.start)
        name = f"{start:%Y-%m-%d %H:00}" if by is UsageBy.HOUR else f"{start:%Y-%m-%d}"
        name = name[:7] if by is UsageBy.MONTH else name
    return UsageLine(
        name=name,
        start=start,
        total_requests=one.requests,
        successful_requests=one.successes,
        failed_requests=one.failures,
        cancelled_requests=one.cancelled,
        cached_requests=one.cached,
        attempts=one.attempts,
        input_tokens=one.input_tokens,
        cached_tokens=one.cached_tokens,
        output_tokens=one.output_tokens,
        reasoning_tokens=one.reasoning_tokens,
        total_cost=dollars(one.cost),
        cached_cost=dollars(one.cached_cost),
        output_cost=dollars(one.output_cost),
        reasoning_cost=dollars(one.reasoning_cost),
        cached_savings=dollars(one.saved),
        unpriced_attempts=one.unpriced,
        estimated_attempts=one.estimated,
        avg_latency_ms=1000 * one.seconds / one.requests if one.requests else None,
    )


def _metrics(model: str, period: UsagePeriodName, one: UsageSum) -> UsageMetrics:
    return UsageMetrics(
        model=model,
        period=period,
        start=instant(one.start),
        total_requests=one.requests,
        successful_requests=one.successes,
        failed_requests=one.failures,
        total_input_tokens=one.input_tokens,
        total_output_tokens=one.output_tokens,
        total_cost=dollars(one.cost),
        avg_latency_ms=1000 * one.seconds / one.requests if one.requests else None,
    )


def _value(one: UsageSum, of: ForecastOf) -> float:
    if of is ForecastOf.COST:
        return dollars(one.cost)
    return float(one.requests if of is ForecastOf.REQUESTS else one.input_tokens + one.output_tokens)


def _told(made: Forecast, of: ForecastOf, model: str | None) -> UsageForecast:
    sure = abs(made.change_per_day) > made.change_error
    return UsageForecast(
        of=of,
        model=model,
        hours_used=made.hours,
        change_per_day=made.change_per_day,
        change_error=made.change_error,
        trend="steady" if not sure else "rising" if made.change_per_day > 0 else "falling",
        seasonal=made.seasonal,
        total=_point(made.total),
        hours=tuple(_point(point) for point in made.points),
    )


def _point(point: Point) -> ForecastPoint:
    at = instant(float(point.hour * HOUR))
    return ForecastPoint(at, point.expected, point.low, point.high)
