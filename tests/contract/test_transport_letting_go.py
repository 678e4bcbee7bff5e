"""What is left behind by calls cancelled, loops ended, threads, and transports nobody closed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
from tests.transports import Make, chunked, events, every_real, fetch, http, respond, serving

from headgate.testing import VirtualClock

pytestmark = pytest.mark.timeout(60)


WAITING: dict[str, bytes] = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 200 OK\r\n",
    "in the body": http(b"half", length=100),
    "in a stream": chunked(b"data: one\n\n", end=False),
}


@every_real
@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cancelled_call_closes_its_connection_at_once(
    make: Make, name: str, streaming: bool, clock: VirtualClock
) -> None:
    async with serving(respond(WAITING[name], stall=True)) as server:
        transport = make(clock)
        call = events(transport, server.url, []) if streaming else fetch(transport, server.url)
        task = asyncio.ensure_future(call)
        await clock.sleep(1)
        assert server.connections == 1
        assert not server.gone.is_set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = clock.monotonic()
        await asyncio.wait_for(server.gone.wait(), 5)
        assert clock.monotonic() - before < 0.1, "the server must see the end at once"
        await transport.aclose()


@every_real
async def test_many_cancelled_calls_leave_a_transport_that_serves(
    make: Make, clock: VirtualClock
) -> None:
    answers = {"stall": True}

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await respond(b"" if answers["stall"] else http(b"x"), stall=answers["stall"])(reader, writer)

    async with serving(script) as server:
        transport = make(clock)
        tasks = [asyncio.ensure_future(fetch(transport, server.url)) for _ in range(200)]
        for number, task in enumerate(tasks):
            if number % 10 == 0:
                await clock.sleep(0)  # some are cancelled while they still connect
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        answers["stall"] = False
        assert await fetch(transport, server.url) == (200, b"x")
        await transport.aclose()


@every_real
def test_one_transport_lives_in_a_second_loop(make: Make) -> None:
    clock = VirtualClock()
    transport = make(clock)

    async def once() -> tuple[int, bytes]:
        async with serving(respond(http(b"x"))) as server:
            return await fetch(transport, server.url)

    assert asyncio.run(once()) == (200, b"x")
    assert asyncio.run(once()) == (200, b"x")
    assert clock.run(once()) == (200, b"x")
    assert len(transport._keepers) == 1, "ended loops are forgotten"


@every_real
def test_a_loop_that_another_thread_forgot_first_is_no_trouble(make: Make) -> None:
    """Two threads may see the same ended loop at the same moment."""
    transport = make(VirtualClock())

    class Ended:
        def is_closed(self) -> bool:
            transport._keepers.pop(self, None)  # type: ignore[call-overload]
            return True

    transport._keepers[Ended()] = None  # type: ignore[index,assignment]

    async def once() -> tuple[int, bytes]:
        async with serving(respond(http(b"x"))) as server:
            return await fetch(transport, server.url)

    assert asyncio.run(once()) == (200, b"x")


@every_real
def test_threads_share_one_transport(make: Make) -> None:
    transport = make(VirtualClock())
    results: list[object] = []

    async def many() -> None:
        async with serving(respond(http(b"x"))) as server:
            results.extend(await asyncio.gather(*(fetch(transport, server.url) for _ in range(10))))
            await transport.aclose()

    def work() -> None:
        try:
            asyncio.run(many())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(200, b"x")] * 80


UNCLOSED = """
import asyncio, gc, sys
from headgate.core.ports import Request
from headgate.transport.MODULE import CLASS
from headgate.wiring.clock import SystemClock

async def answer(reader, writer):
    try:
        await reader.readuntil(b"\\r\\n\\r\\n")
        whole = b"HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\nx"
        writer.write(whole[:-1] if "halfway" in sys.argv else whole)
        await reader.read()
    except asyncio.CancelledError:
        pass  # the loop ends; the server's own trouble is not what is looked for here
    writer.close()

transport = CLASS(SystemClock())

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = Request("POST", f"http://127.0.0.1:{port}/", {}, b"")
    exchange = await transport.open(request, {}, None)
    print(exchange.status if "halfway" in sys.argv else await exchange.read())
    if sys.argv[1] == "closed":
        await exchange.aclose()
    server.close()

asyncio.run(main())
asyncio.run(main())
gc.collect()
"""


@every_real
@pytest.mark.parametrize("argument", ["closed", "unclosed", "halfway"])
def test_a_transport_nobody_closes_warns_of_nothing(make: Make, argument: str) -> None:
    code = UNCLOSED.replace("MODULE", make.__module__.rpartition(".")[2]).replace(
        "CLASS", make.__name__
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, argument],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stderr == ""
    printed = "200\n200\n" if argument == "halfway" else "b'x'\nb'x'\n"
    assert (done.returncode, done.stdout) == (0, printed)
