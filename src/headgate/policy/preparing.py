"""The texts of a call, looked through and changed before they leave: cleaned, scored, redacted.

Looked through is everything a person may have written: the system instruction, the turns of the
conversation, the prompt, and files of text in UTF-8. Names and descriptions of tools and schemas are
the developer's and stay as they are; images and other media are not looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from msgspec import structs

from headgate.core.call import Blob, Call, Part, Preparation, Role, Turn, Upload
from headgate.policy.privacy.markers import Redaction, take_out
from headgate.policy.screening.invisible import clean
from headgate.policy.screening.signals import Signals, escape_template_tokens, signals

__all__ = ["Prepared", "map_piece", "prepared"]

Visit = Callable[[str, bool], str]
"""Gets a text and whether somebody outside wrote it; gives what is to stand in its place."""

_PAYLOADS = {"functionCall": "args", "functionResponse": "response"}
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/x-ndjson")


class Prepared(NamedTuple):
    """A call that may leave, and what was found in it."""

    call: Call
    redaction: Redaction | None = None
    hidden: int = 0
    score: float = 0.0
    signs: tuple[str, ...] = ()


def prepared(call: Call, how: Preparation) -> Prepared:
    """Clean and redact the texts of a call. Linear in their length."""
    found = list(_texts(call))
    texts = [text for text, _ in found]
    hidden, redaction = 0, None
    score, signs = Signals(0.0, ())
    if how.sanitize:
        hidden, texts, (score, signs) = _sanitised(found)
    if how.redact:
        redaction = take_out(*texts, numbered=how.restore)
        texts = redaction.texts
    if any(
        text is not before and text != before for text, (before, _) in zip(texts, found, strict=True)
    ):
        waiting = iter(texts)
        call = _visited(call, lambda _text, _outside: next(waiting))
    return Prepared(call, redaction, hidden, score, signs)


def _sanitised(found: Sequence[tuple[str, bool]]) -> tuple[int, list[str], Signals]:
    hidden, heard, texts = 0, [], []
    for before, outside in found:
        text = before
        if outside:
            cleaned = clean(text)
            hidden += cleaned.removed
            heard.append(cleaned.text)
            text = escape_template_tokens(cleaned.text)
        texts.append(text)
    return hidden, texts, signals("\n".join(heard))


def _texts(call: Call) -> Iterator[tuple[str, bool]]:
    """Every text of a call, and whether somebody outside wrote it, in the order of `_visited`."""
    system = call.options.get("system_instruction")
    if isinstance(system, str):
        yield system, False
    for turn in call.turns:
        outside = turn.role is Role.USER
        for part in turn.parts:
            yield from _texts_of(part, outside=outside)
    for part in call.parts:
        yield from _texts_of(part, outside=True)


def _texts_of(part: Part | Mapping[str, object], *, outside: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(part, str):
        yield part, outside
        return
    noted: list[str] = []

    def note(text: str, _: bool) -> str:
        noted.append(text)
        return text

    _piece(part, note, outside=outside)
    for text in noted:
        yield text, outside


def _visited(call: Call, visit: Visit) -> Call:
    """The call with every text replaced by what `visit` makes of it, in the order of `_texts`."""
    options = call.options
    system = options.get("system_instruction")
    if isinstance(system, str):
        options = {**options, "system_instruction": visit(system, False)}
    turns = tuple(
        Turn(
            turn.role, tuple(_piece(part, visit, outside=turn.role is Role.USER) for part in turn.parts)
        )
        for turn in call.turns
    )
    parts: tuple[Part, ...] = tuple(_part(part, visit, outside=True) for part in call.parts)
    return structs.replace(call, options=options, turns=turns, parts=parts)


def _piece(
    part: Part | Mapping[str, object], visit: Visit, *, outside: bool
) -> Part | Mapping[str, object]:
    if isinstance(part, str | Blob):
        return _part(part, visit, outside=outside)
    return map_piece(part, lambda text: visit(text, outside))


def _part(part: Part, visit: Visit, *, outside: bool) -> Part:
    if isinstance(part, str):
        return visit(part, outside)
    if not part.mime_type.startswith(_TEXT_TYPES):
        return part
    try:
        text = part.data.decode()
    except UnicodeDecodeError:
        return part
    changed = visit(text, outside)
    if changed == text:
        return part
    # Other bytes than those an earlier call uploaded: they are known by no digest yet.
    upload = None if part.upload is None else Upload()
    return replace(part, data=changed.encode(), upload=upload)


def map_piece(piece: Mapping[str, object], change: Callable[[str], str]) -> Mapping[str, object]:
    """A function call or its result with every text in its payload changed; name, id and signature
    must stay what they are."""
    changed = dict(piece)
    for name, payload in _PAYLOADS.items():
        inner = changed.get(name)
        if isinstance(inner, Mapping) and payload in inner:
            changed[name] = {**inner, payload: _map_strings(inner[payload], change)}
    return changed


def _map_strings(value: object, change: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _map_strings(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(item, change) for item in value]
    return value
