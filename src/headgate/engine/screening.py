"""What prepare does to a call that asks for it: before any quota is spent, and to the reply after.

The call is held to the model's card, its texts are cleaned and redacted, and its tokens are estimated.
Only where the estimate comes near the model's window is the upstream asked to count: that costs a round
trip, and no quota of generations. Large texts are looked through in a thread, so that the event loop
goes on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence

from msgspec import structs

from headgate.core.call import Blob, Call, Operation, Part, Preparation, Reply
from headgate.core.errors import HeadgateError, InvalidCallError
from headgate.core.model_card import ModelCapabilities
from headgate.core.ports import Clock, Provider
from headgate.core.records import Findings
from headgate.engine.identifying import identified
from headgate.engine.passage import Answer, Onward, Passage
from headgate.engine.restoring import Restoring
from headgate.engine.stream import ReplyStream
from headgate.engine.writing import written
from headgate.policy.call_size import size_of
from headgate.policy.days import utc_day
from headgate.policy.estimate import TokenEstimator, ceiling
from headgate.policy.json_schema import malformed
from headgate.policy.preparing import Prepared, prepared
from headgate.policy.privacy.markers import Redaction
from headgate.policy.registry import ModelRegistry
from headgate.policy.requirements import SWITCHED, needs
from headgate.policy.truncation import fit_texts, turns_to_drop

__all__ = ["IN_A_THREAD", "Screening"]

IN_A_THREAD = 32_768
"""Characters from which texts are looked through in a thread: about 20 ms of one core."""

NEAR = 1.5
"""A prompt whose estimate times this reaches the window is counted by the upstream: estimates err by
41 % at the 90th percentile (`policy/estimate.py`)."""

DENSE = 2
"""Characters a token has at the least in what estimates take for words, such as base64."""

LETTERS = 4
"""Characters to a token, where a rough figure will do: Google's own rule of thumb for English."""

_AIMS = (0.97, 0.9, 0.75)
"""Of the window, what shortening aims at, try by try: what it cuts is estimated too."""

_COUNTED = ("system_instruction", "tools", "tool_config")


