"""Who shares a store: each process reports every second or so, and hears who else does.

From this a process knows its share for the time without the store, whether others may have gone on
without it, and whether the server is still the one it was: a restarted or promoted server may have
lost what it was told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct

__all__ = ["KEY", "Does", "Presence", "Present", "presence_of"]

KEY = "headgate:members"

_GONE = 60_000
"""Milliseconds after which one that does not report counts no more."""

_SILENT = 2_000
"""Milliseconds after which one that does not report may have lost the store, and go on by itself."""

_KEPT = 604_800_000
"""The key goes when nobody has reported for a week."""

_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, does, gone, silent = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- A user without the right to ask gets an error as a table: then the server is not told apart.
local said = redis.pcall('INFO', 'replication')
local server = type(said) == 'string' and string.match(said, 'master_replid:(%w+)') or ''
local known = redis.call('HGET', KEYS[1], '=server')
local since = tonumber(redis.call('HGET', KEYS[1], '=since') or now)
if known ~= server then
  since = now
  redis.call('HSET', KEYS[1], '=server', server, '=since', string.format('%.0f', now))
end
-- After a time in which nobody was heard of, which may have been the server's, all get time to report.
local back = tonumber(redis.call('HGET', KEYS[1], '=back') or now)
if now - tonumber(redis.call('HGET', KEYS[1], '=last') or now) > silent then back = now end
redis.call('HSET', KEYS[1], '=back', string.format('%.0f', back), '=last', string.format('%.0f', now))
local count, rank, quiet, joined = 0, 0, 0, now
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  local name = all[at]
  if string.sub(name, 1, 1) ~= '=' then
    local first, last = string.match(all[at + 1], '(%d+) (%d+)')
    if name == me then
      joined = tonumber(first)
    elseif now - math.max(tonumber(last), back) > gone then
      redis.call('HDEL', KEYS[1], name)
    else
      count = count + 1
      if name < me then rank = rank + 1 end
      if now - tonumber(last) > silent then quiet = quiet + 1 end
    end
  end
end
if does == 'leave' then
  redis.call('HDEL', KEYS[1], me)
elseif does == 'report' then
  redis.call('HSET', KEYS[1], me, string.format('%.0f %.0f', joined, now))
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {count + 1, rank, quiet, now - since, now - joined, server}
"""


class Presence(Struct, frozen=True):
    """What a process hears of all.

    Attributes:
        count: processes that report, this one included.
        rank: its place among them, from 0; all see the same order.
        silent: how many of the others have not been heard for two seconds.
        server_age: milliseconds since the server was first seen by any of them.
        own_age: milliseconds since this process first reported.
        server: tells one server, or one life of it, from another; empty if that is not told.
    """

    count: int
    rank: int
    silent: int
    server_age: int
    own_age: int
    server: str = ""


class Does(StrEnum):
    """What a process does about its presence."""

    REPORT = "report"
    LOOK = "look"
    LEAVE = "leave"


class Present(Protocol):
    """A store that knows who shares it."""

    @property
    def connections(self) -> int:
        """Connections made so far: behind a new one there may be another server."""

    async def presence(self, member: str, does: Does) -> Presence:
        """Report, look who else does, or take one's leave. Raises `StoreError`."""


async def presence_of(run: Callable[..., Awaitable[Any]], member: str, does: Does) -> Presence:
    """Ask through a function that runs one command."""
    said = await run("EVAL", _SCRIPT, 1, KEY, member, does.value, _GONE, _SILENT, _KEPT)
    *numbers, server = said
    count, rank, silent, server_age, own_age = map(int, numbers)
    return Presence(count, rank, silent, server_age, own_age, server.decode())
