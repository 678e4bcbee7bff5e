"""The canonical families: what the engine, the gateway and the limits of callers tell of themselves."""

from __future__ import annotations

from headgate.telemetry.metrics import labels as say
from headgate.telemetry.metrics.family import Category, Family, Feeder, Label, Merge, Shape

__all__ = ["ENGINE", "LATENCY", "LIMITS", "PROCESS"]

LATENCY = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Seconds: from an answer out of a cache to a long thought."""

_WAITS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

_MODEL = (say.PROVIDER, say.MODEL)
_PAIR = (say.PROVIDER, say.DOMAIN, say.MODEL)
_LIMIT = (*_PAIR, say.LIMIT)
_LAYER = Label("layer", values=("replies", "memory", "redis"))
_STORE = Label("store", values=("quota",))

Counter, Gauge, Histogram = Shape.COUNTER, Shape.GAUGE, Shape.HISTOGRAM
Calls, Quota, Tokens, Cache = Category.CALLS, Category.QUOTA, Category.TOKENS, Category.CACHE
Engine = Feeder.ENGINE

ENGINE: tuple[Family, ...] = (
    # ── calls ───────────────────────────────────────────────────────────────────────────────────
    Family(
        "headgate_calls_total", Counter,
        "Calls that ended, by whose doing their end is.",
        Calls, Engine, (say.PROVIDER, say.OPERATION, say.RESULT),
        note="`quota`: no key had room in time; `caller`: what was asked for is refused; `upstream`: "
        "the provider failed; `gateway`: Headgate did, or is not configured for it; `cut`: a stream "
        "broke after its first piece. The error budget is about the last two.",
    ),
    Family(
        "headgate_call_errors_total", Counter,
        "Calls that failed, by the kind of error their caller got.",
        Calls, Engine, (say.PROVIDER, say.ERROR_KIND),
    ),
    Family(
        "headgate_call_duration_seconds", Histogram,
        "Seconds of a call from begin to end, waits included; of a stream, to its last piece.",
        Calls, Engine, (say.PROVIDER, say.OPERATION), "seconds", LATENCY,
    ),
    Family(
        "headgate_call_wait_seconds", Histogram,
        "Seconds that a call waited: for quota, for a key to recover, before retries.",
        Calls, Engine, _MODEL, "seconds", _WAITS,
    ),
    Family(
        "headgate_waits_total", Counter, "Waits that calls began.",
        Calls, Engine, (Label("reason", values=("key", "retry")),), known=(("key",), ("retry",)),
        note="`key`: for quota or a key to recover; `retry`: before the same is tried again.",
    ),
    Family(
        "headgate_rotations_total", Counter, "Times that a call went on with another key.",
        Calls, Engine, _MODEL,
    ),
    Family(
        "headgate_retries_total", Counter, "Tries of calls that cost one of their retries.",
        Calls, Engine, _MODEL,
    ),
    Family(
        "headgate_fallbacks_total", Counter,
        "Calls that were answered by something else than the model that was asked for.",
        Calls, Engine, (say.PROVIDER, say.FALLBACK),
    ),
    # ── attempts ────────────────────────────────────────────────────────────────────────────────
    Family(
        "headgate_attempts_total", Counter, "Attempts that ended, by what became of them.",
        Calls, Engine, (*_MODEL, say.OUTCOME),
    ),
    Family(
        "headgate_upstream_requests_total", Counter,
        "Requests sent to a provider, by the HTTP status of the answer.",
        Calls, Engine, (*_MODEL, say.CODE),
    ),
    Family(
        "headgate_upstream_duration_seconds", Histogram,
        "Seconds of an attempt, from its lease to the end of the answer.",
        Calls, Engine, _MODEL, "seconds", LATENCY,
    ),
    Family(
        "headgate_first_piece_seconds", Histogram,
        "Seconds of a streamed attempt from its lease to the first piece of the answer.",
        Calls, Engine, _MODEL, "seconds", LATENCY,
    ),
    # ── quota ───────────────────────────────────────────────────────────────────────────────────
    Family(
        "headgate_admitted_requests_total", Counter,
        "Attempts that a quota domain was asked with.",
        Quota, Engine, _PAIR,
    ),
    Family(
        "headgate_quota_refusals_total", Counter,
        "Quota refusals of a provider; avoidable ones the declared limits and our own sends predicted.",
        Quota, Engine, (*_MODEL, Label("avoidable", values=("true", "false"))),
        note="Whether one was avoidable is known when the calls sent before it have ended: it is "
        "counted as `true` then, as `false` after a minute at the latest.",
    ),
    Family(
        "headgate_quota_used", Shape.GAUGE,
        "What is charged to a limit of a domain now, reservations included.",
        Quota, Engine, _LIMIT, merge=Merge.MAX,
        note="Requests or tokens. Read from the ledger that all share: take `max` over instances. "
        "Where a provider counts several models together, `model` is their class (`claude-opus-4`).",
    ),
    Family(
        "headgate_quota_limit", Gauge,
        "The effective limit of a domain: at most so much is held at any time.",
        Quota, Engine, _LIMIT, merge=Merge.MAX,
        note="With the safety margin taken off. `rpd` and `tpd` end at midnight in Los Angeles.",
    ),
    Family(
        "headgate_quota_wait_seconds", Gauge,
        "Seconds until a domain that cools down may be asked for a model again; 0: now.",
        Quota, Engine, _PAIR, "seconds", merge=Merge.MAX,
        note="Of models that were asked for; absent for a domain whose keys were all refused.",
    ),
    # ── keys ────────────────────────────────────────────────────────────────────────────────────
    Family(
        "headgate_provider_keys", Gauge, "Number of keys of a provider in a state.",
        Category.KEYS, Engine,
        (say.PROVIDER, Label("state", values=("active", "exhausted", "disabled"))), merge=Merge.MAX,
        note="One family over all providers; `headgate_keys` and its like are per client.",
    ),
    # ── tokens and cost ─────────────────────────────────────────────────────────────────────────
    Family(
        "headgate_tokens_total", Counter,
        "Tokens that attempts used, each counted under one type: the sum is what is billed.",
        Tokens, Engine, (*_MODEL, say.TOKEN_TYPE),
        note="`input` is what no cache had; `reasoning` is not in `output`. What the provider did not "
        "tell is in it as estimated.",
    ),
    Family(
        "headgate_cost_usd_total", Counter, "Dollars that attempts cost, by the price list.",
        Tokens, Engine, _MODEL, "usd",
    ),
    Family(
        "headgate_cost_by_type_usd_total", Counter,
        "Dollars that attempts cost, by what they were paid for.",
        Tokens, Engine, (*_MODEL, say.COST_TYPE), "usd",
        note="What was written to a cache is in `input`.",
    ),
    Family(
        "headgate_unpriced_attempts_total", Counter,
        "Attempts that used tokens whose price is not known; their cost is missing.",
        Tokens, Engine, (say.PROVIDER,),
    ),
    # ── cache ───────────────────────────────────────────────────────────────────────────────────
    Family(
        "headgate_cache_requests_total", Counter, "Look-ups in a cache, by what they found.",
        Cache, Engine, (_LAYER, Label("result", values=("hit", "miss"))),
        known=(("replies", "hit"), ("replies", "miss")),
        note="`replies`: whole answers of models; the others: results of the content service.",
    ),
    Family(
        "headgate_cache_saved_tokens_total", Counter,
        "Tokens that kept answers had used when they were new, and did not use again.",
        Cache, Engine, _MODEL,
    ),
    Family(
        "headgate_cache_items", Gauge, "Entries in a cache of this process.", Cache, Engine, (_LAYER,),
    ),
    Family(
        "headgate_cache_bytes", Gauge, "Bytes that a cache of this process takes.",
        Cache, Engine, (_LAYER,), "bytes",
    ),
    Family(
        "headgate_cache_dropped_total", Counter, "Entries that left a cache, by the reason.",
        Cache, Engine, (_LAYER, Label("reason", values=("expired", "evicted", "corrupt"))),
    ),
    Family(
        "headgate_cache_failures_total", Counter,
        "Look-ups and writes that the shared store did not answer.",
        Cache, Engine, (_LAYER,),
    ),
    # ── protection and queues ───────────────────────────────────────────────────────────────────
    Family(
        "headgate_breaker_state", Gauge,
        "1 for the state that the breaker of a model is in, else 0; over workers, how many are in it.",
        Category.PROTECTION, Engine, (*_MODEL, Label("state", values=say.BREAKER_STATES)),
    ),
    Family(
        "headgate_concurrency_limit", Gauge,
        "Calls at once that an overloaded model is held to; absent while there is no limit.",
        Category.PROTECTION, Engine, _MODEL,
    ),
    Family(
        "headgate_in_flight", Gauge, "Attempts on the wire now.",
        Category.PROTECTION, Engine, (say.PROVIDER,),
    ),
    Family(
        "headgate_queue_depth", Gauge, "Calls that wait now, by what for.",
        Category.PROTECTION, Engine, (say.PROVIDER, Label("line", values=("quota", "places"))),
    ),
    # ── stores and the usage ledger ─────────────────────────────────────────────────────────────
    Family(
        "headgate_store_up", Gauge,
        "1 while the shared store answers an engine, 0 while that decides without it.",
        Category.STORE, Engine, (_STORE, say.PROVIDER), merge=Merge.MIN,
        note="Absent where nothing is shared.",
    ),
    Family(
        "headgate_store_outages_total", Counter, "Times that the shared store went away.",
        Category.STORE, Engine, (_STORE, say.PROVIDER),
    ),
    Family(
        "headgate_store_away_seconds_total", Counter, "Seconds that the shared store was away, in all.",
        Category.STORE, Engine, (_STORE, say.PROVIDER), "seconds",
    ),
    Family(
        "headgate_fail_open_total", Counter,
        "Decisions made without the shared store: by the own share of quota, or by own buckets.",
        Category.STORE, Engine, (Label("part", values=("quota", "inbound")),),
        known=(("quota",), ("inbound",)),
    ),
    Family(
        "headgate_usage_rows_total", Counter, "Rows of the usage ledger that were written, or lost.",
        Category.STORE, Engine, (Label("result", values=("written", "lost")),),
        known=(("written",), ("lost",)),
    ),
    Family(
        "headgate_usage_rows_waiting", Gauge, "Rows of the usage ledger that wait to be written.",
        Category.STORE, Engine,
    ),
)  # fmt: skip

_SCOPE = Label("scope", most=50)
_IDENTIFIER = Label("identifier", most=50)
_CHECK = Label("result", values=("allowed", "exceeded", "error"))
_CHECKS = "Checks of inbound limits, by scope class of the caller and result."
_TOKENS = "Fewest tokens left in any bucket of the scope class, over the last minute or two."

LIMITS: tuple[Family, ...] = (
    Family(
        "headgate_inbound_checks_total", Counter, _CHECKS,
        Category.INBOUND, Feeder.LIMITS, (_SCOPE, _CHECK),
    ),
    Family(
        "headgate_inbound_tokens_remaining", Gauge, _TOKENS,
        Category.INBOUND, Feeder.LIMITS, (_SCOPE,), merge=Merge.MIN,
    ),
    Family(
        "cak_rate_limit_checks_total", Counter, _CHECKS,
        Category.INBOUND, Feeder.LIMITS, (_IDENTIFIER, _CHECK), twin="headgate_inbound_checks_total",
        note="`identifier` holds a scope class (`user`, `ip`, …), never an identifier.",
    ),
    Family(
        "cak_rate_limit_tokens_remaining", Gauge, _TOKENS,
        Category.INBOUND, Feeder.LIMITS, (_IDENTIFIER,), merge=Merge.MIN,
        twin="headgate_inbound_tokens_remaining",
    ),
    Family(
        "cak_claude_api_calls_total", Counter, "Recorded Claude calls.",
        Calls, Feeder.CLAUDE, (say.MODEL, Label("status", values=("success", "error"))),
        twin='headgate_upstream_requests_total{provider="anthropic"}',
    ),
    Family(
        "cak_claude_tokens_total", Counter,
        "Tokens of recorded Claude calls; prompt includes cached input.",
        Tokens, Feeder.CLAUDE, (say.MODEL, Label("type", values=("prompt", "completion"))),
        twin='headgate_tokens_total{provider="anthropic"}',
    ),
    Family(
        "cak_claude_cost_dollars_total", Counter, "Cost of recorded Claude calls in dollars.",
        Tokens, Feeder.CLAUDE, twin='headgate_cost_usd_total{provider="anthropic"}',
    ),
)  # fmt: skip

PROCESS: tuple[Family, ...] = (
    Family(
        "headgate_build_info", Shape.INFO, "The version that runs.",
        Category.PROCESS, Feeder.ENGINE, (Label("version", most=1),),
    ),
    Family(
        "headgate_process_start_time_seconds", Gauge,
        "Unix time at which the process began; of several workers, the one that began last.",
        Category.PROCESS, Feeder.ENGINE, unit="seconds", merge=Merge.MAX,
    ),
    Family(
        "headgate_workers", Gauge, "Processes whose counts are in this answer and that live.",
        Category.PROCESS, Feeder.ENGINE,
    ),
    Family(
        "headgate_event_loop_lag_seconds", Histogram,
        "Seconds by which the event loop came round late to what was due.",
        Category.PROCESS, Feeder.GATEWAY, (), "seconds", _LAG,
    ),
    Family(
        "headgate_config_reloads_total", Counter, "Configurations that were offered while it ran.",
        Category.PROCESS, Feeder.GATEWAY, (Label("result", values=("accepted", "refused")),),
        known=(("accepted",), ("refused",)),
    ),
)  # fmt: skip
