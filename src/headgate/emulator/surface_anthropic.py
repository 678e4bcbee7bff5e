"""The Anthropic surface: paths, credentials, checks in the real order, and the answers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import web

from headgate.emulator import anthropic_replies, anthropic_requests
from headgate.emulator.anthropic_catalogue import ClaudeCatalogue, ClaudeModel, described, page
from headgate.emulator.anthropic_delivery import ClaudeDelivery, encoded
from headgate.emulator.anthropic_errors import ClaudeRefusal, invalid, known, too_many
from headgate.emulator.anthropic_prompt import PromptCache, Spent, read_prompt
from headgate.emulator.books import Books, Entry, Level, Member
from headgate.emulator.chance import Chance
from headgate.emulator.config import EmulatorConfig, Fault
from headgate.emulator.delivery import Broken
from headgate.emulator.errors import Refused
from headgate.emulator.faults import FaultPlan, Visit, touches_answer
from headgate.emulator.surface import BEFORE_ANSWER, Age, Surface

__all__ = ["AnthropicSurface", "is_anthropic"]

_PATH = re.compile(r"/v1/(messages|messages/count_tokens|models(?:/([^/]+))?)/?")
_KEY_STATES = {"invalid": "claude-401-key", "forbidden": "claude-403-permission"}
_SPENDING = {
    "tier_cap": "spend_cap",
    "own_limit": "spend_limit",
    "unpaid": "unpaid",
    "no_credit": "no_credit",
}
_HEADER_NAMES = {"rpm": "requests", "itpm": "input-tokens", "otpm": "output-tokens"}
_ROUNDING = 1_000  # of remaining tokens
_LONGEST_NOTICE = 59  # seconds that `retry-after` on a good answer names at most


@dataclass
class _Exchange:
    """One request while it is served."""

    request: web.BaseRequest
    method: str
    entry: Entry
    delivery: ClaudeDelivery
    member: Member | None = None
    fault: Fault | None = None
    model: ClaudeModel | None = None
    values: dict[str, str] = field(default_factory=dict)


def is_anthropic(request: web.BaseRequest) -> bool:
    """Whether a request is for this surface. Both APIs have `/v1/models`: the version header tells."""
    return request.path.startswith("/v1/messages") or "anthropic-version" in request.headers


class AnthropicSurface(Surface[_Exchange, ClaudeRefusal]):
    """Answers requests to `/v1/messages…` and, for Anthropic's clients, `/v1/models…`."""

    def __init__(
        self, config: EmulatorConfig, books: Books, faults: FaultPlan, chance: Chance, age: Age
    ) -> None:
        super().__init__(config, books, faults, chance, age)
        self._catalogue = ClaudeCatalogue(retire=config.retire_models)
        self._cache = PromptCache()
        self._serial = 0

    def reset(self) -> None:
        """Forget the cached prompts."""
        self._cache.clear()

    async def serve(self, request: web.BaseRequest, delivery: ClaudeDelivery) -> web.StreamResponse:
        """Answer one request and write it into the books."""
        self._serial += 1
        delivery.request_id = anthropic_replies.identity("req", self._config.seed, self._serial)
        value = _credential(request)
        member = self._books.member(value)
        entry = self._books.opened(member)
        exchange = _Exchange(request, _method(request), entry, delivery, member)
        return await self._conduct(exchange, self._answered(exchange, value))

    async def _refuse(self, exchange: _Exchange, refusal: ClaudeRefusal) -> web.StreamResponse:
        self._show_limits(exchange)
        return await exchange.delivery.refuse_claude(refusal)

    async def _answered(self, exchange: _Exchange, value: str) -> web.StreamResponse:
        if not value:
            raise Refused(known("claude-401-no-key", {}, "no_key"))
        if exchange.member is None:
            raise Refused(known("claude-401-key", {}, "invalid_key"))
        version = anthropic_requests.check_version(exchange.request.headers)
        if exchange.method == "claude_models":
            return await self._models(exchange, exchange.member)
        if exchange.method not in ("messages", "count_tokens"):
            raise Refused(known("claude-404-path", {}, "unknown_path"))
        body = await anthropic_requests.body(exchange.request)
        if exchange.method == "messages" and body.get("stream"):
            exchange.method = "messages_stream"
        await self._meet_fault(exchange, exchange.member, str(body.get("model", "")))
        self._check_standing(exchange, exchange.member)
        model = self._model(exchange, exchange.member, body)
        counts = exchange.method == "count_tokens"
        anthropic_requests.check_message(body, model, version, counts=counts)
        if counts:
            tokens = {"input_tokens": read_prompt(body).tokens}
            return await exchange.delivery.whole(encoded(tokens), self._injected(exchange))
        return await self._message(exchange, exchange.member, model, body)

    # ── who asks ─────────────────────────────────────────────────────────────

    async def _meet_fault(self, exchange: _Exchange, member: Member, model: str) -> None:
        exchange.values = {"model": model, "regain": _next_month(self._age.now())}
        visit = Visit(member.organisation.name, member.key, model, exchange.method, self._age.life())
        fault = exchange.fault = self._faults.pick(visit)
        if fault is None or touches_answer(fault) or fault.charge:
            return  # a charged one waits until the buckets have had their say
        await self._suffer(exchange, fault)

    async def _suffer(self, exchange: _Exchange, fault: Fault) -> None:
        """A fault that replaces the answer. Always raises `Broken`."""
        self._books.injected(exchange.entry, fault.kind)
        exchange.fault = None
        resolved = self._catalogue.resolve(exchange.values["model"], self._age.now())
        if resolved is not None:
            exchange.model, exchange.entry.model = resolved, resolved.id
        if fault.kind in BEFORE_ANSWER:
            await exchange.delivery.before(fault)
        self._show_limits(exchange)
        exchange.delivery.on_end = exchange.delivery.on_fault
        raise Broken(await exchange.delivery.refuse_claude(known(fault.kind, exchange.values)))

    def _check_key(self, member: Member) -> None:
        """What is wrong with the key or with where it is used."""
        state = member.organisation.key_states.get(member.key, "ok")
        if state != "ok":
            raise Refused(known(_KEY_STATES[state], {}, f"{state}_key"))
        if self._config.location_blocked:
            raise Refused(known("location", {}, "location"))

    def _check_standing(self, exchange: _Exchange, member: Member) -> None:
        """What is wrong with the key, what the organisation owes."""
        self._check_key(member)
        spend = member.organisation.spend
        if spend != "ok":
            raise Refused(known(_SPENDING[spend], exchange.values, "spend"))

    # ── what is asked ────────────────────────────────────────────────────────

    def _model(self, exchange: _Exchange, member: Member, body: Mapping[str, Any]) -> ClaudeModel:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            raise Refused(invalid("model: Field required"))
        model = self._catalogue.resolve(name, self._age.now())
        if model is None:
            raise Refused(known("claude-404-model", {"model": name}, "unknown_model"))
        exchange.model, exchange.entry.model = model, model.id
        if {name, model.id} & set(member.organisation.denied.get(member.key, ())):
            raise Refused(known("claude-403-permission", {}, "permission"))
        return model

    async def _admit(
        self, exchange: _Exchange, member: Member, model: ClaudeModel, spent: Spent
    ) -> Fault | None:
        """Let buckets and faults have their say. Returns a fault the answer is to suffer."""
        fault, entry = exchange.fault, exchange.entry
        if fault is None or fault.charge is not False:
            short = self._books.admit_tokens(
                member.organisation, model.names, self._age.life(), spent.input + spent.written
            )
            if not short or self._config.charge_refused:
                entry.charged = 1
            if short:
                raise Refused(too_many(short, model.id))
        entry.tokens_in = spent.input + spent.written + spent.read
        if fault is not None and not touches_answer(fault):
            await self._suffer(exchange, fault)
        return self._injected(exchange)

    # ── answers ──────────────────────────────────────────────────────────────

    async def _models(self, exchange: _Exchange, member: Member) -> web.StreamResponse:
        match = _PATH.fullmatch(exchange.request.path)
        name = match[2] if match else None
        await self._meet_fault(exchange, member, name or "")
        self._check_key(member)
        if name is None:
            shown = page(self._catalogue.listed(self._age.now()), exchange.request.query)
        else:
            shown = described(self._model(exchange, member, {"model": name}))
        return await exchange.delivery.whole(encoded(shown), self._injected(exchange))

    async def _message(
        self, exchange: _Exchange, member: Member, model: ClaudeModel, body: Mapping[str, Any]
    ) -> web.StreamResponse:
        owner, now = member.organisation.name, self._age.life()
        prompt = read_prompt(body)
        if prompt.tokens > model.input_tokens:
            most = f"{prompt.tokens} tokens > {model.input_tokens} maximum"
            raise Refused(invalid(f"prompt is too long: {most}", "too_many_tokens"))
        spent = self._cache.look(owner, prompt, now)
        fault = await self._admit(exchange, member, model, spent)
        self._cache.keep(owner, prompt, now)
        question = anthropic_replies.Question(body, model, self._config.seed, spent, self._serial)
        message = anthropic_replies.compose(question)
        _spoil(message, fault)
        self._show_limits(exchange)
        if self._chance.random() < member.organisation.retry_after_share:
            notice = {"retry-after": str(self._chance.randint(1, _LONGEST_NOTICE))}
            exchange.delivery.extra = {**exchange.delivery.extra, **notice}
        return await self._deliver(exchange, member, model, message, fault)

    async def _deliver(
        self,
        exchange: _Exchange,
        member: Member,
        model: ClaudeModel,
        message: dict[str, Any],
        fault: Fault | None,
    ) -> web.StreamResponse:
        entry, delivery = exchange.entry, exchange.delivery
        chunks = anthropic_replies.events(message)
        whole = exchange.method == "messages"

        def settled(close: Callable[[Entry], None]) -> None:
            share = 1.0 if whole else delivery.sent / len(chunks)
            if not entry.tokens_out:
                usage = message["usage"]
                entry.tokens_out = round(usage["output_tokens"] * share)
                thoughts = usage["output_tokens_details"]["thinking_tokens"]
                entry.thought_tokens = round(thoughts * share)
                self._books.charge_output(
                    member.organisation, model.names, self._age.life(), entry.tokens_out
                )
            close(entry)

        delivery.on_end = partial(settled, self._books.answered)
        delivery.on_fault = partial(settled, self._books.failed)
        try:
            if whole:
                return await delivery.whole(encoded(message), fault, len(chunks))
            return await delivery.stream(chunks, fault, sse=True)
        finally:  # done already, unless the client went away
            settled(self._books.aborted)

    # ── headers ──────────────────────────────────────────────────────────────

    def _show_limits(self, exchange: _Exchange) -> None:
        """How the buckets stand, as every answer about a model shows it."""
        if exchange.member is None or exchange.model is None:
            return
        levels = self._books.levels(
            exchange.member.organisation, exchange.model.names, self._age.life()
        )
        headers: dict[str, str] = {}
        for name, level in levels.items():
            headers |= self._limit(_HEADER_NAMES[name], level)
        both = [levels[name] for name in ("itpm", "otpm") if name in levels]
        if both:
            total = Level(
                sum(level.limit for level in both),
                sum(level.left for level in both),
                max(level.full_in for level in both),
            )
            headers |= self._limit("tokens", total)
        exchange.delivery.extra = headers

    def _limit(self, name: str, level: Level) -> dict[str, str]:
        left = max(0, math.floor(level.left))
        if name != "requests":
            left = min(level.limit, round(left / _ROUNDING) * _ROUNDING)
        full_at = datetime.fromtimestamp(math.ceil(self._age.now() + level.full_in), UTC)
        prefix = f"anthropic-ratelimit-{name}"
        return {
            f"{prefix}-limit": str(level.limit),
            f"{prefix}-remaining": str(left),
            f"{prefix}-reset": full_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def _method(request: web.BaseRequest) -> str:
    match = _PATH.fullmatch(request.path)
    if match is None:
        return ""
    if match[1].startswith("models"):
        return "claude_models" if request.method == "GET" else ""
    if request.method != "POST":
        return ""
    return "count_tokens" if match[1].endswith("count_tokens") else "messages"


def _credential(request: web.BaseRequest) -> str:
    """The key, from `x-api-key` or, as newer SDKs send it, as a bearer token."""
    if key := request.headers.get("x-api-key"):
        return key
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _next_month(now: float) -> str:
    today = datetime.fromtimestamp(now, UTC)
    year, month = divmod(today.year * 12 + today.month, 12)
    return f"{year:04d}-{month + 1:02d}-01"


def _spoil(message: dict[str, Any], fault: Fault | None) -> None:
    """Faults that are part of the answer itself."""
    if fault is None:
        return
    if fault.kind in ("blocked", "safety"):
        details = {"type": "refusal", "category": fault.reason, "explanation": None}
        message.update(content=[], stop_reason="refusal", stop_details=details)
    elif fault.kind == "finish":
        message["stop_reason"] = fault.reason or "pause_turn"
