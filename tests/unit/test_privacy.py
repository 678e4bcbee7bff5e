"""S3-02h: personal data is found by shape, checksum and context, and nothing else is taken for it."""

from __future__ import annotations

import itertools
import random
import uuid

import pytest

from headgate.policy.privacy.markers import take_out
from headgate.policy.privacy.numbers import is_card, is_iban, is_ssn, luhn
from headgate.policy.privacy.recognise import PersonalData, find


def kinds(text: str) -> list[tuple[str, str]]:
    return [(piece.kind.value, text[piece.start : piece.stop]) for piece in find(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to ada@example.org.", ("EMAIL", "ada@example.org")),
        ("<o'neil+tag@mail.example.co.uk>", ("EMAIL", "o'neil+tag@mail.example.co.uk")),
        ("jürgen@exämple.de", ("EMAIL", "jürgen@exämple.de")),
        ("SSN 078-05-1120", ("SSN", "078-05-1120")),
        ("social security 078 05 1120", ("SSN", "078 05 1120")),
        ("card 4111 1111 1111 1111", ("CREDIT_CARD", "4111 1111 1111 1111")),
        ("3782-822463-10005", ("CREDIT_CARD", "3782-822463-10005")),
        ("pay to DE89 3704 0044 0532 0130 00 today", ("IBAN", "DE89 3704 0044 0532 0130 00")),
        ("gb82west12345698765432", ("IBAN", "gb82west12345698765432")),
        ("NO9386011117947", ("IBAN", "NO9386011117947")),
        ("from 192.0.2.44: refused", ("IP", "192.0.2.44")),
        ("host 2001:db8::8a2e:370:7334 down", ("IP", "2001:db8::8a2e:370:7334")),
        ("+46 8 123 456 78", ("PHONE", "+46 8 123 456 78")),
        ("(212) 555-0123", ("PHONE", "(212) 555-0123")),
        ("212-555-0123 ext. 44", ("PHONE", "212-555-0123 ext. 44")),
        ("tel: 555 0123", ("PHONE", "555 0123")),
        ("Telefon 030/1234567", ("PHONE", "030/1234567")),
        ("call me at 2125550123", ("PHONE", "2125550123")),
        ("555 0123 office", ("PHONE", "555 0123")),
    ],
)
def test_what_is_found(text: str, found: tuple[str, str]) -> None:
    assert kinds(text) == [found]


@pytest.mark.parametrize(
    "text",
    [
        "no mail@ here, nor @there, nor a@b",
        "078-05-0000 and 000-12-3456 and 912-34-5678",
        "4111 1111 1111 1112",  # the check digit is wrong
        "DE89 3704 0044 0532 0130 01",
        "version 10.4.12.3, v1.2.3.4, 256.1.1.1, 1.2.3, 01.02.03.04",
        "at 12:30:45 sharp; std::vector<int> a[::2]; ::1",
        "2026-11-21 14:38:49, 21.11.2026, 11/21/2026",
        "order 2125550123, invoice no. 555 0123, zip 12345-6789",
        "our office is at 3412 18 Oak Street",
        "π = 3.14159265358979, 1 234 567 units",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert kinds(text) == []


def test_a_thousand_lines_without_personal_data() -> None:
    chance = random.Random(20261121)  # noqa: TID251 - the same lines in every run

    def line() -> str:
        number = chance.randrange(10**9, 10**12)
        return chance.choice(
            [
                f"2026-{chance.randrange(1, 13):02}-{number % 28 + 1:02} 08:15:{number % 60:02}",
                str(uuid.UUID(int=chance.getrandbits(128))),
                f"sha256:{chance.getrandbits(256):064x}",
                f"commit {chance.getrandbits(160):040x}",
                f"release {number % 90}.{number % 13}.{number % 7}-rc{number % 5}",
                f"order number {number}",
                f"ticket #{number % 10**7}",
                f"elapsed={number / 1e6:.6f} bytes={number}",
                f"x[{number % 100}] = {number} * 0x{number:x}; // {number % 4096}",
                f"{number % 1000:03},{number % 997:03} EUR; {number % 100}%",
                f"10:{number % 60:02}:{number % 59:02}.{number % 1000:03} INFO w-{number % 9} done",
                f"{chance.uniform(-90, 90):.5f}, {chance.uniform(-180, 180):.5f}",
                f"ISBN 978-3-16-{number % 10**6:06}-0",
                f"1700{number % 10**9:09}",
                f"python{number % 4}.{number % 12} -m build --port {number % 65536}",
            ]
        )

    lines = [line() for _ in range(1000)]
    assert {text: kinds(text) for text in lines if kinds(text)} == {}


def test_checksums() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_card("6011111111111117")
    assert not is_card("9111111111111111")
    assert is_iban("MT84MALT011000012345MTLCAST001S")
    assert not is_iban("XX84MALT")
    assert is_ssn("078051120")
    assert not is_ssn("666051120")


def test_pieces_never_overlap_and_are_in_order() -> None:
    text = "ada@192.0.2.44.example.org 4111111111111111 +49 30 1234567 DE89370400440532013000"
    pieces = find(text)
    assert [piece.kind for piece in pieces] == ["EMAIL", "CREDIT_CARD", "PHONE", "IBAN"]
    assert all(one.stop <= two.start for one, two in itertools.pairwise(pieces))


def test_markers_are_numbered_by_value_and_avoid_those_in_the_text() -> None:
    taken = take_out(
        "ada@example.org, bob@example.org [EMAIL_1]", "again ada@example.org", numbered=True
    )
    assert taken.texts == ["[EMAIL_2], [EMAIL_3] [EMAIL_1]", "again [EMAIL_2]"]
    assert taken.counts == {PersonalData.EMAIL: 3}
    assert taken.restore("[EMAIL_3] [EMAIL_1] [EMAIL_9]") == "bob@example.org [EMAIL_1] [EMAIL_9]"
    assert "example" not in repr(taken)


def test_markers_without_numbers_cannot_be_put_back() -> None:
    taken = take_out("ada@example.org")
    assert taken.text == "[EMAIL]"
    assert not taken.reversible
    assert taken.restore("[EMAIL]") == "[EMAIL]"
