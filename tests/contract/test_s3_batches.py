"""S3-02k, S3-03f, S3-24 `batch_size`, `batch_timeout_ms`: many at once, each with its own outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support import MODEL, Ear, broken_inside, failure, key, keys, overloaded, said, vector

from headgate.backend import (
    BackendConfig,
    Embedding,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    PreprocessConfig,
)
from headgate.core.call import Operation
from headgate.core.errors import NoKeysError
from headgate.core.model_card import ModelMetadata
from headgate.emulator import Emulator, EmulatorConfig, Limits, Project
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock

VECTORS = "gemini-embedding-001"
OFFLINE = {"model_discovery": False}


def backend(
    clock: VirtualClock, script: Any, **config: Any
) -> tuple[GeminiBackend, ScriptedTransport, Ear]:
    transport, ear = ScriptedTransport(script, clock), Ear()
    made = GeminiBackend(
        BackendConfig(**OFFLINE, **config),
        keys=keys(1),
        transport=transport,
        clock=clock,
        observers=[ear],
        environ={},
    )
    return made, transport, ear


def prompts_of(sent: Sent) -> str:
    body: dict[str, Any] = json.loads(sent.request.body)
    return str(body["contents"][0]["parts"][0]["text"])


def texts_of(sent: Sent) -> list[str]:
    """The texts of an embedding request, of a batch or of one."""
    body = json.loads(sent.request.body)
    items = body.get("requests", [body])
    return [item["content"]["parts"][0]["text"] for item in items]


def vectors(seconds: float = 1.0) -> Callable[[Sent], Answer]:
    """Embeds every text as its length."""

    def answer(sent: Sent) -> Answer:
        texts = texts_of(sent)
        if "batchEmbedContents" not in sent.request.url:
            return Answer(body=vector(float(len(texts[0]))).body, delay=seconds)
        body = {"embeddings": [{"values": [float(len(text))]} for text in texts]}
        return Answer(body=json.dumps(body).encode(), delay=seconds)

    return answer


def first(outcome: Embedding | GeminiError) -> float:
    assert isinstance(outcome, Embedding)
    return outcome.vector[0]


# ── S3-02k: requests ────────────────────────────────────────────────────────────────────────────


async def test_s3_02k_n_outcomes_for_n_requests_in_their_order(clock: VirtualClock) -> None:
    def script(sent: Sent) -> Answer:
        prompt = prompts_of(sent)
        if prompt == "2":
            return failure(400, "no such field", "INVALID_ARGUMENT")
        return said(f"answer {prompt}", delay=9.0 - int(prompt))

    made, _, _ = backend(clock, script)
    requests: list[Any] = [GeminiRequest(str(number), MODEL) for number in range(5)]
    requests += [GeminiRequest("", MODEL), GeminiRequest("s", MODEL, stream=True), "no request"]
    got = await made.process_gemini_batch(requests)
    assert len(got) == 8
    texts = [one.text if isinstance(one, GeminiResponse) else one.error_type for one in got]
    assert texts == [
        "answer 0", "answer 1", "InvalidRequest", "answer 3", "answer 4",
        "InvalidParameters", "InvalidParameters", "InvalidParameters",
    ]  # fmt: skip


async def test_s3_02k_a_batch_is_bounded_by_its_concurrency(clock: VirtualClock) -> None:
    under_way, most = 0, 0

    async def counted(request: GeminiRequest) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await clock.sleep(1.0)
        under_way -= 1

    from headgate.backend.outcomes import each_in_order

    await each_in_order([GeminiRequest("x", MODEL)] * 10, counted, 3)
    assert most == 3
    assert clock.monotonic() == pytest.approx(4.0)


async def test_s3_02k_a_long_batch_needs_no_place_in_line_for_each_request(clock: VirtualClock) -> None:
    made, transport, _ = backend(
        clock, lambda _: said(delay=1.0), max_concurrent_requests=4, max_queued_requests=4
    )
    got = await made.process_gemini_batch([GeminiRequest(f"{n}", MODEL) for n in range(40)])
    assert all(isinstance(one, GeminiResponse) for one in got)
    assert len(transport.sent) == 40
    assert clock.monotonic() == pytest.approx(10.0)
    few = await made.process_gemini_batch([GeminiRequest("x", MODEL)] * 3, concurrency=1)
    assert len(few) == 3


async def test_s3_02k_cancelling_a_batch_gives_everything_back(clock: VirtualClock) -> None:
    made, transport, ear = backend(clock, lambda _: said(delay=5.0))
    requests = [GeminiRequest(f"{n}", MODEL, session_id=f"s{n}") for n in range(20)]
    task = asyncio.ensure_future(made.process_gemini_batch(requests))
    await clock.sleep(2.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.open_exchanges == 0
    assert made._room.places.used == made._room.places.waiting == 0
    assert {record.error for record in ear.calls} == {"cancelled"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("given", ["text", None, 7])
async def test_s3_02k_what_is_no_list_is_refused(clock: VirtualClock, given: Any) -> None:
    made, _, _ = backend(clock, [said()])
    with pytest.raises(GeminiError, match="list of GeminiRequest"):
        await made.process_gemini_batch(given)
    with pytest.raises(GeminiError, match="concurrency"):
        await made.process_gemini_batch([], concurrency=0)
    assert await made.process_gemini_batch([]) == []


async def test_s3_02k_without_a_key_each_request_hears_it(clock: VirtualClock) -> None:
    made = GeminiBackend(BackendConfig(**OFFLINE), clock=clock, environ={})
    with pytest.raises(NoKeysError):
        await made.execute_gemini_enhanced(GeminiRequest("x", MODEL))
    (got,) = await made.process_gemini_batch([GeminiRequest("x", MODEL)])
    assert isinstance(got, GeminiError)
    assert (got.error_type, got.kind) == ("InvalidApiKey", "no_keys")


# ── S3-03f: embeddings ──────────────────────────────────────────────────────────────────────────


async def test_s3_03f_texts_share_requests_of_the_batch_size(clock: VirtualClock) -> None:
    made, transport, ear = backend(clock, vectors(), batch_size=4)
    texts = ["x" * number for number in range(1, 11)]
    got = await made.embed_gemini(texts, VECTORS, task_type="CLUSTERING")
    assert [first(one) for one in got] == [float(number) for number in range(1, 11)]
    assert [len(texts_of(sent)) for sent in transport.sent] == [4, 4, 2]
    body = json.loads(transport.sent[0].request.body)
    assert body["requests"][0] == {
        "model": f"models/{VECTORS}",
        "content": {"parts": [{"text": "x"}]},
        "taskType": "CLUSTERING",
    }
    assert clock.monotonic() == pytest.approx(1.0), "nobody waited for company"
    assert {record.operation for record in ear.calls} == {Operation.EMBED}


async def test_s3_03f_single_texts_of_many_callers_share_a_request(clock: VirtualClock) -> None:
    made, transport, _ = backend(clock, vectors())
    got = await asyncio.gather(*(made.embed_gemini([text], VECTORS) for text in ("a", "bb", "ccc")))
    assert [first(one) for (one,) in got] == [1.0, 2.0, 3.0]
    assert [texts_of(sent) for sent in transport.sent] == [["a", "bb", "ccc"]]


async def test_s3_03f_a_lone_text_waits_for_nobody(clock: VirtualClock) -> None:
    made, transport, _ = backend(clock, vectors(seconds=0.0), batch_timeout_ms=5000)
    (got,) = await made.embed_gemini(["alone"], VECTORS)
    assert first(got) == 5.0
    assert clock.monotonic() == 0.0
    assert transport.sent[0].request.url.endswith(f"{VECTORS}:embedContent")


async def test_s3_24_who_comes_while_a_batch_is_under_way_waits_for_the_window_at_most(
    clock: VirtualClock,
) -> None:
    made, transport, _ = backend(clock, vectors(seconds=60.0), batch_timeout_ms=2000)
    one = asyncio.ensure_future(made.embed_gemini(["a"], VECTORS))
    await clock.sleep(1.0)
    two = asyncio.ensure_future(made.embed_gemini(["bb"], VECTORS))
    await clock.sleep(1.0)
    three = asyncio.ensure_future(made.embed_gemini(["ccc"], VECTORS, priority="CRITICAL"))
    await asyncio.gather(one, two, three)
    assert [(sent.at, texts_of(sent)) for sent in transport.sent] == [
        (0.0, ["a"]), (2.0, ["ccc"]), (3.0, ["bb"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"caller": "b"},
        {"task_type": "CLUSTERING"},
        {"output_dimensionality": 8},
        {"priority": "HIGH"},
        {"api_key": key(7)},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_s3_03f_what_differs_shares_no_request(clock: VirtualClock, other: Any) -> None:
    made, transport, _ = backend(clock, vectors())
    await asyncio.gather(
        made.embed_gemini(["a"], VECTORS, caller="a") if "caller" in other
        else made.embed_gemini(["a"], VECTORS),
        made.embed_gemini(["b"], VECTORS, **other),
    )  # fmt: skip
    assert sorted(texts_of(sent) for sent in transport.sent) == [["a"], ["b"]]


async def test_s3_03f_equal_texts_of_a_batch_are_asked_once(clock: VirtualClock) -> None:
    made, transport, _ = backend(clock, vectors())
    got = await made.embed_gemini(["same", "other one", "same"], VECTORS)
    assert [first(one) for one in got] == [4.0, 9.0, 4.0]
    assert [texts_of(sent) for sent in transport.sent] == [["same", "other one"]]


async def test_s3_02k_a_text_the_upstream_refuses_fails_alone(clock: VirtualClock) -> None:
    embeds = vectors()

    def script(sent: Sent) -> Answer:
        if "forbidden" in texts_of(sent):
            return failure(400, "content is not allowed", "INVALID_ARGUMENT")
        return embeds(sent)

    made, transport, _ = backend(clock, script)
    got = await made.embed_gemini(["a", "bb", "forbidden", "dddd", ""], VECTORS)
    assert [first(got[number]) for number in (0, 1, 3)] == [1.0, 2.0, 4.0]
    errors = [got[2], got[4]]
    assert [getattr(error, "error_type", None) for error in errors] == [
        "InvalidRequest", "InvalidParameters",
    ]  # fmt: skip
    assert len(transport.sent) <= 2 * 4 - 1
    assert len({id(error) for error in errors}) == 2


async def test_s3_02k_a_failed_batch_fails_each_of_its_texts(clock: VirtualClock) -> None:
    made, transport, _ = backend(clock, [broken_inside()])
    got = await made.embed_gemini(["a", "b"], VECTORS)
    assert [getattr(error, "error_type", None) for error in got] == ["InternalServerError"] * 2
    assert got[0] is not got[1]
    assert len(transport.sent) == 3, "the attempts of one call, not of two"


async def test_s3_02h_texts_are_redacted_before_they_leave(clock: VirtualClock) -> None:
    made, transport, _ = backend(clock, vectors())
    (got,) = await made.embed_gemini(["Mail ada@example.org"], VECTORS)
    assert isinstance(got, Embedding)
    assert texts_of(transport.sent[0]) == ["Mail [EMAIL]"]
    assert (got.redactions, got.model) == ({"EMAIL": 1}, VECTORS)
    plain = PreprocessConfig(sanitize_input=False, strip_sensitive_data=False)
    open_, transport, _ = backend(clock, vectors(), preprocess_config=plain)
    await open_.embed_gemini(["Mail ada@example.org"], VECTORS)
    assert texts_of(transport.sent[0]) == ["Mail ada@example.org"]


@pytest.mark.parametrize(
    ("texts", "fields", "named"),
    [
        ("text", {}, "list of texts"),
        ([], {"priority": "loud"}, "priority"),
        ([], {"timeout_seconds": -1}, "timeout"),
        ([], {"model": " "}, "model"),
    ],
)
async def test_arguments_are_checked(
    clock: VirtualClock, texts: Any, fields: dict[str, Any], named: str
) -> None:
    made, transport, _ = backend(clock, vectors())
    with pytest.raises(GeminiError, match=named):
        await made.embed_gemini(texts, **({"model": VECTORS} | fields))
    assert transport.sent == []


async def test_a_text_that_is_none_fails_alone(clock: VirtualClock) -> None:
    made, _, _ = backend(clock, vectors())
    texts: list[Any] = ["a", 7, " ", "\ud83d"]
    got = await made.embed_gemini(texts, VECTORS)
    assert first(got[0]) == 1.0
    assert [getattr(error, "error_type", None) for error in got[1:]] == ["InvalidParameters"] * 3
    assert await made.embed_gemini([], VECTORS) == []


async def test_a_deadline_is_kept_and_nothing_is_left_behind(clock: VirtualClock) -> None:
    made, transport, _ = backend(clock, vectors(seconds=60.0))
    (got,) = await made.embed_gemini(["a"], VECTORS, timeout_seconds=2.0)
    assert isinstance(got, GeminiError)
    assert got.error_type == "RequestTimeout"
    assert clock.monotonic() == pytest.approx(2.0)
    assert transport.open_exchanges == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_the_backend_answers_what_was_collected(clock: VirtualClock) -> None:
    made, _, _ = backend(clock, vectors(seconds=3.0))
    one = asyncio.ensure_future(made.embed_gemini(["a"], VECTORS))
    await clock.sleep(1.0)
    two = asyncio.ensure_future(made.embed_gemini(["bb"], VECTORS))
    await clock.sleep(0.1)
    await made.aclose()
    assert [first(got) for (got,) in await asyncio.gather(one, two)] == [1.0, 2.0]


async def test_s3_21_a_new_batch_size_takes_over_while_it_runs(clock: VirtualClock) -> None:
    from msgspec import structs

    made, transport, _ = backend(clock, vectors(), batch_size=2)
    await made.embed_gemini(["a", "b", "c"], VECTORS, use_cache=False)
    config = await made.get_gemini_backend_config()
    await made.update_gemini_backend_config(structs.replace(config, batch_size=3))
    await made.embed_gemini(["a", "b", "c"], VECTORS, use_cache=False)
    assert [len(texts_of(sent)) for sent in transport.sent] == [2, 1, 3]


async def test_a_name_that_means_another_model_by_now_finds_no_old_vectors(
    clock: VirtualClock,
) -> None:
    """Vectors of two models cannot be compared: what one made is never given as the other's, also
    where the change comes while it is made."""
    from msgspec import structs

    def means(model: str) -> tuple[ModelMetadata, ...]:
        return (ModelMetadata(id=model, aliases=("my-vectors",)),)

    made, transport, _ = backend(clock, vectors(), models=means("vectors-one"))
    await made.embed_gemini(["a", "b"], "my-vectors")
    assert len(transport.sent) == 1
    (known,) = await made.embed_gemini(["a"], "vectors-one")
    assert len(transport.sent) == 1, "two names of one model share what it made"
    under_way = asyncio.ensure_future(made.embed_gemini(["late"], "my-vectors"))
    await clock.sleep(0.1)
    config = await made.get_gemini_backend_config()
    await made.update_gemini_backend_config(structs.replace(config, models=means("vectors-two")))
    await under_way
    asked = len(transport.sent)
    for text in ("a", "late"):
        (got,) = await made.embed_gemini([text], "my-vectors")
        assert isinstance(got, Embedding)
        assert got.model == "vectors-two"
    assert len(transport.sent) == asked + 2
    assert isinstance(known, Embedding)
    assert known.model == "vectors-one"


# ── quota, against the emulator ─────────────────────────────────────────────────────────────────


async def test_s3_03f_each_text_of_a_batch_is_charged_as_one_request(clock: VirtualClock) -> None:
    """The books of both sides agree, and no batch is refused for room the ledger had counted on."""
    limits = {VECTORS: Limits(rpm=20, mechanism="fixed")}
    config = EmulatorConfig(projects=[Project("alpha", {"k0": key(0)}, limits=limits)])
    async with Emulator(config, clock=clock) as emulator:
        made = GeminiBackend(
            BackendConfig(**OFFLINE, batch_size=5, quotas={"rpm": 20}),
            keys=f"{key(0)}|k0|alpha",
            base_url=emulator.base_url,
            clock=clock,
            environ={},
        )
        async with made:
            texts = [f"text number {number}" for number in range(50)]
            got = await made.embed_gemini(texts, VECTORS, timeout_seconds=300)
        assert all(isinstance(one, Embedding) for one in got), [one for one in got if not one]
        assert len({one.vector for one in got if isinstance(one, Embedding)}) == 50
        report = emulator.report().projects["alpha"]
        assert report.totals.charged_requests == 50
        assert report.totals.requests == 10, "five texts to a request"
        assert report.totals.refused == {}
        assert clock.monotonic() > 100, "50 requests at 20 a minute"


async def test_s3_03f_a_learned_quota_counts_texts_and_not_requests(
    clock: VirtualClock,
) -> None:
    """Nothing is declared: after the first refusals the limit is known, as the upstream counts."""
    limits = {VECTORS: Limits(rpm=20, mechanism="fixed")}
    config = EmulatorConfig(projects=[Project("alpha", {"k0": key(0)}, limits=limits)])
    async with Emulator(config, clock=clock) as emulator:
        made = GeminiBackend(
            BackendConfig(**OFFLINE, batch_size=5),
            keys=f"{key(0)}|k0|alpha",
            base_url=emulator.base_url,
            clock=clock,
            environ={},
        )
        async with made:
            texts = [f"text number {number}" for number in range(100)]
            asked = asyncio.ensure_future(made.embed_gemini(texts, VECTORS, timeout_seconds=900))
            await clock.sleep(1.0)
            first_second = dict(emulator.report().projects["alpha"].totals.refused)
            got = await asked
        assert all(isinstance(one, Embedding) for one in got)
        totals = emulator.report().projects["alpha"].totals
        assert first_second, "the limit was met"
        assert totals.refused == first_second, "and then kept"
        assert totals.charged_requests == 100
        assert 240 <= clock.monotonic() <= 330, "100 texts at 20 a minute, not a fifth of that"


async def test_s3_03f_a_batch_larger_than_the_quota_goes_in_parts(clock: VirtualClock) -> None:
    made, transport, _ = backend(clock, vectors(), batch_size=8, quotas={"rpm": 4})
    got = await made.embed_gemini([f"{n}" for n in range(8)], VECTORS, timeout_seconds=300)
    assert [first(one) for one in got] == [1.0] * 8
    assert [len(texts_of(sent)) for sent in transport.sent] == [4, 4]


async def test_an_overload_is_tried_again_for_the_whole_batch(clock: VirtualClock) -> None:
    embeds = vectors()
    answers = iter([overloaded()])
    made, transport, _ = backend(clock, lambda sent: next(answers, None) or embeds(sent))
    got = await made.embed_gemini(["a", "bb"], VECTORS)
    assert [first(one) for one in got] == [1.0, 2.0]
    assert len(transport.sent) == 2
