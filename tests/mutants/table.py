"""Faults the tests must notice. Each is one change of the source: a file, its exact text, another text.

A text stands in its file exactly once, so that a mutant cannot silently miss its place when the code
moves.
"""

# ruff: noqa: E501 - a text is easier to compare with the source in one piece

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]

QUOTA = "headgate/policy/quota/"
LEDGER, ACCOUNTS = QUOTA + "ledger.py", QUOTA + "accounts.py"
WINDOWS, PRICE = QUOTA + "windows.py", QUOTA + "price.py"


class Mutant(NamedTuple):
    """One fault."""

    name: str
    file: str
    text: str
    replacement: str


MUTANTS = (
    # ── when a charge ends ──────────────────────────────────────────────────────────────────────
    Mutant("floor for ceil", WINDOWS, "-(-latest // width) * width", "latest // width * width"),
    Mutant(
        "guard dropped",
        WINDOWS,
        "(limit.guard if counted_by is None else counted_by)",
        "(0 if counted_by is None else counted_by)",
    ),
    Mutant(
        "midnight without the guard",
        WINDOWS,
        "bisect_right(resets, latest + RESET_EARLY)",
        "bisect_right(resets, moment + RESET_EARLY)",
    ),
    Mutant(
        "an early reset forgotten",
        WINDOWS,
        "bisect_right(resets, latest + RESET_EARLY)",
        "bisect_right(resets, latest)",
    ),
    Mutant("a late reset forgotten", WINDOWS, "] + RESET_LATE", "]"),
    Mutant(
        "counted exactly at the reset",
        WINDOWS,
        "resets[bisect_right(resets, latest + RESET_EARLY)]",
        "resets[bisect_right(resets, latest + RESET_EARLY - 1)]",
    ),
    Mutant(
        "a day of 86 400 s",
        "headgate/policy/days.py",
        "return _midnight(datetime.fromtimestamp(wall, tz).date() + timedelta(days=1), tz)",
        "return day_start(wall, zone) + 86_400",
    ),
    Mutant("window a millisecond short", WINDOWS, "* width + limit.window", "* width + limit.window - 1"),
    Mutant(
        "settled charges end without the skew",
        LEDGER,
        "counted_by=SKEW)",
        "counted_by=0)",
    ),
    Mutant("fine buckets for a rolling day", WINDOWS, "limit.window >= DAY", "limit.window > DAY"),
    Mutant("width of nothing", WINDOWS, "max(1, limit.window // BUCKETS)", "limit.window // BUCKETS or 2"),
    # ── room ────────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "one more than the limit",
        ACCOUNTS,
        "if used + costs.get(limit.counts, 0) > limit.amount:",
        "if used + costs.get(limit.counts, 0) > limit.amount + 1:",
    ),
    Mutant(
        "one less than the limit",
        ACCOUNTS,
        "if used + costs.get(limit.counts, 0) > limit.amount:",
        "if used + costs.get(limit.counts, 0) >= limit.amount:",
    ),
    Mutant(
        "only the fullness, not the need, is checked",
        ACCOUNTS,
        "if used + costs.get(limit.counts, 0) > limit.amount:",
        "if used >= limit.amount:",
    ),
    Mutant(
        "first limit left out",
        ACCOUNTS,
        """        for limit, used in zip(self.limits, self.used, strict=True):
            if used + costs""",
        """        for limit, used in zip(self.limits[1:], self.used[1:], strict=True):
            if used + costs""",
    ),
    Mutant(
        "last limit left out",
        ACCOUNTS,
        """        for limit, used in zip(self.limits, self.used, strict=True):
            if used + costs""",
        """        for limit, used in zip(self.limits[:3], self.used[:3], strict=True):
            if used + costs""",
    ),
    Mutant("rest a millisecond too long", ACCOUNTS, "self.resting > now or", "self.resting >= now or"),
    Mutant("test not exclusive", ACCOUNTS, " or self.testing is not None", ""),
    Mutant("shut forgotten", ACCOUNTS, "return self.shut or self.resting", "return self.resting"),
    Mutant("class of the widest limit", ACCOUNTS, "left < tightest", "left > tightest"),
    Mutant("classes of another order", ACCOUNTS, "int((mantissa - 0.5) * 8)", "int((1 - mantissa) * 8)"),
    # ── acquire ─────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "acquire not idempotent",
        LEDGER,
        "if (held := self._held.get(ask.rid)) is not None:",
        "if (held := self._held.get(ask.rid)) is not None and held.orphan:",
    ),
    Mutant("now not monotone", LEDGER, "self.now = max(self.now, now)", "self.now = now"),
    Mutant("excluded domains serve", LEDGER, "return handle not in ask.exclude and", "return"),
    Mutant(
        "middle band skipped",
        LEDGER,
        "found = self._walk(ask, perhaps, sure)",
        "found = []",
    ),
    Mutant(
        "middle band taken unverified",
        LEDGER,
        "            if self._able(ask, handle):\n                return [handle]",
        "            if handle not in ask.exclude:\n                return [handle]",
    ),
    Mutant(
        "middle band from the dearest cost",
        LEDGER,
        "perhaps = bisect_left(self._index, (room_class(min(tokens, default=1)), CLOSED))",
        "perhaps = bisect_left(self._index, (room_class(max(tokens, default=1)), CLOSED))",
    ),
    Mutant(
        "middle band begins a class too high",
        LEDGER,
        "(room_class(min(tokens, default=1)), CLOSED)",
        "(room_class(min(tokens, default=1)) + 1, CLOSED)",
    ),
    Mutant("no walk after unlucky samples", LEDGER, "return found or self._walk", "return found and self._walk"),
    Mutant("walk never turns", LEDGER, "        self._turn += 1\n", ""),
    Mutant("walk of one step", LEDGER, "LONGEST_WALK = 64", "LONGEST_WALK = 1"),
    Mutant("dearest taken", LEDGER, "chosen = min(", "chosen = max("),
    Mutant("wish always granted", LEDGER, "<= 2 * self._price(ask, chosen)", "<= 10**18"),
    Mutant("wish never granted", LEDGER, "<= 2 * self._price(ask, chosen)", "< 0"),
    Mutant("wish granted without room", LEDGER, "if wish is None or not self._able(ask, wish):", "if wish is None:"),
    Mutant("least recent forgotten", LEDGER, "        account.last = self._order\n", ""),
    Mutant(
        "price blind to fullness", PRICE, "min(STEPS, max(0, used) * STEPS // limit)", "0 * used * STEPS"
    ),
    Mutant("price blind to the limit", PRICE, "* EXPONENTIAL[step] * 1000 // limit", "* EXPONENTIAL[step]"),
    Mutant("charge of nothing", LEDGER, "            account.used[number] += needs[number]\n", ""),
    Mutant("no place after a charge", LEDGER, "        self._place(handle)\n        return Grant", "        return Grant"),
    Mutant("reservations never lapse", LEDGER, "        heappush(self._wheel, (held.lapses, _LAPSE, 0, 0, ask.rid))\n", ""),
    Mutant("test not marked", LEDGER, "account.canary, account.testing = False, ask.rid", "account.canary = False"),
    # ── settle ──────────────────────────────────────────────────────────────────────────────────
    Mutant("settle not idempotent", LEDGER, "        held = self._held.pop(rid, None)\n        if held is None:\n            return\n        account = self.accounts[held.domain]\n        for number, limit in enumerate(account.limits[: len(held.needs)]):\n            need", "        held = self._held.get(rid)\n        if held is None:\n            return\n        account = self.accounts[held.domain]\n        for number, limit in enumerate(account.limits[: len(held.needs)]):\n            need"),
    Mutant("late settle dropped", LEDGER, "            need = held.needs[number]\n            self._settle_one", "            need = held.needs[number]\n            if held.orphan:\n                continue\n            self._settle_one"),
    Mutant("late excess dropped", LEDGER, "held.expires[number], need - used) and used > need:", "held.expires[number], need - used) and used < 0:"),
    Mutant("excess of an early call dropped", LEDGER, "held.expires[number], need - used)", "held.expires[number], max(0, need - used))"),
    Mutant(
        "early settle edits a bucket that expired",
        ACCOUNTS,
        "        if expires not in buckets:\n            return False\n        buckets[expires] -= amount",
        "        buckets[expires] = buckets.get(expires, 0) - amount",
    ),
    Mutant(
        "envelope settle frees at once",
        LEDGER,
        "            account.used[number] += used\n            self._put(held.domain, number, self._from_now(limit), used)",
        "            pass",
    ),
    Mutant(
        "envelope settle holds from the admission",
        LEDGER,
        "self._put(held.domain, number, self._from_now(limit), used)",
        "self._put(held.domain, number, expiry(limit, held.lapses - TTL, self.resets), used)",
    ),
    Mutant("orphan charged twice", LEDGER, "account.take(number, held.expires[number], need)\n            else", "pass\n            else"),
    Mutant("slot of an orphan freed twice", LEDGER, "0 if held.orphan else need", "need"),
    Mutant("slot never freed", LEDGER, "account.used[number] -= 0 if held.orphan else need", "pass"),
    Mutant(
        "no place after a settle",
        LEDGER,
        "            account.testing, account.canary = None, not served\n        self._place(held.domain)",
        "            account.testing, account.canary = None, not served",
    ),
    Mutant("failed test opens the domain", LEDGER, "= None, not served", "= None, False"),
    Mutant("settle of a shorter record", LEDGER, "costs.get(limit.counts, need), now)", "costs.get(limit.counts, 0), now)"),
    # ── cancel and renew ────────────────────────────────────────────────────────────────────────
    Mutant("cancel keeps the charge", LEDGER, "account.take(number, held.expires[number], held.needs[number])", "pass"),
    Mutant("cancel keeps what is in flight", LEDGER, "            elif not held.orphan:\n                account.used[number] -= held.needs[number]", "            elif not held.orphan:\n                pass"),
    Mutant("cancel of an orphan frees its slot again", LEDGER, "            elif not held.orphan:\n", "            else:\n"),
    Mutant("cancel of an orphan keeps its charge", LEDGER, "(limit.mode is Mode.EARLY or held.orphan)", "(limit.mode is Mode.EARLY)"),
    Mutant("a cancelled test is over", LEDGER, "account.testing, account.canary = None, True\n        self._place(held.domain)\n\n    def renew", "account.testing, account.canary = None, False\n        self._place(held.domain)\n\n    def renew"),
    Mutant("renewal ignored", LEDGER, "            held.lapses = now + TTL\n            heappush(self._wheel, (held.lapses, _LAPSE, 0, 0, rid))\n\n    # ──", "            pass\n\n    # ──"),
    Mutant("renewal without its event", LEDGER, "            held.lapses = now + TTL\n            heappush(self._wheel, (held.lapses, _LAPSE, 0, 0, rid))\n\n    # ──", "            held.lapses = now + TTL\n\n    # ──"),
    Mutant("an orphan is renewed", LEDGER, "if held is not None and not held.orphan:", "if held is not None:"),
    # ── what the provider says ──────────────────────────────────────────────────────────────────
    Mutant("a shorter rest replaces a longer", LEDGER, "if until > account.resting:", "if until:"),
    Mutant("nobody wakes a rested domain", LEDGER, "            heappush(self._wheel, (until, _REST, handle, 0, \"\"))\n", ""),
    Mutant("a rest forgets its test", LEDGER, "account.canary = canary or account.canary", "account.canary = canary"),
    Mutant("a rest keeps the old test", LEDGER, "        account.testing = None\n        account.canary = canary", "        account.canary = canary"),
    Mutant("reopened but still to be tested", LEDGER, "account.canary, account.testing = 0, False, None", "account.canary, account.testing = 0, account.canary, None"),
    Mutant("shut without leaving the index", LEDGER, "        self.accounts[handle].shut = shut\n        self._place(handle)", "        self.accounts[handle].shut = shut"),
    Mutant("a limit told is ignored", LEDGER, "structs.replace(account.limits[number], amount=limit.amount)", "account.limits[number]"),
    Mutant("a limit told changes the window", LEDGER, "structs.replace(account.limits[number], amount=limit.amount)", "limit"),
    Mutant("no place after a limit was told", LEDGER, "            account.buckets.append({})\n        self._place(handle)", "            account.buckets.append({})"),
    # ── time ────────────────────────────────────────────────────────────────────────────────────
    Mutant("released a millisecond early", LEDGER, "while self._wheel and self._wheel[0][0] <= self.now:", "while self._wheel and self._wheel[0][0] <= self.now + 1:"),
    Mutant("released a millisecond late", LEDGER, "while self._wheel and self._wheel[0][0] <= self.now:", "while self._wheel and self._wheel[0][0] < self.now:"),
    Mutant("no place after a release", LEDGER, "            touched.add(handle)\n            elif event == _REST:", "            elif event == _REST:"),
    Mutant("crash frees the reservation", LEDGER, "                self._lapse(rid, held)\n", "                self.cancel(rid, self.now)\n"),
    Mutant("crash frees what is in flight", LEDGER, "                held.expires[number] = self._from_now(limit)\n                self._put(held.domain, number, held.expires[number], held.needs[number])\n        held.orphan", "                account.used[number] -= held.needs[number]\n        held.orphan"),
    Mutant("crash keeps the slot", LEDGER, "                account.used[number] -= held.needs[number]\n            elif limit.mode is Mode.ENVELOPE:", "                pass\n            elif limit.mode is Mode.ENVELOPE:"),
    Mutant("lapses although it was renewed", LEDGER, "is not None and held.lapses <= self.now:", "is not None:"),
    Mutant("orphan's record never deleted", LEDGER, "            del self._held[rid]\n", ""),
    Mutant("orphan's record deleted before its charge", LEDGER, "max([self.now + TTL, *held.expires])", "self.now + 1"),
    Mutant("abandoned test blocks for ever", LEDGER, "        if account.testing == rid:\n            account.testing, account.canary = None, True\n        held.lapses", "        held.lapses"),
    Mutant("abandoned test opens the domain", LEDGER, "            account.testing, account.canary = None, True\n        held.lapses", "            account.testing, account.canary = None, False\n        held.lapses"),
    Mutant("each charge is released once more", LEDGER, "if self.accounts[handle].put(number, expires, amount):", "if not self.accounts[handle].put(number, expires, amount):"),
    Mutant("a bucket forgets what it held", ACCOUNTS, "amount if held is None else held + amount", "amount"),
    # ── refusals ────────────────────────────────────────────────────────────────────────────────
    Mutant("impossible ask waits", LEDGER, "return Refusal(None, never=self._too_large(ask))", "return Refusal(now + 1)"),
    Mutant("impossible ask waits in a large pool", LEDGER, "            if self._too_large(ask):\n                return Refusal(None, never=True)\n", ""),
    Mutant("impossible by one domain only", LEDGER, "return bool(self.accounts) and all(", "return bool(self.accounts) and any("),
    Mutant("never of an empty pool", LEDGER, "return bool(self.accounts) and all(", "return all("),
    Mutant("room of the last domain to have it", LEDGER, "at, name = min(times", "at, name = max(times"),
    Mutant("a full limit is waited for too briefly", ACCOUNTS, "if free > at:", "if free < at:"),
    Mutant("newest bucket first", ACCOUNTS, "for expires in sorted(buckets):", "for expires in sorted(buckets, reverse=True):"),
    Mutant("one bucket more than needed", ACCOUNTS, "            if missing <= 0:\n                return expires", "            if missing < 0:\n                return expires"),
    Mutant("rest left out of a refusal", ACCOUNTS, "at, name = self.resting, \"rest\"", "pass"),
    Mutant("refusal counts excluded domains", LEDGER, "if not account.shut and handle not in ask.exclude\n", "if not account.shut\n"),
    Mutant("refusal counts domains that are shut", LEDGER, "if not account.shut and handle not in ask.exclude\n", "if handle not in ask.exclude\n"),
    Mutant("refusal of a large pool names no event", LEDGER, "Refusal(max(now + 1, self.next_event() or now + 1))", "Refusal(now + TTL)"),
)  # fmt: skip
