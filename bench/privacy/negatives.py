"""Lines without personal data that look as if they had some: every find in them is a false alarm."""

from __future__ import annotations

import random
import uuid

__all__ = ["lines"]


def lines(seed: int, count: int) -> list[str]:
    """So many lines; a seed gives the same ones."""
    chance = random.Random(seed)
    return [_line(chance) for _ in range(count)]


def _line(chance: random.Random) -> str:  # one form a line, so that a false alarm names its form
    def d(size: int) -> str:
        return str(chance.randrange(10 ** (size - 1), 10**size))

    n = chance.randrange
    forms = (
        f"{n(1990, 2031)}-{n(1, 13):02}-{n(1, 29):02}T{n(24):02}:{n(60):02}:{n(60):02}.{d(6)}Z started",
        f"due {n(1, 29):02}/{n(1, 13):02}/{n(1990, 2031)}, then {n(1, 29)}.{n(1, 13)}.{n(2020, 2031)}",
        f"run {uuid.UUID(int=chance.getrandbits(128))} finished",
        f"sha256 {chance.getrandbits(256):064x}",
        f"index {chance.getrandbits(28):07x}..{chance.getrandbits(28):07x} 100644",
        f"package-{n(20)}.{n(30)}.{n(40)}.tar.gz, build {n(9)}.{n(9)}.{n(9)}.{d(4)}",
        f"upgraded from v{n(20)}.{n(30)}.{n(40)}.{n(50)} to v{n(20)}.{n(30)}.{n(40)}.{n(50)}",
        f"order no. {d(10)}, tracking {d(12)}",
        f"Order #{d(3)}-{d(7)}-{d(7)} has shipped",
        f"invoice INV-{n(2015, 2031)}-{d(5)} over {n(1, 9999)}.{n(100):02} EUR",
        f"ISBN 978-{n(10)}-{d(3)}-{d(5)}-{n(10)}; ISSN {d(4)}-{d(4)}",
        f"doi:10.{d(4)}/{d(3)}-{d(4)}.{d(5)}",
        f"CAS {d(4)}-{n(10, 99)}-{n(10)}, EC {d(3)}-{d(3)}-{n(10)}",
        f"for i in range({d(6)}): total += a[i] * {d(9)} % {d(10)}",
        f"const SIZE: u64 = {d(12)}; // {d(3)}_{d(3)}_{d(3)}",
        f"x = {n(100)}.{d(12)} ± {n(1)}.{d(6)}",
        f"offset 0x{chance.getrandbits(48):012x}, length {d(8)}, mode {d(4)}",
        f"lat {n(-89, 89)}.{d(6)}, lon {n(-179, 179)}.{d(6)}",
        f"pid {d(5)} took {d(4)}.{d(3)} ms, {d(9)} bytes, {n(101)}%",
        f"{n(24):02}:{n(60):02}:{n(60):02}.{d(3)} [{d(5)}] WARN retry {n(9)} of {n(9)} in {d(4)} ms",
        f"epoch={d(10)} step={d(6)} loss={n(9)}.{d(8)}",
        f"population {n(1, 99)},{d(3)},{d(3)}; area {d(3)} {d(3)} km2",
        f"SKU {d(4)}-{d(4)}-{d(2)}, part number {d(3)}-{d(3)}-{d(4)}",
        f"flight LH{d(4)}, seat {n(40)}A, ticket {d(13)}",
        f"case number {n(2000, 2030)}-{d(6)}, docket {d(2)}-{d(5)}",
        f"RFC {d(4)}, section {n(9)}.{n(9)}.{n(9)}.{n(9)}, page {d(3)}",
        f"grep -n '@{chance.choice(['app', 'cache', 'property'])}' src | head -{d(2)}",
        f"@decorator def f(a, b): return a@b  # matrix {d(3)}x{d(3)}",
        f"npm install left-pad@{n(9)}.{n(9)}.{n(9)} react@^{n(19)}.0.0",
        f"font-size: {n(99)}px; color: #{chance.getrandbits(24):06x}; width: {d(3)}.{d(2)}%",
        f"MAC 00:1b:{n(10, 99)}:{n(10, 99)}:3e:{n(10, 99)} port {d(5)} vlan {d(4)}",
        f"ratio {d(3)}/{d(3)}, score {n(9)}-{n(9)}, odds {n(20)}:{n(20)}",
        f"EAN {d(13)}, lot {d(8)}, batch {d(4)}-{d(3)}",
        f"LICENSE-{d(5)}-{d(5)}-{d(5)} expires {n(2025, 2040)}",
        f"10.{d(3)} people, {d(3)}.{d(3)} euros, {n(9)}.{d(3)}.{d(3)} km",
        f"zip {d(5)}-{d(4)}, PO box {d(4)}",
        f"\\frac{{{d(4)}}}{{{d(4)}}} = {n(9)}.{d(10)}",
        f"git checkout {chance.getrandbits(160):040x} # {d(5)} commits",
        f"temperature {n(-40, 40)}.{n(10)} °C, pressure {d(4)}.{n(10)} hPa",
        f"VALUES ({d(8)}, {d(10)}, '{d(4)}-{d(2)}');",
    )
    return chance.choice(forms)
