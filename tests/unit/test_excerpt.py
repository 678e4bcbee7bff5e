"""What of a text may be shown: nothing that stands across the cut shows in part."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import key

from headgate.policy.excerpt import excerpt, without_personal_data
from headgate.policy.redaction import Redactor, redact

PLAIN = Redactor()
SECRET = "CANARY-without-a-shape-0123456789"
ADDRESS = "a-rather-long-address.of.somebody@example.organisation.example.com"


def test_a_short_text_is_shown_whole_on_one_line() -> None:
    assert excerpt("one\ntwo\x1b[0m", 100, PLAIN) == "one two [0m"
    assert excerpt("one", 3, PLAIN) == "one"
    assert excerpt("one", 2, PLAIN) == "on…"
    assert excerpt("one", 0, PLAIN) == ""


def test_personal_data_become_markers_and_all_else_stays() -> None:
    assert without_personal_data(f"to {ADDRESS},\nand a@example.com") == "to [EMAIL],\nand [EMAIL]"
    assert without_personal_data("attempt 1, 20971520 bytes") == "attempt 1, 20971520 bytes"
    assert without_personal_data("") == ""


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_personal_data_across_the_cut_is_a_marker_or_not_there(cut: int) -> None:
    text = f"Write to {ADDRESS} and then wait. " + "y" * 2_000
    shown = excerpt(text, cut, PLAIN)
    for size in range(4, len(ADDRESS)):
        assert ADDRESS[:size] not in shown
    assert ("[EMAIL]" in shown) == (cut > len("Write to "))


@pytest.mark.parametrize("cut", range(1, 80, 5))
def test_a_key_across_the_cut_is_a_mask(cut: int) -> None:
    for secret in (key(1), SECRET):
        shown = excerpt(f"Use {secret} for it. " + "y" * 2_000, cut, Redactor((secret,)))
        assert secret[:6] not in shown


def test_personal_data_stays_where_that_is_asked_for_and_keys_do_not() -> None:
    shown = excerpt(f"{ADDRESS} {SECRET}", 200, Redactor((SECRET,)), personal=False)
    assert shown == f"{ADDRESS} [key]"


@given(st.text(max_size=300), st.integers(0, 60), st.integers(0, 30))
def test_no_piece_of_a_secret_is_left_wherever_it_stands(text: str, at: int, cut: int) -> None:
    """Twelve characters in a row of it, or of its base64, are searched for."""
    encoded = base64.b64encode(SECRET.encode()).decode()
    for form in (SECRET, encoded):
        shown = Redactor((SECRET, "other"))(text[:at] + form[cut : cut + 20] + text[at:])
        assert not any(form[i : i + 12] in shown for i in range(len(form) - 11))


@given(
    st.lists(st.text(alphabet="abcXYZ019-_", min_size=1, max_size=40), max_size=4),
    st.text(max_size=200),
)
def test_many_secrets_at_once_are_taken_out_as_one_by_one(secrets: list[str], text: str) -> None:
    """Nothing that `redact` finds is left by a `Redactor` of the same secrets."""
    mixed = text[:50] + "".join(secrets) + text[50:]
    shown = Redactor(secrets)(mixed)
    for secret in secrets:
        if len(secret) >= 6:
            assert secret not in shown.replace("[key]", "\0")
    assert redact(shown, limit=10_000) == shown
