"""Store URLs: what is read, what is refused, and that neither shows a credential."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headgate.stores.urls import StoreUrl


@pytest.mark.parametrize(
    ("text", "shown", "nodes"),
    [
        ("memory", "memory", ()),
        (" Memory ", "memory", ()),
        ("redis://host", "redis://host", ("redis://host",)),
        ("redis://:CANARY@host:7000/2", "redis://***@host:7000/2", ("redis://:CANARY@host:7000/2",)),
        ("valkeys://u:CANARY@host", "valkeys://***@host", ("rediss://u:CANARY@host",)),
        ("REDISS://[::1]:1/0", "rediss://[::1]:1/0", ("rediss://[::1]:1/0",)),
        ("redis://host?password=CANARY", "redis://host?…", ("redis://host?password=CANARY",)),
        ("unix://u:CANARY@/run/s?db=1", "unix://***@/run/s?…", ("unix://u:CANARY@/run/s?db=1",)),
        ("valkey+unix:///run/s", "valkey+unix:///run/s", ("unix:///run/s",)),
        (
            "valkeys+cluster://u:CANARY@a:1,b",
            "valkeys+cluster://***@a:1,b",
            ("rediss://u:CANARY@a:1", "rediss://u:CANARY@b"),
        ),
    ],
)
def test_urls_are_read(text: str, shown: str, nodes: tuple[str, ...]) -> None:
    url = StoreUrl.read(text)
    assert (str(url), url.nodes) == (shown, nodes)
    assert url.cluster == ("cluster" in text)
    assert url.memory == (not nodes)
    assert "CANARY" not in repr(url)


@pytest.mark.parametrize(
    "text",
    ["", "host", "http://host", "redis:host", "redis+x://h", "unix+cluster:///s", "redis://",
     "redis://a,b", "redis://CANARY@host:no", "redis://h:0", "redis://h:70000", "redis://h/CANARY",
     "redis://h#CANARY", "redis+cluster://a,", "redis+cluster://a/1", "unix://CANARY/s", "unix://",
     "unix:///", "redis://u:CANARY@", "redis://u:1/CANARY@h", "redis://u:1?CANARY@h",
     "redis://u:1#CANARY@h"],
)  # fmt: skip
def test_other_texts_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"redis://|unix://|without a database") as failure:
        StoreUrl.read(text)
    assert "CANARY" not in str(failure.value)


def test_neither_a_client_nor_reading_a_url_imports_redis() -> None:
    """Nobody who keeps quotas in one process pays for the library, or needs it."""
    script = (
        "import sys, headgate.gemini, headgate.claude, headgate.wiring.stores\n"
        "from headgate.stores.urls import StoreUrl\n"
        "StoreUrl.read('redis://host')\n"
        "make = headgate.gemini.ResilientGeminiClient\n"
        "client = make(keys='CANARY-1|a', quotas={'rpm': 1}, environ={})\n"
        "client.close()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('redis', 'hiredis')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
