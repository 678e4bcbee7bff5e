"""Large calls are written beside the event loop, small ones in it."""

from __future__ import annotations

import json
import threading
from base64 import b64encode

import pytest
from msgspec import structs

from headgate.core.call import Blob, Call, Operation, Role, Turn
from headgate.core.errors import InvalidCallError
from headgate.core.ports import Request
from headgate.engine.writing import IN_A_THREAD, written
from headgate.providers.gemini import GeminiProvider

LARGE = Blob("image/png", bytes(IN_A_THREAD))
QUESTION = Call(Operation.GENERATE, "gemini-x", ("What is this?",))


class _Watched(GeminiProvider):
    """Notes on which thread calls are written."""

    threads: list[int]

    def write(self, call: Call, model: str) -> Request:
        self.threads = [*getattr(self, "threads", []), threading.get_ident()]
        return super().write(call, model)


@pytest.mark.parametrize(
    ("call", "beside"),
    [
        (QUESTION, False),
        (structs.replace(QUESTION, parts=("What is this?", Blob("image/png", b"small"))), False),
        (structs.replace(QUESTION, parts=("What is this?", LARGE)), True),
        (structs.replace(QUESTION, turns=(Turn(Role.USER, (LARGE,)),)), True),
        (structs.replace(QUESTION, parts=("long " * IN_A_THREAD,)), True),
    ],
)
async def test_a_large_call_is_written_in_a_thread(call: Call, beside: bool) -> None:
    provider = _Watched("https://gemini.invalid")
    request = await written(provider, call, "gemini-x")
    assert (provider.threads != [threading.get_ident()]) is beside
    assert request == GeminiProvider("https://gemini.invalid").write(call, "gemini-x")


async def test_the_image_arrives_whole() -> None:
    data = bytes(range(256)) * 4096
    call = structs.replace(QUESTION, parts=(Blob("image/png", data), "What is this?"))
    request = await written(GeminiProvider("https://gemini.invalid"), call, "gemini-x")
    part = json.loads(request.body)["contents"][0]["parts"][0]
    assert part == {"inlineData": {"mimeType": "image/png", "data": b64encode(data).decode()}}


async def test_what_cannot_be_written_is_refused_from_the_thread_too() -> None:
    call = structs.replace(QUESTION, parts=(LARGE,))
    with pytest.raises(InvalidCallError, match="not the name of a model"):
        await written(GeminiProvider("https://gemini.invalid"), call, "../nobody")
