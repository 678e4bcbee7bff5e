"""Every span that Headgate makes: its name, kind and parent, and what it says when.

The reference of spans is made of this (`python -m tools.reference`), and tests hold what is exported to
it, in both directions. Who gives a span another attribute writes it down here.

Names under `gen_ai.`, `http.`, `url.`, `server.`, `network.` and `error.` are those of OpenTelemetry's
conventions, `headgate.` is ours, and four names of HTTP's are kept as they were accepted (S2-23).
"""

from __future__ import annotations

import re

from msgspec import Struct

from headgate.core.call import Operation

__all__ = ["SPANS", "STAGES", "Attribute", "Event", "SpanEntry", "entry_of"]


class Attribute(Struct, frozen=True):
    """An attribute of a span or event.

    Attributes:
        name: of the attribute.
        meaning: what it says, with its unit.
        when: on which spans it is; empty: on all.
    """

    name: str
    meaning: str
    when: str = ""


class Event(Struct, frozen=True):
    """An event of a span: its name, when there is one, and what it says."""

    name: str
    when: str
    attributes: tuple[Attribute, ...]


class SpanEntry(Struct, frozen=True):
    """A span.

    Attributes:
        title: what it is of.
        name: as it is shown, with what differs in angle brackets.
        pattern: what matches its names and no other entry's of this kind.
        kind: as OpenTelemetry calls it.
        parent: whose child it is.
        attributes: all it can have.
        events: all it can have.
        is_open: whether who makes it may add attributes of his own.
    """

    title: str
    name: str
    pattern: str
    kind: str
    parent: str
    attributes: tuple[Attribute, ...] = ()
    events: tuple[Event, ...] = ()
    is_open: bool = False


STAGES = ("prepare", "recall", "degrade", "admit", "upload", "attempt", "protect", "reserve", "watch")
"""Stages of the path that can have a span; of hedge and send those of attempts tell."""

_OPERATIONS = ("generate_content", "chat", "embeddings", "count_tokens", "list")
_OF_CONTENT = "`capture_content` is on"
_SAID = "the call says so"
_TOLD = "the upstream told"

_MODEL = (
    Attribute("gen_ai.operation.name", f"{', '.join(f'`{name}`' for name in _OPERATIONS)}"),
    Attribute("gen_ai.provider.name", "`gcp.gemini`, `anthropic`, `openai`; else as it is configured"),
    Attribute("gen_ai.request.model", "the model; of a call at most 200 characters"),
)
_ERROR = Attribute("error.type", "the kind of the error; `cancelled` is no error", "it did not succeed")
_ALIAS = "the name of the key from the configuration, never the key"

_REQUEST = SpanEntry(
    "A request that is served",
    "<method> <route>",
    r"(GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|QUERY|_OTHER) .*",
    "SERVER",
    "the client's span of `traceparent`, or none",
    (
        Attribute("http.request.method", "the method, from a closed set; `_OTHER` of others"),
        Attribute(
            "http.request.method_original", "the method, to 32 characters", "the method is `_OTHER`"
        ),
        Attribute("http.route", "the template of the path", "a route took it"),
        Attribute("http.response.status_code", "of the answer", "there was an answer"),
        Attribute("url.path", "the path, without the query"),
        Attribute("url.scheme", "`http`, `https`"),
        Attribute("server.address", "where it was served", "the server tells"),
        Attribute("server.port", "where it was served", "the server tells"),
        Attribute("network.protocol.version", "of HTTP"),
        Attribute(
            "error.type",
            "a status from 500 up, the class of what was raised, or `cancelled`: its client went away",
            "it failed, or was given up",
        ),
        Attribute("http.method", "as accepted: `http.request.method`"),
        Attribute("http.url", "as accepted: the URL without its query"),
        Attribute("http.scheme", "as accepted: `url.scheme`"),
        Attribute(
            "http.status_code", "as accepted: `http.response.status_code`", "there was an answer"
        ),
        Attribute("headgate.request_id", "the header's text", "the answer has `x-headgate-request-id`"),
    ),
)

