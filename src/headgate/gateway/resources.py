"""What an upstream keeps for one project, and which project that is: files, cached contents, uploads.

Who made something is remembered from the answer that told its name. What is not remembered – another
process made it, or this one began anew – is looked for: each project's keys are asked in turn, which
uses no quota. So nothing need be written down or shared.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from dataclasses import replace
from typing import TypeVar, cast
from urllib.parse import quote, urlsplit

import msgspec

from headgate.core.call import Call, Operation, Raw, RawReply, Reply
from headgate.core.errors import HeadgateError, InvalidCallError, UpstreamError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock
from headgate.engine.passage import Passage
from headgate.gateway.problems import Headers
from headgate.gateway.surface import Route
from headgate.gateway.tickets import Tickets, Upload
from headgate.wiring.gateway import Upstream

__all__ = ["Resources", "Upload"]

MOST_KNOWN = 100_000
"""Names that are remembered; a forgotten one is looked for again."""

MOST_ASKED = 64
"""Projects that are asked for a name nobody remembers."""

NOWHERE_SECONDS = 60.0
"""How long it is believed that a name is nobody's."""

T = TypeVar("T")

_LOOK_VERSION = "v1beta"  # caches are in no other
_TOKEN = re.compile(r"(\d{1,4})\.(.*)", re.DOTALL)


class _Named(msgspec.Struct):
    name: str = ""


class _Made(msgspec.Struct):
    name: str = ""
    file: _Named = msgspec.field(default_factory=_Named)


_DECODE_MADE = msgspec.json.Decoder(_Made)
_DECODE_PAGE = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Resources:
    """Knows whose the things are that calls name.

    Args:
        seal: secret that all workers of this gateway have, see `Tickets`.
    """

    def __init__(self, clock: Clock, seal: str = "") -> None:
        self._clock = clock
        self._owners: OrderedDict[str, str] = OrderedDict()
        self._nowhere: OrderedDict[str, float] = OrderedDict()
        self._tickets = Tickets(seal)

    def upload(self, ticket: str) -> Upload | None:
        """The upload with this ticket."""
        return self._tickets.read(ticket, self._clock.wall())

    async def place(self, names: tuple[str, ...], upstream: Upstream) -> str:
        """The domain that alone may serve a call with these names; empty where any may.

        Raises `InvalidCallError` for names of two projects.
        """
        if len(upstream.engine.pool.domain_names) < 2:
            return ""
        found: dict[str, str] = {}
        for name in names:
            domain = self._owners.get(name) or await self._look_for(name, upstream)
            if domain:
                found[domain] = name
        if len(found) > 1:
            first, second, *_ = found.values()
            raise InvalidCallError(
                f"{first} and {second} belong to different projects; a call can use those of one only. "
                "Make them anew with one call after the other, or name a cache and no file."
            )
        return next(iter(found), "")

    async def _look_for(self, name: str, upstream: Upstream) -> str:
        now = self._clock.monotonic()
        if self._nowhere.get(name, 0.0) > now:
            return ""
        for domain in upstream.engine.pool.domain_names[:MOST_ASKED]:
            raw = Raw("GET", f"/{_LOOK_VERSION}/{name}", name)
            call = _aside(name, raw, domain)
            try:
                await upstream.engine.pipeline.run(call)
            except HeadgateError:
                continue  # not there, or nobody can say
            self._remember(name, domain)
            return domain
        _keep(self._nowhere, name, now + NOWHERE_SECONDS, MOST_KNOWN)
        return ""

    # ── what answers tell ───────────────────────────────────────────────────────────────────────

    def heard(
        self, route: Route, passage: Passage, raw: RawReply, caller: str, address: str
    ) -> Headers:
        """Remember what an answer tells. Headers of it beside those that pass.

        Args:
            address: of the gateway, with the surface's prefix, as the client reached it.

        Raises `UpstreamError` for an upload that is to go on at another host: no key goes there.
        """
        assert passage.lease is not None  # noqa: S101 - there is an answer
        domain = passage.lease.key.domain
        if route.method == "DELETE":
            self._owners.pop(route.resource, None)
        elif "x-goog-upload-url" in raw.headers and not route.ticket:
            upload = Upload(_local_path(raw.headers["x-goog-upload-url"], passage), domain, caller)
            ticket = self._tickets.make(upload, self._clock.wall())
            url = f"{address}{route.path}?upload_id={ticket}&upload_protocol=resumable".encode()
            return [(b"x-goog-upload-url", url), (b"x-goog-upload-control-url", url)]
        elif route.makes or route.ticket:
            self._learn(raw.body, domain)
            if raw.headers.get("x-goog-upload-status") == "final":
                self._tickets.spend(route.ticket)
        return []

    def _learn(self, body: bytes, domain: str) -> None:
        if not body:
            return
        try:
            made = _DECODE_MADE.decode(body)
        except _UNREADABLE:
            return
        if name := made.file.name or made.name:
            self._remember(name, domain)

    def _remember(self, name: str, domain: str) -> None:
        self._nowhere.pop(name, None)
        _keep(self._owners, name, domain, MOST_KNOWN)

    # ── lists ───────────────────────────────────────────────────────────────────────────────────

    async def page(self, call: Call, raw: Raw, token: str, upstream: Upstream) -> tuple[Reply, Passage]:
        """A page of what all projects keep, one project after the other: a page token says where in
        which of them. Raises `InvalidCallError` for a token that is none."""
        domains = upstream.engine.pool.domain_names
        found = _TOKEN.fullmatch(token or "0.")
        number = int(found[1]) if found else len(domains)
        if found is None or number >= len(domains):
            raise InvalidCallError("The page token is not one of this gateway's.")
        rest = found[2]
        while True:
            asked = msgspec.structs.replace(raw, path=_with_token(raw.path, rest))
            aside = _aside(call.model, asked, domains[number])
            here = msgspec.structs.replace(aside, caller=call.caller)
            answer, passage = await upstream.engine.pipeline.run(here)
            reply = cast("Reply", answer)
            sent = cast("RawReply", reply.raw)
            items = _DECODE_PAGE.decode(sent.body)
            after = items.pop("nextPageToken", None)
            more = f"{number}.{msgspec.json.decode(after)}" if after is not None else ""
            if not more and number + 1 < len(domains):
                more = f"{number + 1}."
            if items or not more:
                paged: dict[str, object] = {**items, **({"nextPageToken": more} if more else {})}
                body = msgspec.json.encode(paged) + b"\n"
                return msgspec.structs.replace(reply, raw=replace(sent, body=body)), passage
            number, rest = number + 1, ""


def _aside(name: str, raw: Raw, domain: str) -> Call:
    return Call(Operation.LIST, name, (), request_id=secrets.token_hex(8), raw=raw, domain=domain)


def _keep(kept: OrderedDict[str, T], name: str, value: T, most: int) -> None:
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > most:
        kept.popitem(last=False)


def _local_path(url: str, passage: Passage) -> str:
    """Path and query of an upload's address at the upstream that was asked."""
    assert passage.request is not None  # noqa: S101 - it was sent
    there, here = urlsplit(url), urlsplit(passage.request.url)
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        what = "The upload is to go on at another host than the one that was asked; no key goes there."
        raise UpstreamError(Outcome(Kind.PROTOCOL, what, 200))
    return f"{there.path}?{there.query}"


def _with_token(path: str, token: str) -> str:
    if not token:
        return path
    return f"{path}{'&' if '?' in path else '?'}pageToken={quote(token, safe='')}"