class Screening:
    """Prepares calls that bring a `Preparation`. Safe to share.

    Args:
        models: the registry of the moment.
        estimator: the one the reservation uses, so that both learn from what calls used.
    """

    def __init__(
        self,
        provider: Provider,
        models: Callable[[], ModelRegistry],
        estimator: TokenEstimator,
        clock: Clock,
    ) -> None:
        self._provider = provider
        self._models = models
        self._estimator = estimator
        self._clock = clock

    async def __call__(self, passage: Passage, how: Preparation, onward: Onward) -> Answer:
        """Go down the path and come back. Raises `InvalidCallError`, `ReplySchemaError`."""
        card = self._models().find(passage.model)
        can = ModelCapabilities() if card is None else card.capabilities
        found = Findings(warnings=self._hold_to_card(passage, can))
        _check_schema(passage.call, how)
        done = await self._looked_through(passage.call, how)
        passage.call = await identified(done.call)
        found = structs.replace(
            found,
            redactions=_counts(done.redaction),
            hidden_characters=done.hidden,
            injection_score=done.score,
            injection_signs=done.signs,
        )
        passage.findings = found
        if how.enforce_tokens:
            passage.findings = await self._fit(passage, how, can.max_input_tokens, found, onward)
        passage.request = await written(self._provider, passage.call, passage.model)
        answer = await onward(passage)
        back = done.redaction if done.redaction is not None and done.redaction.reversible else None
        if back is None and how.schema is None:
            return answer
        restoring = Restoring(back, how.schema, passage.call.request_id)
        if isinstance(answer, ReplyStream):
            answer.through(restoring)
            return answer
        return restoring.whole(answer)

    async def moved(self, passage: Passage, how: Preparation) -> None:
        """Hold a call that was prepared for one model to another, and write it anew. Asks nobody.

        Raises `InvalidCallError` where the other model cannot do what the call needs.
        """
        card = self._models().find(passage.model)
        can = ModelCapabilities() if card is None else card.capabilities
        before = passage.findings or Findings()
        warnings = (*before.warnings, *self._hold_to_card(passage, can))
        passage.findings = structs.replace(before, warnings=warnings)
        if how.enforce_tokens:
            window = can.max_input_tokens
            passage.findings = await self._fit(passage, how, window, passage.findings, None)
        passage.request = await written(self._provider, passage.call, passage.model)

    @staticmethod
    async def _looked_through(call: Call, how: Preparation) -> Prepared:
        if not how.sanitize and not how.redact:
            return Prepared(call)
        if size_of(call) < IN_A_THREAD:
            return prepared(call, how)
        return await asyncio.to_thread(prepared, call, how)

    # ── the model's card ────────────────────────────────────────────────────────────────────────

    def _hold_to_card(self, passage: Passage, card: ModelCapabilities) -> tuple[str, ...]:
        """Refuse what the model cannot do, leave out what it does not take. What was left out."""
        call = passage.call
        today = utc_day(self._clock.wall())
        refusal = self._models().refusal(passage.model, needs(call), today)
        if refusal is not None:
            raise InvalidCallError(
                f"{refusal} Name another model, or leave out what needs it.",
                kind="unsupported",
                request_id=call.request_id,
            )
        longest, most = call.options.get("max_output_tokens"), card.max_output_tokens
        if isinstance(longest, int) and most is not None and longest > most:
            raise InvalidCallError(
                f"max_output_tokens is {longest}; {passage.model} writes {most} at the most.",
                request_id=call.request_id,
            )
        given = call.options
        out = [name for name, of in SWITCHED.items() if name in given and getattr(card, of) is False]
        if not out:
            return ()
        kept = {name: value for name, value in call.options.items() if name not in out}
        passage.left_out = {name: call.options[name] for name in out}
        passage.call = structs.replace(call, options=kept)
        return (f"Model {passage.model} takes no {', '.join(out)}: left out of the request.",)

    # ── the model's window ──────────────────────────────────────────────────────────────────────

    async def _fit(
        self, passage: Passage, how: Preparation, window: int | None, found: Findings,
        onward: Onward | None,
    ) -> Findings:  # fmt: skip
        """Hold a call to the window: it fits, is made to fit, or is refused. Without `onward` nobody is
        asked to count."""
        tokens, counted = await self._measured(passage, window, onward)
        dropped = cut = 0
        for aim in _AIMS if how.truncate or how.drop_turns else ():
            if window is None or tokens <= window:
                break
            fewer, shorter = self._shorten(passage, how, int(window * aim), tokens)
            dropped, cut = dropped + fewer, cut + shorter
            if not fewer and not shorter:
                break
            tokens, counted = await self._measured(passage, window, onward)
        if window is not None and tokens > window:
            raise _too_large(passage, tokens, window, counted=counted)
        warnings = found.warnings
        if dropped:
            warnings += (f"The {dropped} oldest turns were left out: the model's window is full.",)
        if cut:
            warnings += (f"The last {cut} characters of the prompt were cut: they did not fit.",)
        return structs.replace(
            found,
            tokens=tokens,
            counted=counted,
            dropped_turns=found.dropped_turns + dropped,
            cut_characters=found.cut_characters + cut,
            warnings=warnings,
        )

    async def _measured(
        self, passage: Passage, window: int | None, onward: Onward | None
    ) -> tuple[int, bool]:
        """Tokens of the call, and whether the upstream counted them."""
        everything = _everything(passage.call)
        characters = sum(len(part) for part in everything if isinstance(part, str))
        if window is None or ceiling(everything) < window:
            return (
                characters // LETTERS + 1,
                False,
            )  # it surely fits: how much it is nobody needs to know
        if characters < IN_A_THREAD:
            passage.token_count = self._estimator.count(everything)
        else:
            passage.token_count = await asyncio.to_thread(self._estimator.count, everything)
        estimate = self._estimator.estimate(passage.model, passage.token_count)
        if onward is None or (estimate * NEAR < window and characters // DENSE < window):
            return estimate, False
        exact = await self._asked(passage, onward)
        return (estimate, False) if exact is None else (exact, True)

    async def _asked(self, passage: Passage, onward: Onward) -> int | None:
        """Tokens as the upstream counts them; None where it does not answer: the estimate holds."""
        call = passage.call
        options = {name: call.options[name] for name in _COUNTED if name in call.options}
        question = structs.replace(
            call,
            operation=Operation.COUNT,
            options=options,
            request_id=f"{call.request_id}.count",  # an attempt of its own in every record
            preparation=None,
            keeping=None,
            fallbacks=(),  # nothing stands in for a count: the estimate holds
        )
        asking = Passage(question, passage.started, model=passage.model)
        try:
            asking.request = await written(self._provider, question, passage.model)
            answer = await onward(asking)
        except HeadgateError:
            return None
        return answer.tokens if isinstance(answer, Reply) else None

    def _shorten(self, passage: Passage, how: Preparation, aim: int, tokens: int) -> tuple[int, int]:
        """Make a call smaller: turns left out, characters cut. Counts are scaled by what was told."""
        call, count = passage.call, self._estimator.count
        scale = passage.token_count / max(1, tokens)
        excess = passage.token_count - int(aim * scale)
        sizes = [count(_spoken(turn.parts)) for turn in call.turns]
        dropped = turns_to_drop(sizes, max(0, sum(sizes) - excess))
        if dropped:
            excess -= sum(sizes[:dropped])
            call = structs.replace(call, turns=call.turns[dropped:])
        cut = 0
        if how.truncate and excess > 0:
            call, cut = _cut_prompt(call, excess, self._estimator)
        passage.call = call
        return dropped, cut


def _cut_prompt(call: Call, excess: int, estimator: TokenEstimator) -> tuple[Call, int]:
    texts = [part for part in call.parts if isinstance(part, str)]
    whole = sum(estimator.count((text,)) for text in texts)
    fitted = fit_texts(texts, max(0, whole - excess))
    waiting = iter(fitted.texts)
    parts = tuple(next(waiting) if isinstance(part, str) else part for part in call.parts)
    parts = tuple(part for part in parts if part)
    return (structs.replace(call, parts=parts), fitted.cut) if parts else (call, 0)


def _everything(call: Call) -> tuple[Part, ...]:
    """All of a call that is counted as input. Tools count as their JSON."""
    system = call.options.get("system_instruction")
    tools = call.options.get("tools")
    parts: list[Part] = [system] if isinstance(system, str) else []
    if tools:
        parts.append(json.dumps(tools))
    for turn in call.turns:
        parts += _spoken(turn.parts)
    return (*parts, *call.parts)


def _spoken(parts: Sequence[Part | Mapping[str, object]]) -> tuple[Part, ...]:
    return tuple(part if isinstance(part, str | Blob) else json.dumps(part) for part in parts)


def _counts(redaction: Redaction | None) -> Mapping[str, int]:
    return {} if redaction is None else {kind.value: n for kind, n in redaction.counts.items()}


def _check_schema(call: Call, how: Preparation) -> None:
    if how.schema is not None and (wrong := malformed(how.schema)) is not None:
        raise InvalidCallError(
            f"response_schema is no JSON schema: {wrong}.", request_id=call.request_id
        )


def _too_large(passage: Passage, tokens: int, window: int, *, counted: bool) -> InvalidCallError:
    how = "counted by the upstream" if counted else "estimated"
    turns = len(passage.call.turns)
    conversation = f" {turns} turns of conversation are part of it." if turns else ""
    error = InvalidCallError(
        f"The prompt has {tokens} tokens ({how}); {passage.model} takes {window}.{conversation} "
        "Shorten it, set auto_truncate, or use a model with a larger window.",
        kind="too_large",
        request_id=passage.call.request_id,
    )
    error.http_status = 413
    return error
