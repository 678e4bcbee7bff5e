"""Tickets of uploads: known again by every worker of a gateway, and made by nobody else."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.gateway.tickets import TICKET_SECONDS, Tickets, Upload

UPLOAD = Upload("/upload/v1beta/files?upload_id=AB_c-1&upload_protocol=resumable", "alpha", "ann")
NOW = 1_790_000_000.5


@given(st.text(max_size=200), st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_another_worker_knows_it_again(path: str, domain: str, caller: str) -> None:
    upload = Upload(path, domain, caller)
    ticket = Tickets("secret").make(upload, NOW)
    assert set(ticket) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert Tickets("secret").read(ticket, NOW) == upload


def test_another_gateway_does_not() -> None:
    ticket = Tickets("secret").make(UPLOAD, NOW)
    assert Tickets("other").read(ticket, NOW) is None
    assert Tickets().read(Tickets().make(UPLOAD, NOW), NOW) is None, "each process has its own"


@given(st.integers(0, 10_000), st.sampled_from("abcAB01-_.é\x00"))
@settings(max_examples=150, deadline=None)
def test_a_ticket_that_was_changed_is_none(place: int, letter: str) -> None:
    tickets = Tickets("secret")
    ticket = tickets.make(UPLOAD, NOW)
    place %= len(ticket)
    changed = ticket[:place] + letter + ticket[place + 1 :]
    assert changed == ticket or tickets.read(changed, NOW) in (None, UPLOAD)
    whole = urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
    bit = bytearray(whole)
    bit[place % len(whole)] ^= 1 << (place % 8)
    assert tickets.read(urlsafe_b64encode(bytes(bit)).decode().rstrip("="), NOW) is None


@pytest.mark.parametrize(
    "ticket",
    ["", ".", "guess", "guess.guess", "é.é", "." * 300, "bnVsbA.xx", "A" * 22, "A" * 23, "A" * 20_000],
)
def test_what_is_no_ticket_is_refused(ticket: str) -> None:
    assert Tickets("secret").read(ticket, NOW) is None


def test_it_tells_its_holder_nothing() -> None:
    """Not even that two uploads have one project."""
    tickets = Tickets("secret")
    first, second = (
        urlsafe_b64decode(tickets.make(upload, NOW) + "==")
        for upload in (UPLOAD, replace(UPLOAD, caller="bob"))
    )
    for word in (b"upload", b"alpha", b"ann", b"AB_c-1", b"resumable"):
        assert word not in first
        assert word not in second
    same = sum(one == other for one, other in zip(first, second, strict=False))
    assert same < len(first) / 8


def test_it_ends_with_its_upload_and_with_its_time() -> None:
    tickets = Tickets("secret")
    ticket, other = tickets.make(UPLOAD, NOW), tickets.make(UPLOAD, NOW + 1)
    assert tickets.read(ticket, NOW + TICKET_SECONDS - 1) == UPLOAD
    assert tickets.read(ticket, NOW + TICKET_SECONDS + 1) is None
    tickets.spend(ticket)
    assert tickets.read(ticket, NOW) is None
    assert tickets.read(other, NOW) == UPLOAD
