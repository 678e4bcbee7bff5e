"""Where the usage ledger is: what people may write, and what is shown of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headgate.core.errors import ConfigurationError
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.stores.usage_url import UsageUrl, UsageWhere
from headgate.wiring.usage import usage_place


@pytest.mark.parametrize(
    ("text", "where", "written", "shown"),
    [
        ("auto", "auto", "", "auto"),
        (" OFF ", "off", "", "off"),
        ("usage.db", "sqlite", "usage.db", "usage.db"),
        ("./on", "sqlite", "on", "on"),
        ("/var/x y.db", "sqlite", "/var/x y.db", "/var/x y.db"),
        ("sqlite:///var/x.db", "sqlite", "/var/x.db", "/var/x.db"),
        ("sqlite:////var/x.db", "sqlite", "/var/x.db", "/var/x.db"),
        ("sqlite://here.db", "sqlite", "here.db", "here.db"),
        ("postgresql://host/db", "postgres", "postgresql://host/db", "postgresql://host/db"),
        ("postgres://u:CANARY@h:1/db?sslmode=require", "postgres",
         "postgres://u:CANARY@h:1/db?sslmode=require", "postgresql://***@h:1/db?…"),
        ("postgresql:///db?host=/run", "postgres", "postgresql:///db?host=/run", "postgresql:///db?…"),
    ],
)  # fmt: skip
def test_what_may_be_written(text: str, where: str, written: str, shown: str) -> None:
    url = UsageUrl.read(text)
    assert (url.where, url.written, url.shown) == (UsageWhere(where), written, shown)
    assert str(url) == shown
    assert "CANARY" not in repr(url)


@pytest.mark.parametrize(
    "text",
    ["", "on", "true", "/var/folder/", "mysql://h/db", "postgresql://host", "postgresql://h:port/db",
     "postgresql://u:CANARY/x@h/db", "postgresql://h/db#x", "sqlite://", "a\0b"],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="auto, off, the path of a file") as caught:
        UsageUrl.read(text)
    assert "CANARY" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="folders of Linux")
@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"HOME": "/h"}, "/h/.local/state/headgate/usage.sqlite3"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/s/headgate/usage.sqlite3"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/headgate/usage.sqlite3"),
        ({}, "off"),
        ({"HOME": "/h", "HEADGATE_USAGE": "off"}, "off"),
        ({"HOME": "/h", "HEADGATE_USAGE": "/x.db"}, "/x.db"),
    ],
)
def test_where_it_is_unless_somebody_says(
    environ: dict[str, str], shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = usage_place(None, environ)
    assert place.shown == shown
    assert place.required is ("/x.db" in shown)
    assert (place.opener is None) is (shown == "off")


def test_argument_before_variable_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headgate.toml").write_text('[gemini]\nusage = "file.db"\n')
    assert usage_place(None, {}).shown == "file.db"
    assert usage_place(None, {"HEADGATE_USAGE": "v.db"}).origin == "HEADGATE_USAGE"
    assert usage_place("a.db", {"HEADGATE_USAGE": "v.db"}).shown == "a.db"
    with pytest.raises(ConfigurationError, match="HEADGATE_USAGE is not right; it takes auto"):
        usage_place(None, {"HEADGATE_USAGE": "redis://u:CANARY@h"})


def test_a_place_is_opened_only_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = usage_place(None, {"XDG_STATE_HOME": str(tmp_path / "s")})
    assert not (tmp_path / "s").exists()
    assert place.opener is not None
    store = place.opener()
    assert isinstance(store, SqliteUsage)
    store.close()
    assert Path(place.shown).is_file()


def test_postgres_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    place = usage_place("postgresql://h/db", {})
    assert place.opener is not None
    with pytest.raises(ConfigurationError, match=r"pip install 'headgate\[postgres\]'"):
        place.opener()
