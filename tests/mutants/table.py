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
CHOICE, REFUSALS = QUOTA + "choice.py", QUOTA + "refusals.py"
BOOKS, PACING = QUOTA + "books.py", QUOTA + "pacing.py"
SCRIPT = "headgate/stores/lua/ledger"


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
    Mutant("no reset to come ends at once", WINDOWS, "return latest + 2 * DAY if", "return latest if"),
    Mutant(
        "counted exactly at the reset",
        WINDOWS,
        "bisect_right(resets, latest + RESET_EARLY)",
        "bisect_right(resets, latest + RESET_EARLY - 1)",
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
        BOOKS,
        "counted_by=SKEW)",
        "counted_by=0)",
    ),
    Mutant("fine buckets for a rolling day", WINDOWS, "limit.window >= DAY", "limit.window > DAY"),
    Mutant("width of nothing", WINDOWS, "max(1, limit.window // BUCKETS)", "limit.window // BUCKETS or 2"),
    # ── room ────────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "one more than the limit",
        ACCOUNTS,
        "if used + costs[limit.counts] > limit.amount:",
        "if used + costs[limit.counts] > limit.amount + 1:",
    ),
    Mutant(
        "one less than the limit",
        ACCOUNTS,
        "if used + costs[limit.counts] > limit.amount:",
        "if used + costs[limit.counts] >= limit.amount:",
    ),
    Mutant(
        "only the fullness, not the need, is checked",
        ACCOUNTS,
        "if used + costs[limit.counts] > limit.amount:",
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
    Mutant("rest a millisecond too long", ACCOUNTS, "held_back = self.resting > now or", "held_back = self.resting >= now or"),
    Mutant("test not exclusive", ACCOUNTS, "held_back or self.testing is not None", "held_back"),
    Mutant("shut forgotten", ACCOUNTS, "return self.shut or held_back", "return held_back"),
    Mutant("class of the widest limit", ACCOUNTS, "left < tightest", "left > tightest"),
    Mutant("classes of another order", ACCOUNTS, "int((mantissa - 0.5) * 8)", "int((1 - mantissa) * 8)"),
    # ── acquire ─────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "acquire not idempotent",
        LEDGER,
        "if held is not None and self._ask_again(ask.rid, held, now):",
        "if held is not None and held.orphan and self._ask_again(ask.rid, held, now):",
    ),
    Mutant("charged where it is told, twice", LEDGER, "        if held is not None:\n            return self._grant(ask.rid, held)\n        return self._charge", "        return self._charge"),
    Mutant("a repetition is timed from the first ask", LEDGER, "            if later > expires and", "            if later < expires and"),
    Mutant("a repetition is charged twice", LEDGER, "account.take(number, expires, held.needs[number]):", "account.take(number, expires, 0):"),
    Mutant("a repetition loses what is used", LEDGER, "                account.used[number] += held.needs[number]\n                held.expires[number] = later", "                held.expires[number] = later"),
    Mutant("a repetition forgets its bucket", LEDGER, "                held.expires[number] = later\n", ""),
    Mutant("a repetition is no sign of life", LEDGER, "        held.lapses = now + TTL\n        heappush(self._lapses, (held.lapses, rid))\n        return True", "        return True"),
    Mutant("a repetition after its charge has ended", LEDGER, "held.orphan or any(0 < expires <= now for expires in held.expires)", "held.orphan"),
    Mutant("a repetition by an orphan", LEDGER, "held.orphan or any(0 < expires <= now for expires in held.expires)", "any(0 < expires <= now for expires in held.expires)"),
    Mutant("a repetition after its charge has ended gives all back", LEDGER, "            self.settle(rid, {}, now, served=False)\n", "            self.cancel(rid, now)\n"),
    Mutant("what is not named costs nothing", CHOICE, "max(1, named.get(counts, 0))", "named.get(counts, 0)"),
    Mutant("what nobody limits is looked at", CHOICE, "taken = [costs[counts] for counts in tokens]", "taken = [named[counts] for counts in named if counts.is_tokens]"),
    Mutant("what a learned limit counts is not", BOOKS, "            self._count([limit])\n", ""),
    Mutant("now not monotone", BOOKS, "self.now = now = max(self.now, now)", "self.now = now"),
    Mutant("excluded domains serve", CHOICE, "        if handle in wish.exclude:\n            return False\n", ""),
    Mutant("middle band skipped", CHOICE, "found = self._walk(wish, perhaps, sure, now)", "found = []"),
    Mutant(
        "middle band taken unverified",
        CHOICE,
        "            if self._able(wish, handle, now):\n                return [handle]",
        "            if handle not in wish.exclude:\n                return [handle]",
    ),
    Mutant("middle band from the dearest cost", CHOICE, "(room_class(wish.least), CLOSED)", "(room_class(wish.dearest), CLOSED)"),
    Mutant("middle band begins a class too high", CHOICE, "(room_class(wish.least), CLOSED)", "(room_class(wish.least) + 1, CLOSED)"),
    Mutant("no walk after unlucky samples", CHOICE, "return found or self._walk", "return found and self._walk"),
    Mutant("walk never turns", CHOICE, "            self.turn += 1\n", ""),
    Mutant("walk of one step", CHOICE, "LONGEST_WALK = 64", "LONGEST_WALK = 1"),
    Mutant("walk begins where it began", CHOICE, "            self.turn += 1\n            handle", "            self.turn += step == 0\n            handle"),
    Mutant("a search that was cut says nothing", CHOICE, "self.cut = self.cut or count > LONGEST_WALK", "self.cut = False"),
    Mutant("every search says it was cut", CHOICE, "self.cut = self.cut or count > LONGEST_WALK", "self.cut = True"),
    Mutant("cut once, cut for ever", CHOICE, "self.cut, self.soonest = False, None", "self.soonest = None"),
    Mutant("a pace is waited for, for ever", CHOICE, "self.cut, self.soonest = False, None", "self.cut = False"),
    Mutant("dearest taken", CHOICE, "chosen = min(", "chosen = max("),
    Mutant("wish always granted", CHOICE, "> 2 * accounts[chosen].price(costs)", "> 10**18"),
    Mutant("wish never granted", CHOICE, "> 2 * accounts[chosen].price(costs)", ">= 0"),
    Mutant("wish granted without room", CHOICE, "if preferred is None or not self._able(wish, preferred, now):", "if preferred is None:"),
    Mutant("least recent forgotten", LEDGER, "        account.last = self._order\n", ""),
    Mutant(
        "price blind to fullness", PRICE, "used * STEPS // limit if 0 < used < limit else STEPS", "0"
    ),
    Mutant("price blind to the limit", PRICE, "* EXPONENTIAL[step] * 1000 // limit", "* EXPONENTIAL[step]"),
    Mutant("the next seed is one higher", PRICE, "return seed * 48271 % 2147483647", "return seed % 2147483646 + 1"),
    Mutant("charge of nothing", LEDGER, "            account.used[number] += needs[number]\n", ""),
    Mutant("no place after a charge", LEDGER, "        self._choice.place(handle, now)\n        return self._grant(wish.rid, held)", "        return self._grant(wish.rid, held)"),
    Mutant("reservations never lapse", LEDGER, "        heappush(self._lapses, (held.lapses, wish.rid))\n", ""),
    Mutant("test not marked", LEDGER, "account.canary, account.testing = False, wish.rid", "account.canary = False"),
    # ── settle ──────────────────────────────────────────────────────────────────────────────────
    Mutant("settle not idempotent", LEDGER, "        held = self._held.pop(rid, None)\n        if held is None:\n            return\n        account = self.accounts[held.domain]\n        for number, limit in enumerate(account.limits[: len(held.needs)]):\n            need", "        held = self._held.get(rid)\n        if held is None:\n            return\n        account = self.accounts[held.domain]\n        for number, limit in enumerate(account.limits[: len(held.needs)]):\n            need"),
    Mutant("late settle dropped", LEDGER, "            self._settle_one(held, number, limit, used, now)\n", "            if not held.orphan:\n                self._settle_one(held, number, limit, used, now)\n"),
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
        "            account.testing, account.canary = None, not served\n        self._choice.place(held.domain, now)",
        "            account.testing, account.canary = None, not served",
    ),
    Mutant("failed test opens the domain", LEDGER, "= None, not served", "= None, False"),
    Mutant("settle of a shorter record", LEDGER, "used = costs.get(limit.counts, need)", "used = costs.get(limit.counts, 0)"),
    # ── cancel and renew ────────────────────────────────────────────────────────────────────────
    Mutant("cancel keeps the charge", LEDGER, "account.take(number, held.expires[number], held.needs[number])", "pass"),
    Mutant("cancel keeps what is in flight", LEDGER, "            elif not held.orphan:\n                account.used[number] -= held.needs[number]", "            elif not held.orphan:\n                pass"),
    Mutant("cancel of an orphan frees its slot again", LEDGER, "            elif not held.orphan:\n", "            else:\n"),
    Mutant("cancel of an orphan keeps its charge", LEDGER, "(limit.mode is Mode.EARLY or held.orphan)", "(limit.mode is Mode.EARLY)"),
    Mutant("a cancelled test is over", LEDGER, "account.testing, account.canary = None, True\n        self._choice.place(held.domain, now)\n\n    def renew", "account.testing, account.canary = None, False\n        self._choice.place(held.domain, now)\n\n    def renew"),
    Mutant("renewal ignored", LEDGER, "            held.lapses = now + TTL\n            heappush(self._lapses, (held.lapses, rid))\n\n    # ──", "            pass\n\n    # ──"),
    Mutant("renewal without its event", LEDGER, "            held.lapses = now + TTL\n            heappush(self._lapses, (held.lapses, rid))\n\n    # ──", "            held.lapses = now + TTL\n\n    # ──"),
    Mutant("an orphan is renewed", LEDGER, "if held is not None and not held.orphan:", "if held is not None:"),
    # ── what the provider says ──────────────────────────────────────────────────────────────────
    Mutant("a shorter rest replaces a longer", BOOKS, "if until > account.resting:\n            account.canary", "if until:\n            account.canary"),
    Mutant("nobody wakes a rested domain", BOOKS, "            heappush(self._wheel, (until, _REST, handle, 0))\n", ""),
    Mutant("a rest forgets its test", BOOKS, "account.canary = canary or account.canary or account.testing is not None", "account.canary = canary or account.testing is not None"),
    Mutant("a rest forgets the test under way", BOOKS, "account.canary = canary or account.canary or account.testing is not None", "account.canary = canary or account.canary"),
    Mutant("a rest keeps the old test", BOOKS, "            account.testing = None\n            account.resting = until", "            account.resting = until"),
    Mutant("a penalty told late ends a test", BOOKS, "        elif account.resting > now:\n            account.canary = canary or account.canary\n", "        else:\n            account.canary, account.testing = canary or account.canary, None\n"),
    Mutant("a shorter rest wants no test", BOOKS, "        elif account.resting > now:\n            account.canary = canary or account.canary\n", ""),
    Mutant("reopened but still to be tested", BOOKS, "account.canary, account.testing = 0, False, None", "account.canary, account.testing = 0, account.canary, None"),
    Mutant("shut without leaving the index", BOOKS, "        self.accounts[handle].shut = shut\n        self._choice.place(handle, now)", "        self.accounts[handle].shut = shut"),
    Mutant("a limit told is ignored", BOOKS, "structs.replace(old, amount=limit.amount)", "old"),
    Mutant("a limit told changes the window", BOOKS, "structs.replace(old, amount=limit.amount)", "limit"),
    Mutant("no place after a limit was told", BOOKS, "            self._count([limit])\n        self._choice.place(handle, now)", "            self._count([limit])"),
    # ── time ────────────────────────────────────────────────────────────────────────────────────
    Mutant("released a millisecond early", BOOKS, "while self._wheel and self._wheel[0][0] <= now:", "while self._wheel and self._wheel[0][0] <= now + 1:"),
    Mutant("released a millisecond late", BOOKS, "while self._wheel and self._wheel[0][0] <= now:", "while self._wheel and self._wheel[0][0] < now:"),
    Mutant("no place after a release", BOOKS, "            touched.add(handle)\n        while", "            if event == _REST:\n                touched.add(handle)\n        while"),
    Mutant("crash frees the reservation", BOOKS, "                self._lapse(rid, held)\n", "                self.cancel(rid, now)\n"),
    Mutant("crash frees what is in flight", BOOKS, "                held.expires[number] = self._from_now(limit)\n                self._put(held.domain, number, held.expires[number], held.needs[number])\n        held.orphan", "                account.used[number] -= held.needs[number]\n        held.orphan"),
    Mutant("crash keeps the slot", BOOKS, "                account.used[number] -= held.needs[number]\n            elif limit.mode is Mode.ENVELOPE:", "                pass\n            elif limit.mode is Mode.ENVELOPE:"),
    Mutant("lapses although it was renewed", BOOKS, "is not None and held.lapses <= now:", "is not None:"),
    Mutant("orphan's record never deleted", BOOKS, "            del self._held[rid]\n", ""),
    Mutant("orphan's record deleted before its charge", BOOKS, "max([self.now + TTL, *held.expires])", "self.now + 1"),
    Mutant("abandoned test blocks for ever", BOOKS, "        if account.testing == rid:\n            account.testing, account.canary = None, True\n        held.lapses", "        held.lapses"),
    Mutant("abandoned test opens the domain", BOOKS, "            account.testing, account.canary = None, True\n        held.lapses", "            account.testing, account.canary = None, False\n        held.lapses"),
    Mutant("each charge is released once more", BOOKS, "if self.accounts[handle].put(number, expires, amount):", "if not self.accounts[handle].put(number, expires, amount):"),
    Mutant("a bucket forgets what it held", ACCOUNTS, "amount if held is None else held + amount", "amount"),
    # ── refusals ────────────────────────────────────────────────────────────────────────────────
    Mutant("impossible ask waits", REFUSALS, "return Refusal(None, never=fits_nowhere(accounts, wish.costs))", "return Refusal(flights.now + 1)"),
    Mutant("impossible ask waits in a large pool", LEDGER, "        if fits_nowhere(self.accounts, wish.costs):\n            return Refusal(None, never=True)\n", ""),
    Mutant("impossible by one domain only", REFUSALS, "return bool(accounts) and all(", "return bool(accounts) and any("),
    Mutant("never of an empty pool", REFUSALS, "return bool(accounts) and all(", "return all("),
    Mutant("room of the last domain to have it", REFUSALS, "at, name = min(times", "at, name = max(times"),
    Mutant("a full limit is waited for too briefly", ACCOUNTS, "if free > at:", "if free < at:"),
    Mutant("newest bucket first", ACCOUNTS, "for expires in sorted(buckets):", "for expires in sorted(buckets, reverse=True):"),
    Mutant("one bucket more than needed", ACCOUNTS, "            if missing <= 0:\n                return expires", "            if missing < 0:\n                return expires"),
    Mutant("rest left out of a refusal", ACCOUNTS, "at, name = self.resting, \"rest\"", "pass"),
    Mutant("a test is waited for no longer than a rest", ACCOUNTS, "at, name = max(at, flights.tested(self.testing)), \"rest\"", "pass"),
    Mutant("a slot is waited for a whole life", ACCOUNTS, "            return self.lapse\n", "            return self.now + 90_000\n"),
    Mutant("an envelope is waited for until the lapse", ACCOUNTS, "return expiry(limit, self.lapse, self.resets, counted_by=SKEW)", "return self.lapse"),
    Mutant("an envelope is waited for a window from now", ACCOUNTS, "return expiry(limit, self.lapse, self.resets, counted_by=SKEW)", "return None"),
    Mutant("refusal counts excluded domains", REFUSALS, "if not account.shut and handle not in wish.exclude\n", "if not account.shut\n"),
    Mutant("refusal counts domains that are shut", REFUSALS, "if not account.shut and handle not in wish.exclude\n", "if handle not in wish.exclude\n"),
    Mutant("refusal of a large pool names no event", LEDGER, "event, soonest = self.next_event(), self._choice.soonest", "event, soonest = now + TTL, None"),
    Mutant("refusal of a large pool after a cut search waits", LEDGER, "        if self._choice.cut:  # another ask looks at others\n            return Refusal(now + 1)\n", ""),
    Mutant("next event forgets lapses", BOOKS, "return due if lapse is None or (due is not None and due < lapse) else lapse", "return due"),
    Mutant("next event forgets all but lapses", BOOKS, "return due if lapse is None or (due is not None and due < lapse) else lapse", "return lapse"),
    Mutant("a lapse that was renewed is waited for", BOOKS, "if held is not None and held.lapses == due:", "if held is not None:"),
    # ── what a grant tells ──────────────────────────────────────────────────────────────────────
    Mutant("less than nothing is left of a day", ACCOUNTS, "max(0, self.limits[n].amount - self.used[n])", "self.limits[n].amount - self.used[n]"),
    Mutant("what is left of each limit is told", ACCOUNTS, "        if limit.kind is Kind.CALENDAR:\n            self._days", "        if limit.kind:\n            self._days"),
    # ── paced limits ────────────────────────────────────────────────────────────────────────────
    Mutant("paced domains stay in the index", ACCOUNTS, "self.resting > now or self.paced > now", "self.resting > now"),
    Mutant("paced a millisecond too long", ACCOUNTS, "self.resting > now or self.paced > now", "self.resting > now or self.paced >= now"),
    Mutant("large calls are not paced", ACCOUNTS, "return not self.paces or self.pace_at(costs) <= now", "return True"),
    Mutant("the fastest of two paces binds", ACCOUNTS, "self.paced = max(1, self.paced, pace", "self.paced = min(self.paced or 10**15, pace"),
    Mutant("a refusal leaves out the pace", ACCOUNTS, "return self.pace_chance(costs, at, name) if self.paces else (at, name)", "return at, name"),
    Mutant("a refusal waits for a pace that ends", ACCOUNTS, "chance = min(pace.opens(limit, costs[limit.counts]), pace.due)", "chance = pace.opens(limit, costs[limit.counts])"),
    Mutant("a large pool leaves out the pace", LEDGER, "event, soonest = self.next_event(), self._choice.soonest", "event, soonest = self.next_event(), None"),
    Mutant("nobody wakes a paced domain", BOOKS, "            heappush(self._wheel, (account.paced, _REST, handle, 0))", "            pass"),
    Mutant("no call takes of the pace", LEDGER, "            self._pace_out(handle)\n        if account.canary:", "        if account.canary:"),
    Mutant("every limit is paced", BOOKS, "if name not in (\"\", limit.name) or not may_pace(limit):", "if not may_pace(limit):"),
    Mutant("no limit but the named is paced", BOOKS, "if name not in (\"\", limit.name) or", "if name != limit.name or"),
    Mutant("days are paced", PACING, "return limit.kind is Kind.ROLLING and limit.amount > 1", "return limit.kind is not Kind.CONCURRENT and limit.amount > 1"),
    Mutant("slots are paced", PACING, "return limit.kind is Kind.ROLLING and limit.amount > 1", "return limit.kind is not Kind.CALENDAR and limit.amount > 1"),
    Mutant("one is paced", PACING, "and limit.amount > 1", "and limit.amount > 0"),
    Mutant("the burst is free at first", PACING, "self.arrival = now * 1000 + self._cost(limit, self.burst)", "self.arrival = now * 1000"),
    Mutant("the burst is all of the limit but one", PACING, "self.burst = limit.amount // 2", "self.burst = limit.amount - 1"),
    Mutant("the pace is that of the whole limit", PACING, "return _horizon(limit) / (limit.amount - burst)", "return _horizon(limit) / limit.amount"),
    Mutant("the pace leaves out the guard", PACING, "(limit.window + limit.guard + 1) * 1000", "(limit.window + 1) * 1000"),
    Mutant("no burst", PACING, "self.arrival - int((self.burst - need) * self._interval(limit, self.burst))", "self.arrival"),
    Mutant("a burst one too large", PACING, "int((self.burst - need) * self", "int((self.burst - need + 1) * self"),
    Mutant("a large call waits only for its turn", PACING, "at = self.arrival + int((need - self.burst) * self._interval(limit, need)) + 1", "at = self.arrival"),
    Mutant("a large call waits at the old pace", PACING, "int((need - self.burst) * self._interval(limit, need))", "int((need - self.burst) * self._interval(limit, self.burst))"),
    Mutant("a larger call does not go alone", PACING, "            at = self.arrival + _alone(limit)", "            at = self.arrival"),
    Mutant("a larger call does not stay alone", PACING, "return _alone(limit) + int(self.burst * interval) + 1", "return int(self.burst * interval) + 1"),
    Mutant("alone for one window", PACING, "return 2 * _horizon(limit)", "return _horizon(limit)"),
    Mutant("a large call raises no burst", PACING, "            self.burst = need\n", "            pass\n"),
    Mutant("a call sent anyway raises the burst", PACING, "need <= _most(limit) and self.opens(limit, need) <= now:", "need <= _most(limit):"),
    Mutant("the pace forgets what is taken", PACING, "self.arrival = max(self.arrival, now * 1000) + self._cost(limit, need)", "self.arrival = now * 1000 + self._cost(limit, need)"),
    Mutant("the pace saves what was not taken", PACING, "self.arrival = max(self.arrival, now * 1000) + self._cost(limit, need)", "self.arrival = self.arrival + self._cost(limit, need)"),
    Mutant("a call that used more is not paced", PACING, "self.arrival = max(self.arrival, now * 1000) + change", "pass"),
    Mutant("a call that used less gives nothing back", PACING, "self.arrival -= min(-change, max(0, end - now * 1000))", "pass"),
    Mutant("a call gives back what was given back", PACING, "self.arrival -= min(-change, max(0, end - now * 1000))", "self.arrival -= -change"),
    Mutant("a cancelled call keeps its part of the burst", LEDGER, "            self._settle_pace(held, number, limit, 0)\n", ""),
    Mutant("a settled call opens nothing", LEDGER, "                self._settle_pace(held, number, limit, used)\n        if held.ends:\n            self._pace_out(held.domain)", "                self._settle_pace(held, number, limit, used)"),
    Mutant("a repetition takes nothing of the pace", PACING, "        self.arrival = max(self.arrival, now * 1000) + missing\n", ""),
    Mutant("a repetition takes all of the pace", PACING, "missing = cost - min(cost, max(0, end - now * 1000))", "missing = cost"),
    Mutant("each refusal of a burst is an event", PACING, "if now <= self.told + limit.guard:", "if now < self.told:"),
    Mutant("only the first refusal is an event", PACING, "if now <= self.told + limit.guard:", "if True:"),
    Mutant("a refusal leaves the burst", PACING, "max(1, self.burst // 2), now)\n", "self.burst, now)\n"),
    Mutant("the burst shrinks to nothing", PACING, "limit.amount - self.burst, max(1, self.burst // 2), now)", "limit.amount - self.burst, self.burst // 2, now)"),
    Mutant("what is taken shrinks with the burst", PACING, "int(backlog * (spare / (limit.amount - burst))) + 1", "int(backlog * 0.5 * (spare / (limit.amount - burst))) + 1"),
    Mutant("what is taken keeps its time", PACING, "int(backlog * (spare / (limit.amount - burst))) + 1", "backlog"),
    Mutant("a call alone is forgotten faster", PACING, "begin = max(now * 1000, beyond)", "begin = now * 1000"),
    Mutant("a burst that grows is free", PACING, "            self.arrival += self._cost(limit, grown)", "            pass"),
    Mutant("a busy burst stays", PACING, "            burst = max(1, burst // 2)\n", "            pass\n"),
    Mutant("a burst that is partly taken grows", PACING, "elif backlog <= 0 and burst < half:", "elif burst < half:"),
    Mutant("a burst never grows", PACING, "elif backlog <= 0 and burst < half:", "elif False:"),
    Mutant("windows nobody looked at do not count", PACING, "step * (1 + (now - self.due) // limit.window)", "step"),
    Mutant("a burst of tokens grows by one", PACING, "step = max(1, limit.amount // STEPS) if limit.counts.is_tokens else 1", "step = 1"),
    Mutant("pacing never ends", PACING, "        if burst >= half and now >= self.told + QUIET:\n            return False\n", ""),
    Mutant("pacing ends at once", PACING, "if burst >= half and now >= self.told + QUIET:", "if burst >= half:"),
    Mutant("pacing ends with a small burst", PACING, "if burst >= half and now >= self.told + QUIET:", "if now >= self.told + QUIET:"),
    Mutant("a limit told leaves its pace", BOOKS, "                pace.resize(old, new, now)\n", "                pass\n"),
    Mutant("a limit of one stays paced", BOOKS, "                account.paces.pop(number, None)\n", "                pass\n"),
    # ── restores ────────────────────────────────────────────────────────────────────────────────
    Mutant("restores add up", BOOKS, "change = amount - members.get(told.member, 0)", "change = amount"),
    Mutant("restores of one member stand for all", BOOKS, "change = amount - members.get(told.member, 0)", "change = amount - max(members.values(), default=0)"),
    Mutant("what has ended is restored", BOOKS, "if told.expires <= now or not", "if told.expires < now or not"),
    Mutant("restored slots", BOOKS, "limit.name if limit.kind is not Kind.CONCURRENT else \"\"", "limit.name"),
    Mutant("restored but not used", BOOKS, "        account.used[number] += change\n", ""),
    Mutant("restored but never released", BOOKS, "        self._put(handle, number, told.expires, change)\n", ""),
    Mutant("restored but open", BOOKS, "        self._put(handle, number, told.expires, change)\n        self._choice.place(handle, now)", "        self._put(handle, number, told.expires, change)"),
    Mutant("restored for ever", BOOKS, "            heappush(self._wheel, (told.expires, _FORGET, handle, number))", "            pass"),
    Mutant("less than nothing is restored", BOOKS, "max(0, told.amount)", "told.amount"),
    # ── the script ──────────────────────────────────────────────────────────────────────────────
    Mutant("script: a repetition takes nothing of the pace", SCRIPT + "_pace.lua", "        pace[ARRIVAL] = max(pace[ARRIVAL], now * 1000) + missing\n", ""),
    Mutant("script: alone for one window", SCRIPT + "_pace.lua", "return 2 * horizon(limit) end", "return horizon(limit) end"),
    Mutant("script: restored past its neighbour", SCRIPT + "_domain.lua", "while bucket[2] <= expires do", "while bucket[2] < expires do"),
    Mutant("script: restored before the last restored", SCRIPT + "_domain.lua", "cursors[id] <= expires then", "true then"),
    Mutant("script: the second bucket of a limit is never due", SCRIPT + "_time.lua", "wheel[wheeled(domain, number)] = first", ""),
    Mutant("script: two buckets due at once, one released", SCRIPT + "_time.lua", "more[#more + 1] = list", ""),
    Mutant("script: restored before the first, due with it", SCRIPT + "_domain.lua", "expires, expires\n    return\n", "expires, here\n    return\n"),
    Mutant("script: restores add up", SCRIPT + "_restore.lua", "told[5] - (members[told[1]] or 0)", "told[5]"),
    Mutant("script: a search that was cut says nothing", SCRIPT + "_asks.lua", "cut = cut or size > LONGEST_WALK", "cut = false"),
    Mutant("script: a large pool leaves out the pace", SCRIPT + "_asks.lua", "if at > now then soonest = min(soonest or at, at) end", ""),
    Mutant("script: a repetition is timed from the first ask", SCRIPT + "_asks.lua", "if later > expires and", "if false and"),
    Mutant("script: lapses are not waited for", SCRIPT + "_asks.lua", "return #found > 0 and found[2] - LAPSES_FROM", "return #found > 0 and now + 1"),
    Mutant("script: a rest forgets the test under way", SCRIPT + ".lua", "domain[TESTING] ~= '' and 1 or 0)", "0)"),
)  # fmt: skip