_CALL = SpanEntry(
    "A call",
    "headgate.call <operation>",
    rf"headgate\.call ({'|'.join(operation.value for operation in Operation)})",
    "INTERNAL",
    "the request, or what is current where the call is made",
    (
        *_MODEL,
        Attribute("headgate.request_id", "the id in log lines and errors"),
        Attribute(
            "headgate.priority", "`critical`, `high`, `normal`, `low` or what else `Priority` has"
        ),
        Attribute("headgate.attempts", "how many there were"),
        Attribute("headgate.rotations", "how often it went to another key"),
        Attribute("headgate.retries", "how often it was tried again"),
        Attribute("headgate.waited_seconds", "s of waiting in all"),
        Attribute("headgate.cached", "whether a kept answer was given"),
        Attribute("headgate.key_alias", _ALIAS, "a key answered"),
        Attribute("headgate.fallback", "what stood in for the model's answer", "something did"),
        Attribute("headgate.redactions", "pieces of personal data taken out", "the call was prepared"),
        Attribute("headgate.injection_score", "0 to 1", "the call was prepared"),
        Attribute("gen_ai.response.model", "which model answered", _TOLD),
        Attribute("gen_ai.response.id", "the upstream's id of the answer", _TOLD),
        Attribute("gen_ai.response.finish_reasons", "why the answer ended", _TOLD),
        Attribute("gen_ai.input.messages", "the prompt, without keys and personal data", _OF_CONTENT),
        Attribute("gen_ai.system_instructions", "likewise", _OF_CONTENT),
        Attribute("gen_ai.output.messages", "likewise; not what a stream said", _OF_CONTENT),
        _ERROR,
    ),
    (
        Event(
            "headgate.wait",
            "at each wait",
            (
                Attribute("headgate.wait.reason", "`key`, `retry`"),
                Attribute("headgate.wait.seconds", "s that it is to last"),
            ),
        ),
    ),
)

_ATTEMPT = SpanEntry(
    "An attempt",
    "<gen_ai.operation.name> <model>",
    rf"({'|'.join(_OPERATIONS)})( .+)?",
    "CLIENT",
    "the call",
    (
        *_MODEL,
        Attribute("gen_ai.request.max_tokens", "tokens", _SAID),
        Attribute("gen_ai.request.temperature", "as asked", _SAID),
        Attribute("gen_ai.request.top_p", "as asked", _SAID),
        Attribute("gen_ai.request.top_k", "as asked", _SAID),
        Attribute("gen_ai.request.seed", "as asked", _SAID),
        Attribute("gen_ai.request.choice.count", "candidates asked for", _SAID),
        Attribute("gen_ai.request.frequency_penalty", "as asked", _SAID),
        Attribute("gen_ai.request.presence_penalty", "as asked", _SAID),
        Attribute("gen_ai.request.stop_sequences", "without keys and personal data", _SAID),
        Attribute("gen_ai.output.type", "`json`", "JSON is asked for"),
        Attribute("gen_ai.request.stream", "`true`", "of a stream"),
        Attribute("gen_ai.usage.input_tokens", "with what came from a cache", _TOLD),
        Attribute("gen_ai.usage.output_tokens", "with reasoning", _TOLD),
        Attribute("gen_ai.usage.cache_read.input_tokens", "tokens", "it is not 0"),
        Attribute("gen_ai.usage.cache_creation.input_tokens", "tokens", "it is not 0"),
        Attribute("gen_ai.usage.reasoning.output_tokens", "tokens", "it is not 0"),
        Attribute(
            "gen_ai.response.time_to_first_chunk", "s from the lease", "a stream's first piece came"
        ),
        Attribute("http.response.status_code", "of the upstream", "it answered"),
        Attribute("http.request.resend_count", "attempts before it", "from the second attempt on"),
        Attribute("headgate.attempt", "its number, from 1"),
        Attribute("headgate.key_alias", _ALIAS),
        Attribute("headgate.quota_domain", "what shares a quota with the key, from the configuration"),
        Attribute("headgate.upstream_id", "the upstream's id of the exchange", _TOLD),
        _ERROR,
    ),
)

_STAGE = SpanEntry(
    "A stage that took a millisecond or more of its own",
    "headgate.<stage>",
    rf"headgate\.({'|'.join(STAGES)})",
    "INTERNAL",
    "the call",
)

_TYPE = Attribute("exception.type", "its class, with the module")

_OWN = SpanEntry(
    "Your own, by `trace_span` and `trace_operation`",
    "<as given>",
    r"(?!headgate\.).*",
    "INTERNAL",
    "what is current",
    (
        Attribute("function.name", "the qualified name", "`trace_operation` made it"),
        Attribute("function.module", "where the function is", "`trace_operation` made it"),
        Attribute("error.type", "the class of the exception, with the module", "it raised"),
    ),
    (
        Event(
            "exception",
            "it raised",
            (
                _TYPE,
                Attribute("exception.message", "without keys and personal data, to 500 characters"),
                Attribute("exception.stacktrace", "likewise, the last 8,000 characters"),
            ),
        ),
    ),
    is_open=True,
)

SPANS = (_REQUEST, _CALL, _ATTEMPT, _STAGE, _OWN)
"""All of them; a span of an open entry may have other attributes besides."""


def entry_of(name: str, kind: str) -> SpanEntry | None:
    """The entry of a span, by its name and kind (`SERVER`); None where there is none."""
    found = (one for one in SPANS if one.kind == kind and re.fullmatch(one.pattern, name, re.DOTALL))
    return next(found, None)
