"""The Gemini surface: paths, credentials, checks in the real order, and the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from headgate.emulator import dialect, embeddings, replies, requests, tokens
from headgate.emulator.books import Account, Books, Entry
from headgate.emulator.catalogue import Catalogue
from headgate.emulator.chance import Chance
from headgate.emulator.config import EmulatorConfig, Fault, Model
from headgate.emulator.delivery import Broken, Delivery
from headgate.emulator.errors import Refusal, Refused, quota_refusal, recorded
from headgate.emulator.faults import FaultPlan, Visit, touches_answer
from headgate.emulator.files import FileRoom
from headgate.emulator.listing import described, page
from headgate.emulator.surface import BEFORE_ANSWER, Age, Surface
from headgate.emulator.surface_gemini_files import FileDesk, file_method

__all__ = ["GeminiSurface", "Route", "route"]

_PATH = re.compile(r"/(v1|v1beta|v1alpha)/models(?:/([^/:]+)(?::(\w+))?)?/?")
_GENERATES = ("generateContent", "streamGenerateContent")
_EMBEDS = ("embedContent", "batchEmbedContents")
_RPC = {
    "generateContent": "GenerativeService.GenerateContent",
    "streamGenerateContent": "GenerativeService.StreamGenerateContent",
    "countTokens": "GenerativeService.CountTokens",
    "embedContent": "GenerativeService.EmbedContent",
    "batchEmbedContents": "GenerativeService.BatchEmbedContents",
    "models.list": "ModelService.ListModels",
    "models.get": "ModelService.GetModel",
}
_KEY_STATES = {
    "invalid": "400-key-invalid",
    "expired": "400-key-expired",
    "not_found": "400-key-not-found",
    "rejected": "401-token-type",
    "leaked": "403-leaked",
    "suspended": "403-suspended",
    "service_blocked": "403-service-blocked",
    "referer": "403-referer",
}


@dataclass(frozen=True)
class Route:
    """What a path asks for. `method` is empty for a path there is nothing behind."""

    version: str
    model: str
    method: str


def route(http_method: str, path: str) -> Route:
    """Read a path; versions v1, v1beta and v1alpha are served alike."""
    match = _PATH.fullmatch(path)
    if match is None:
        return Route("v1beta", "", "")
    version, model, method = match[1], match[2] or "", match[3] or ""
    if http_method == "GET" and not method:
        return Route(version, model, "models.get" if model else "models.list")
    return Route(version, model, method if http_method == "POST" else "")


@dataclass
class _Exchange:
    """One request while it is served."""

    request: web.BaseRequest
    route: Route
    entry: Entry
    delivery: Delivery
    key: str = field(default="", repr=False)
    fault: Fault | None = None
    body: Mapping[str, Any] | None = None

    @property
    def values(self) -> dict[str, str]:
        """What recorded error bodies repeat from the request."""
        name = self.route.model
        rpc = _RPC.get(self.route.method, "GenerativeService.GenerateContent")
        return {
            "key": self.key,
            "model": name,
            "family": name,
            "method": self.route.method,
            "version": self.route.version,
            "rpc": f"google.ai.generativelanguage.{self.route.version}.{rpc}",
        }

    @property
    def account(self) -> Account:
        if isinstance(self.entry.account, Account):
            return self.entry.account
        raise LookupError("asked for the account of a request whose key nobody knows")


class GeminiSurface(Surface[_Exchange, Refusal]):
    """Answers requests to `/v1…/models…`."""

    def __init__(
        self, config: EmulatorConfig, books: Books, faults: FaultPlan, chance: Chance, age: Age
    ) -> None:
        super().__init__(config, books, faults, chance, age)
        self._catalogue = Catalogue(config)
        self.files = FileDesk(FileRoom(config.file_seconds))
        self._serial = 0

    async def serve(self, request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
        """Answer one request and write it into the books."""
        value, credentials = _credential(request)
        account = self._books.account(value)
        asked = route(request.method, request.path)
        if method := file_method(request):
            asked = Route("v1beta", "", method)
            owner = None if value else self.files.uploader(request)
            if owner is not None:  # its address is as good as a key
                account = self._books.any_account(owner)
                value, credentials = "-", 1
        exchange = _Exchange(request, asked, self._books.opened(account), delivery, value)
        return await self._conduct(exchange, self._answered(exchange, credentials))

    async def _refuse(self, exchange: _Exchange, refusal: Refusal) -> web.StreamResponse:
        return await exchange.delivery.refuse(refusal, wrapped=_list_wrapped(exchange))

    async def _answered(self, exchange: _Exchange, credentials: int) -> web.StreamResponse:
        self._check_credentials(exchange, credentials)
        await self._meet_fault(exchange)
        self._check_standing(exchange)
        method = exchange.route.method
        if method in ("models.list", "models.get"):
            return await self._show(exchange)
        if method.startswith("files."):
            return await self._file(exchange)
        if method in _GENERATES:
            return await self._generate(exchange)
        if method in _EMBEDS:
            return await self._embed(exchange)
        if method == "countTokens":
            return await self._count(exchange)
        kind = "404-unknown-model" if exchange.route.model and method else "404-entity"
        raise Refused(recorded(kind, exchange.values, "unknown_path"))

    # ── who asks ─────────────────────────────────────────────────────────────

    def _check_credentials(self, exchange: _Exchange, credentials: int) -> None:
        if credentials > 1:
            raise Refused(recorded("400-two-credentials", exchange.values, "two_credentials"))
        if not exchange.key:
            bearer = "Authorization" in exchange.request.headers
            kind, reason = ("401-token-type", "bearer") if bearer else ("403-no-key", "no_key")
            raise Refused(recorded(kind, exchange.values, reason))
        if exchange.entry.account is None:
            raise Refused(recorded("400-key-invalid", exchange.values, "invalid_key"))

    def _check_standing(self, exchange: _Exchange) -> None:
        """Where it comes from, what is wrong with the key, what the project owes."""
        if self._config.location_blocked:
            raise Refused(recorded("400-location", exchange.values, "location"))
        account = exchange.account
        state = account.project.key_states.get(account.key, "ok")
        if state != "ok":
            raise Refused(recorded(_KEY_STATES[state], exchange.values, f"{state}_key"))
        if account.project.prepaid_empty:
            raise Refused(recorded("429-prepaid-empty", exchange.values, "prepaid_empty"))

    async def _meet_fault(self, exchange: _Exchange) -> None:
        account, name = exchange.account, exchange.route.model
        at = self._age.life()
        visit = Visit(account.project.name, account.key, name, exchange.route.method, at)
        fault = exchange.fault = self._faults.pick(visit)
        if fault is None or touches_answer(fault):
            return
        charged = fault.charge and exchange.route.method in (*_GENERATES, *_EMBEDS)
        if not charged:  # a charged one waits until the quotas have had their say
            await self._suffer(exchange, fault)

    async def _suffer(self, exchange: _Exchange, fault: Fault) -> None:
        """A fault that replaces the answer. Always raises `Broken`."""
        self._books.injected(exchange.entry, fault.kind)
        exchange.fault = None
        resolved = self._catalogue.resolve(
            exchange.route.model, exchange.route.version, self._age.now()
        )
        if resolved is not None:
            exchange.entry.model = resolved.id
        if fault.kind in BEFORE_ANSWER:
            await exchange.delivery.before(fault)
        family = (resolved.quota_family or resolved.id) if resolved else exchange.route.model
        refusal = recorded(fault.kind, {**exchange.values, "family": family})
        exchange.delivery.on_end = exchange.delivery.on_fault
        response = await exchange.delivery.refuse(refusal, wrapped=_list_wrapped(exchange))
        raise Broken(response)

    # ── what is asked ────────────────────────────────────────────────────────

    def _model(self, exchange: _Exchange, kinds: tuple[str, ...]) -> Model:
        name, account = exchange.route.model, exchange.account
        model = self._catalogue.resolve(name, exchange.route.version, self._age.now())
        names = {name, model.id} if model else {name}
        if names & set(account.project.closed_models):
            raise Refused(recorded("404-closed-to-new-projects", exchange.values, "closed_model"))
        if model is None or (kinds and model.kind not in kinds):
            raise Refused(recorded("404-unknown-model", exchange.values, "unknown_model"))
        exchange.entry.model = model.id
        if names & set(account.project.denied.get(account.key, ())):
            raise Refused(recorded("403-model-denied", exchange.values, "permission"))
        return model

    async def _admit(self, exchange: _Exchange, model: Model, count: int, amount: int) -> Fault | None:
        """Let quotas and faults have their say. Returns a fault the answer is to suffer."""
        fault = exchange.fault
        if fault is None or fault.charge is not False:
            short = self._books.admit(exchange.account, model, self._age.life(), count, amount)
            if not short or self._config.charge_refused:
                exchange.entry.charged = count
            if short:
                raise Refused(self._quota(exchange, model, short))
        exchange.entry.tokens_in = amount
        if fault is not None and not touches_answer(fault):
            await self._suffer(exchange, fault)
        return self._injected(exchange)

    def _quota(self, exchange: _Exchange, model: Model, short: list[Any]) -> Refusal:
        return quota_refusal(
            short,
            family=model.quota_family or model.id,
            tier=exchange.account.project.tier,
            embedding=model.kind == "embedding",
            form=self._config.quota_errors,
            rounding=self._config.retry_delay,
            chance=self._chance,
        )

    # ── answers ──────────────────────────────────────────────────────────────

    async def _show(self, exchange: _Exchange) -> web.StreamResponse:
        if exchange.route.method == "models.get":
            shown = described(exchange.route.model, self._model(exchange, ()))
        else:
            listed = self._catalogue.listed(exchange.route.version, self._age.now())
            shown = page(listed, exchange.request.query)
        return await exchange.delivery.whole(dialect.pretty(shown), self._injected(exchange))

    async def _file(self, exchange: _Exchange) -> web.StreamResponse:
        project, delivery = exchange.account.project, exchange.delivery
        shown, delivery.more_headers = await self.files.answer(
            exchange.route.method, exchange.request, project, self._age.now()
        )
        return await delivery.whole(dialect.pretty(shown), self._injected(exchange))

    def _check_file(self, exchange: _Exchange, name: str) -> None:
        self.files.room.check(name, exchange.account.project.name, self._age.now())

    async def _generate(self, exchange: _Exchange) -> web.StreamResponse:
        model = self._model(exchange, ("text", "image"))
        body = await requests.body(
            exchange.request, "GenerateContentRequest", strict=self._config.strict_fields
        )
        prompt = tokens.of_request(body, model.image_tokens)
        requests.check_resources(body, partial(self._check_file, exchange))
        requests.check_generate(body, model, self._config, prompt)
        fault = await self._admit(exchange, model, 1, sum(prompt.values()))
        self._serial += 1
        question = replies.Question(body, model, self._config.seed, prompt, self._serial)
        answer = replies.compose(question)
        _spoil(answer, fault)
        exchange.delivery.tier = answer.tier
        return await self._deliver(exchange, answer, fault)

    async def _deliver(
        self, exchange: _Exchange, answer: replies.Answer, fault: Fault | None
    ) -> web.StreamResponse:
        entry, delivery = exchange.entry, exchange.delivery
        chunks = answer.chunks(fault.after if fault else 1)
        if exchange.route.method == "generateContent":
            whole = answer.whole()

            def answered() -> None:
                _spent(entry, whole)
                self._books.answered(entry)

            delivery.on_end = answered
            return await delivery.whole(dialect.pretty(whole), fault, len(chunks))

        def settled(close: Callable[[Entry], None]) -> None:
            if delivery.sent:
                _spent(entry, chunks[delivery.sent - 1])
            close(entry)

        delivery.on_end = partial(settled, self._books.answered)
        delivery.on_fault = partial(settled, self._books.failed)
        try:
            return await delivery.stream(chunks, fault, sse=exchange.request.query.get("alt") == "sse")
        finally:  # done already, unless the client went away
            settled(self._books.aborted)

    async def _embed(self, exchange: _Exchange) -> web.StreamResponse:
        model = self._model(exchange, ("embedding",))
        batch = exchange.route.method == "batchEmbedContents"
        message = "BatchEmbedContentsRequest" if batch else "EmbedContentRequest"
        body = await requests.body(exchange.request, message, strict=self._config.strict_fields)
        items = body.get("requests", []) if batch else [body]
        requests.check_embed(items, model, batch=batch)
        prompt = embeddings.tally(items)
        fault = await self._admit(exchange, model, len(items), sum(prompt.values()))
        raw = embeddings.reply(items, model, prompt, batch=batch)
        return await exchange.delivery.whole(raw, fault)

    async def _count(self, exchange: _Exchange) -> web.StreamResponse:
        model = self._model(exchange, ())
        body = await requests.body(
            exchange.request, "CountTokensRequest", strict=self._config.strict_fields
        )
        counted = requests.countable(body)
        requests.check_resources(counted, partial(self._check_file, exchange))
        tally = tokens.of_request(counted, model.image_tokens)
        answer = {"totalTokens": sum(tally.values()), "promptTokensDetails": tokens.details(tally)}
        fault = self._injected(exchange)
        return await exchange.delivery.whole(dialect.pretty(answer), fault)


def _credential(request: web.BaseRequest) -> tuple[str, int]:
    """(the key or "", how many credentials were sent)."""
    keys = [*request.headers.getall("x-goog-api-key", []), *request.query.getall("key", [])]
    bearer = len(request.headers.getall("Authorization", []))
    return (keys[0] if keys else ""), len(keys) + bearer


def _list_wrapped(exchange: _Exchange) -> bool:
    return (
        exchange.route.method == "streamGenerateContent" and exchange.request.query.get("alt") != "sse"
    )


def _spoil(answer: replies.Answer, fault: Fault | None) -> None:
    """Faults that are part of the answer itself."""
    if fault is None:
        return
    if fault.kind == "blocked":
        answer.block = fault.reason or "PROHIBITED_CONTENT"
    elif fault.kind.startswith("safety"):
        answer.safety = fault.kind
    elif fault.kind == "finish":
        for draft in answer.drafts:
            draft.finish = fault.reason or "RECITATION"


def _spent(entry: Entry, reply: Mapping[str, Any]) -> None:
    usage = reply["usageMetadata"]
    entry.thought_tokens = usage.get("thoughtsTokenCount", 0)
    entry.tokens_out = usage.get("candidatesTokenCount", 0) + entry.thought_tokens
