"""The OpenAI surface: paths, credentials, checks in the real order, and the answers.

`/v1beta/openai/…` is the same with the errors of Gemini's own compatible endpoint, wrapped in a list.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from headgate.emulator import openai_replies, openai_requests
from headgate.emulator.books import Books, Entry, Level, Tenant
from headgate.emulator.chance import Chance
from headgate.emulator.config import EmulatorConfig, Fault
from headgate.emulator.delivery import Broken
from headgate.emulator.errors import Refused, Shortage
from headgate.emulator.faults import FaultPlan, Visit, touches_answer
from headgate.emulator.openai_catalogue import OpenAICatalogue, OpenAIModel, described
from headgate.emulator.openai_delivery import OpenAIDelivery, encoded
from headgate.emulator.openai_errors import OpenAIRefusal, Short, go_duration, invalid, known, too_many
from headgate.emulator.surface import BEFORE_ANSWER, Age, Surface

__all__ = ["OpenAISurface", "is_openai"]

_GOOGLE = "/v1beta/openai"
_PATH = re.compile(r"(?:/v1|/v1beta/openai)/(chat/completions|embeddings|models(?:/(.+?))?)/?")
_KEY_STATES = {"invalid": "openai-401-key", "deactivated": "openai-401-deactivated"}
_CREDIT = {"used_up": "openai-429-quota", "hard_limit": "openai-400-hard-limit"}
_METHODS = {"chat/completions": "chat.completions", "embeddings": "embeddings"}


@dataclass
class _Exchange:
    """One request while it is served."""

    request: web.BaseRequest
    method: str
    entry: Entry
    delivery: OpenAIDelivery
    tenant: Tenant | None = None
    fault: Fault | None = None
    model: OpenAIModel | None = None
    values: dict[str, str] = field(default_factory=dict)

    def named(self, model: OpenAIModel) -> None:
        """The model is known now."""
        self.model, self.entry.model = model, model.id


def is_openai(request: web.BaseRequest) -> bool:
    """Whether a request is for this surface. Gemini has `/v1/models` too: there keys come otherwise."""
    path = request.path
    if path.startswith(("/v1/chat/", "/v1/embeddings", _GOOGLE)):
        return True
    listed = request.method == "GET" and (path == "/v1/models" or path.startswith("/v1/models/"))
    google = "x-goog-api-key" in request.headers or "key" in request.query
    return listed and not google and "Authorization" in request.headers


class OpenAISurface(Surface[_Exchange, OpenAIRefusal]):
    """Answers requests to chat completions, embeddings and the list of models."""

    def __init__(
        self, config: EmulatorConfig, books: Books, faults: FaultPlan, chance: Chance, age: Age
    ) -> None:
        super().__init__(config, books, faults, chance, age)
        self._catalogue = OpenAICatalogue()
        self._serial = 0

    async def serve(self, request: web.BaseRequest, delivery: OpenAIDelivery) -> web.StreamResponse:
        """Answer one request and write it into the books."""
        self._serial += 1
        delivery.request_id = openai_replies.identity("req_", self._config.seed, self._serial)
        value = _credential(request)
        tenant = self._books.tenant(value)
        if tenant is not None:
            delivery.organisation = tenant.organisation.name
            delivery.deviations = list(tenant.organisation.deviations)
        if request.path.startswith(_GOOGLE):
            delivery.deviations = [*delivery.deviations, "list_errors"]
        exchange = _Exchange(request, _method(request), self._books.opened(tenant), delivery, tenant)
        return await self._conduct(exchange, self._answered(exchange, value))

    async def _refuse(self, exchange: _Exchange, refusal: OpenAIRefusal) -> web.StreamResponse:
        self._show_limits(exchange)
        return await exchange.delivery.refuse_openai(refusal)

    async def _answered(self, exchange: _Exchange, value: str) -> web.StreamResponse:
        if not value:
            raise Refused(known("openai-401-no-key", {}, "no_key"))
        if exchange.tenant is None:
            raise Refused(known("openai-401-key", {"masked": _masked(value)}, "invalid_key"))
        exchange.values = {
            "organisation": exchange.tenant.organisation.name, "masked": _masked(value),
            "method": exchange.request.method, "path": exchange.request.path,
        }  # fmt: skip
        if not exchange.method:
            raise Refused(known("openai-404-path", exchange.values, "unknown_path"))
        if exchange.method == "openai_models":
            return await self._models(exchange, exchange.tenant)
        body = await openai_requests.body(exchange.request)
        if exchange.method == "chat.completions" and body.get("stream"):
            exchange.method = "chat.completions_stream"
        await self._meet_fault(exchange, exchange.tenant, str(body.get("model", "")))
        self._check_standing(exchange, exchange.tenant)
        model = self._model(exchange, exchange.tenant, body)
        if exchange.method == "embeddings":
            return await self._embeddings(exchange, exchange.tenant, model, body)
        return await self._chat(exchange, exchange.tenant, model, body)

    # ── who asks ─────────────────────────────────────────────────────────────

    async def _meet_fault(self, exchange: _Exchange, tenant: Tenant, model: str) -> None:
        exchange.values["model"] = model
        visit = Visit(tenant.organisation.name, tenant.key, model, exchange.method, self._age.life())
        fault = exchange.fault = self._faults.pick(visit)
        if fault is None or touches_answer(fault) or fault.charge:
            return  # a charged one waits until the buckets have had their say
        await self._suffer(exchange, fault)

    async def _suffer(self, exchange: _Exchange, fault: Fault) -> None:
        """A fault that replaces the answer. Always raises `Broken`."""
        self._books.injected(exchange.entry, fault.kind)
        exchange.fault = None
        resolved = self._resolved(exchange, exchange.values["model"])
        if resolved is not None:
            exchange.named(resolved)
        if fault.kind in BEFORE_ANSWER:
            await exchange.delivery.before(fault)
        self._show_limits(exchange)
        exchange.delivery.on_end = exchange.delivery.on_fault
        raise Broken(await exchange.delivery.refuse_openai(known(fault.kind, exchange.values)))

    def _check_key(self, exchange: _Exchange, tenant: Tenant) -> None:
        """What is wrong with the key or with where it is used."""
        state = tenant.organisation.key_states.get(tenant.key, "ok")
        if state != "ok":
            raise Refused(known(_KEY_STATES[state], exchange.values, f"{state}_key"))
        if self._config.location_blocked:
            raise Refused(known("location", {}, "location"))

    def _check_standing(self, exchange: _Exchange, tenant: Tenant) -> None:
        """What is wrong with the key, what the organisation owes."""
        self._check_key(exchange, tenant)
        credit = tenant.organisation.credit
        if credit != "ok":
            raise Refused(known(_CREDIT[credit], exchange.values, "spend"))

    # ── what is asked ────────────────────────────────────────────────────────

    def _model(self, exchange: _Exchange, tenant: Tenant, body: Mapping[str, Any]) -> OpenAIModel:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            raise Refused(invalid("you must provide a model parameter"))
        exchange.values["model"] = name
        model = self._resolved(exchange, name)
        if model is None:
            raise Refused(known("openai-404-model", exchange.values, "unknown_model"))
        exchange.named(model)
        if {name, model.id} & set(tenant.organisation.denied.get(tenant.key, ())):
            raise Refused(known("openai-403-model", exchange.values, "permission"))
        return model

    def _resolved(self, exchange: _Exchange, name: str) -> OpenAIModel | None:
        tenant = exchange.tenant
        return self._catalogue.resolve(name, () if tenant is None else tenant.organisation.models)

    async def _admit(
        self, exchange: _Exchange, tenant: Tenant, model: OpenAIModel, prompt: int, bound: int
    ) -> Fault | None:
        """Let buckets and faults have their say. Returns a fault the answer is to suffer."""
        fault, entry, organisation = exchange.fault, exchange.entry, tenant.organisation
        if fault is None or fault.charge is not False:
            asked = prompt + (bound if organisation.counting == "requested" else 0)
            life = self._age.life()
            short = self._books.admit_call(organisation, model.names, life, asked)
            if not short or self._config.charge_refused:
                entry.charged = 1
            if short:
                raise Refused(self._too_many(tenant, model, short, asked))
        entry.tokens_in = prompt
        if fault is not None and not touches_answer(fault):
            await self._suffer(exchange, fault)
        return self._injected(exchange)

    def _too_many(
        self, tenant: Tenant, model: OpenAIModel, short: list[Shortage], asked: int
    ) -> OpenAIRefusal:
        longest = max(short, key=lambda shortage: shortage.wait)
        levels = self._books.levels(tenant.organisation, model.names, self._age.life())
        level = levels[longest.quota]
        used = min(level.limit, math.ceil(level.limit - level.left))
        lacks = Short(
            longest.quota, level.limit, used, asked if longest.quota == "tpm" else 1, longest.wait
        )
        named = model.id if model.id == model.names[0] else f"{model.id} (for limit {model.names[0]})"
        return too_many(lacks, named, tenant.organisation.name)

    # ── answers ──────────────────────────────────────────────────────────────

    async def _models(self, exchange: _Exchange, tenant: Tenant) -> web.StreamResponse:
        match = _PATH.fullmatch(exchange.request.path)
        name = unquote(match[2]) if match and match[2] else None
        await self._meet_fault(exchange, tenant, name or "")
        self._check_key(exchange, tenant)
        if name is None:
            listed = [described(m) for m in self._catalogue.listed(tenant.organisation.models)]
            shown: dict[str, Any] = {"object": "list", "data": listed}
        else:
            shown = described(self._model(exchange, tenant, {"model": name}))
        return await exchange.delivery.whole(encoded(shown), self._injected(exchange))

    async def _embeddings(
        self, exchange: _Exchange, tenant: Tenant, model: OpenAIModel, body: Mapping[str, Any]
    ) -> web.StreamResponse:
        openai_requests.check_embedding(body, model)
        numbers = body.get("encoding_format") != "base64"
        answer, spent = openai_replies.embedded(
            openai_requests.texts(body),
            model,
            body.get("dimensions") or model.dimensions,
            numbers=numbers or "float_vectors" in tenant.organisation.deviations,
        )
        fault = await self._admit(exchange, tenant, model, spent, 0)
        self._show_limits(exchange)
        if "no_usage" in tenant.organisation.deviations:
            del answer["usage"]
        return await exchange.delivery.whole(encoded(answer), fault)

    async def _chat(
        self, exchange: _Exchange, tenant: Tenant, model: OpenAIModel, body: Mapping[str, Any]
    ) -> web.StreamResponse:
        openai_requests.check_chat(body, model)
        prompt = openai_requests.prompt_tokens(body)
        if prompt > model.context:
            values = {"context": str(model.context), "tokens": str(prompt)}
            raise Refused(known("openai-400-context", values, "too_many_tokens"))
        bound = openai_requests.bound(body) or 0
        fault = await self._admit(exchange, tenant, model, prompt, bound)
        seed, now = self._config.seed, self._age.now()
        question = openai_replies.Question(body, model, seed, prompt, self._serial, now)
        completion = openai_replies.compose(question)
        _spoil(completion, fault)
        self._show_limits(exchange)
        return await self._deliver(exchange, tenant, model, completion, body, fault)

    async def _deliver(
        self,
        exchange: _Exchange,
        tenant: Tenant,
        model: OpenAIModel,
        completion: dict[str, Any],
        body: Mapping[str, Any],
        fault: Fault | None,
    ) -> web.StreamResponse:
        entry, delivery, organisation = exchange.entry, exchange.delivery, tenant.organisation
        usage = completion["usage"]
        tells = "no_usage" not in organisation.deviations
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        chunks = openai_replies.chunks(completion, usage=asked and tells)
        whole = exchange.method == "chat.completions"

        def settled(close: Callable[[Entry], None]) -> None:
            share = 1.0 if whole else delivery.sent / len(chunks)
            if not entry.tokens_out:
                entry.tokens_out = round(usage["completion_tokens"] * share)
                thoughts = usage["completion_tokens_details"]["reasoning_tokens"]
                entry.thought_tokens = round(thoughts * share)
                if organisation.counting == "used":
                    life = self._age.life()
                    self._books.charge_output(organisation, model.names, life, entry.tokens_out)
            close(entry)

        delivery.on_end = partial(settled, self._books.answered)
        delivery.on_fault = partial(settled, self._books.failed)
        try:
            if whole:
                shown = completion if tells else {**completion, "usage": None}
                return await delivery.whole(encoded(shown), fault, len(chunks))
            return await delivery.stream(chunks, fault, sse=True)
        finally:  # done already, unless the client went away
            settled(self._books.aborted)

    # ── headers ──────────────────────────────────────────────────────────────

    def _show_limits(self, exchange: _Exchange) -> None:
        """How the buckets stand, as every answer about a model shows it; of requests those of the day,
        where there are such."""
        if exchange.tenant is None or exchange.model is None:
            return
        organisation = exchange.tenant.organisation
        if "no_limit_headers" in organisation.deviations:
            return
        levels = self._books.levels(organisation, exchange.model.names, self._age.life())
        headers: dict[str, str] = {}
        for what, level in (("requests", levels.get("rpd") or levels.get("rpm")),
                            ("tokens", levels.get("tpm"))):  # fmt: skip
            if level is not None:
                headers |= _limit(what, level)
        exchange.delivery.extra = headers


def _limit(what: str, level: Level) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(level.limit),
        f"x-ratelimit-remaining-{what}": str(max(0, math.floor(level.left))),
        f"x-ratelimit-reset-{what}": go_duration(level.full_in),
    }


def _method(request: web.BaseRequest) -> str:
    match = _PATH.fullmatch(request.path)
    if match is None:
        return ""
    if match[1].startswith("models"):
        return "openai_models" if request.method == "GET" else ""
    return _METHODS[match[1]] if request.method == "POST" else ""


def _credential(request: web.BaseRequest) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _masked(value: str) -> str:
    """As the real API repeats a key: its first and its last characters."""
    return f"{value[:3]}***{value[-4:]}" if len(value) > 12 else "***"


def _spoil(completion: dict[str, Any], fault: Fault | None) -> None:
    """Faults that are part of the answer itself."""
    if fault is None:
        return
    first = completion["choices"][0]
    if fault.kind == "blocked":
        first.update(finish_reason="content_filter")
        first["message"].update(content=None, tool_calls=None)
    elif fault.kind == "safety":
        first.update(finish_reason="stop")
        first["message"].update(content=None, tool_calls=None, refusal="I can't help with that.")
    elif fault.kind == "finish":
        first["finish_reason"] = fault.reason or "length"
