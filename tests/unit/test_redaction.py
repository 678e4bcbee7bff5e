"""Credentials leave text in every form an upstream may echo them."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from headgate.policy.redaction import mask, redact

SECRET = "CANARY/one+two=three four%five-0123456789"
GOOGLE = "AIzaSyCANARY0123456789abcdefghijklmnopq"


def fragments(secret: str) -> list[str]:
    return [secret[at : at + 12] for at in range(len(secret) - 11)]


@pytest.mark.parametrize("secret", [SECRET, GOOGLE])
@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda s: quote(s, safe=""),
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: s[:12],
        lambda s: s[-12:],
        lambda s: s[:-1],
        lambda s: s[1:],
        lambda s: s[5:30],
        lambda s: f"{s}{s}",
        lambda s: f"{s[:20]}…{s[20:]}",
        lambda s: f"?key={s}&alt=sse",
    ],
    ids=["raw", "urlencoded", "base64", "first", "last", "cut", "beheaded", "middle", "twice",
         "broken in two", "in a query"],
)  # fmt: skip
def test_no_form_of_a_secret_stays(secret: str, form) -> None:  # type: ignore[no-untyped-def]
    got = redact(f"Before {form(secret)} after.", secret)
    encoded = base64.b64encode(secret.encode()).decode()
    for kept in (secret, quote(secret, safe=""), encoded):
        for fragment in fragments(kept):
            assert fragment not in got
    assert got.startswith("Before ")
    assert got.endswith("after.")
    assert "[key]" in got


def test_the_rest_of_the_text_stays_as_it_is() -> None:
    assert redact(f"a {GOOGLE} b {GOOGLE}. c", GOOGLE) == "a [key] b [key]. c"
    assert redact("nothing to hide", GOOGLE) == "nothing to hide"
    assert redact("", GOOGLE) == ""
    assert redact("nothing given", "") == "nothing given"


def test_an_unknown_google_key_is_known_by_its_shape() -> None:
    assert redact(f"key {GOOGLE}.") == "key [key]"
    assert redact("key AQ.Ab8RN6CANARY_x-y.z stays out") == "key [key] stays out"
    assert redact("AIza alone is no key") == "AIza alone is no key"


def test_a_short_secret_is_found_whole() -> None:
    assert redact("the CANARY sings", "CANARY") == "the [key] sings"


def test_two_secrets_are_both_taken_out() -> None:
    assert redact("CANARY-one-1234 CANARY-two-5678", "CANARY-one-1234", "CANARY-two-5678") == (
        "[key] [key]"
    )


def test_text_is_cut_after_redaction_not_before() -> None:
    got = redact("x" * 490 + GOOGLE + "y" * 500, GOOGLE)
    assert len(got) == 500
    assert "CANARY" not in got
    assert got.endswith("…")
    assert redact("x" * 500) == "x" * 500


def test_a_mask_shows_four_characters_of_a_long_secret_and_none_of_a_short_one() -> None:
    assert mask(GOOGLE) == "…nopq"
    assert mask("x" * 19) == "…"
    assert mask("") == "…"
