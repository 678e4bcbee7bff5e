"""Finds personal data by shape, checksum and the words around it. Linear in the length of the text.

Covered: e-mail addresses, telephone numbers, US social security numbers, payment cards, IBANs and IP
addresses. Names, postal addresses and free descriptions of people are NOT found: no pattern can.

A number without a checksum (a telephone number of one country is an order number in another) counts
only if its shape leaves no doubt, or if a word nearby says what it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from headgate.policy.privacy.numbers import IBAN_LENGTHS, is_card, is_iban, is_ssn, luhn

__all__ = ["Found", "PersonalData", "find"]


class PersonalData(StrEnum):
    """Kinds of personal data; the value is the word in a marker."""

    EMAIL = "EMAIL"
    PHONE = "PHONE"
    SSN = "SSN"
    CREDIT_CARD = "CREDIT_CARD"
    IBAN = "IBAN"
    IP = "IP"


class Found(NamedTuple):
    """A piece of text that is personal data: `text[start:stop]`."""

    start: int
    stop: int
    kind: PersonalData


_AT = re.compile(r"(?<=[\w.%+'-])@(?=\w)")
_LOCAL = re.compile(r"[\w.%+\-']{1,64}")
_DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}")
_IPV4 = re.compile(r"(?<![\w.:/-])(?:\d{1,3}\.){3}\d{1,3}(?![\w.-]*\d)(?!\w)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-f]{0,4}:[0-9a-f:]{2,36}(?![\w:])", re.ASCII | re.IGNORECASE)
_IBAN = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?:[ ]?[A-Za-z0-9]){11,30}", re.ASCII)
# A run of digits as people write numbers: single separators, brackets round an area code, extension.
_RUN = re.compile(
    r"(?<![\w@$€£#%&=/.:+-])(?:\+|\(\+?)?\d(?:[ .\-/()]{0,2}\d){5,18}"
    r"(?:[ ]?(?:x|ext\.?|extension)[ ]?\d{1,6})?(?![\w%])(?![.,:/]\d)",
    re.ASCII | re.IGNORECASE,
)
_EXTENSION = re.compile(r"[ ]?(?:x|ext\.?|extension)[ ]?\d{1,6}\Z", re.IGNORECASE)
_DATE = re.compile(
    r"(?:19|20)\d\d([-./ ])[01]?\d\1[0-3]?\d(?:[ ].*)?"
    r"|(?:[012]?\d|3[01])([-./])(?:[012]?\d|3[01])\2(?:(?:19|20)\d\d|\d\d)(?:[ ].*)?"
)
_CARD = re.compile(r"\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5}")
_SSN = re.compile(r"\d{3}([- ])\d{2}\1\d{4}")
# Shapes that are telephone numbers whatever is said around them.
_SURE_PHONE = re.compile(
    r"\(?\+\d[\d .\-/()]{6,}"  # international
    r"|(?:(?:001|1)[-. ])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}"  # North America
    r"|\(0\d{1,4}\)[ -]?\d{2,4}[ -]\d{3,4}"  # a bracketed area code
    r"|0\d{1,4}(?:[ .-]\d{2,4}){3,4}"  # a trunk zero and three or more groups
)
_OF_PHONES = """
phone phones telephone tel telefon telefonnummer telefone telefono teléfono téléphone telefoon puhelin
mobile mobil móvil cell cellular cellphone handy whatsapp fax desk office landline hotline sms call called
calling dial dialed ring reach reached answering registered
"""
_OF_OTHERS = """
account acct apt box build case customer flight id invoice isbn issn license licence line model nr no
order page part patent pid policy port postal ref reference release rfc serial sku suite ticket tracking
unit version zip
"""
_PHONE_WORDS = frozenset(_OF_PHONES.split())
_OTHER_NUMBERS = frozenset(_OF_OTHERS.split())
_PHONE_PHRASES = ("text me", "message to", "messages to", "my number")
_WORDS = re.compile(r"[^\W\d_]+")
_PHONE_AFTER = re.compile(
    r"[ \t,(-]{0,3}(?:office|fax|mobile|cell|home|work|desk|phone)\b", re.IGNORECASE
)
_CARD_WORDS = re.compile(
    r"\b(?:cards?|credit|debit|cc|visa|mastercard|amex|maestro|jcb)\b", re.IGNORECASE
)
_STREET = re.compile(r"[ ][^\W\d_]")
_SSN_WORDS = re.compile(r"\b(?:ssn|social security)\b", re.IGNORECASE)
_VERSION = re.compile(
    r"(?:\b(?:version|ver|release|build|section|chapter|clause)|\bv)[ .:]*\Z", re.IGNORECASE
)
_SURE_DIGITS = 9  # fewer are somebody's numbering of anything
_NEAR = 48  # characters before a number in which a word may say what it is


def find(text: str) -> list[Found]:
    """All personal data in a text, in order, without overlaps."""
    found = list(_emails(text)) if "@" in text else []
    if any(digit in text for digit in "0123456789") or "::" in text:
        found += _addresses(text)
        found += _ibans(text)
        found += _numbers(text)
    if len(found) < 2:
        return found
    return list(_apart(found))


def _apart(found: list[Found]) -> Iterator[Found]:
    """Of pieces that overlap the one whose kind is surer: they come in that order."""
    taken: list[Found] = []
    ranked = sorted(enumerate(found), key=lambda item: (item[1].start, item[0]))
    for _, piece in ranked:
        if taken and piece.start < taken[-1].stop:
            continue
        taken.append(piece)
    yield from taken


def _emails(text: str) -> Iterator[Found]:
    done = 0
    for match in _AT.finditer(text):
        at = match.start()
        if at < done:
            continue
        before = _LOCAL.match(text[max(done, at - 64) : at][::-1])
        after = _DOMAIN.match(text, at + 1)
        local = before.group()[::-1].lstrip(".-'%+") if before and after else ""
        if local and after:
            yield Found(at - len(local), after.end(), PersonalData.EMAIL)
            done = after.end()


def _addresses(text: str) -> Iterator[Found]:
    for match in _IPV4.finditer(text):
        before = max(0, match.start() - 16)
        if _is_ipv4(match.group()) and not _VERSION.search(text, before, match.start()):
            yield Found(match.start(), match.end(), PersonalData.IP)
    for match in _IPV6.finditer(text) if ":" in text else ():
        if _is_ipv6(match.group()):
            yield Found(match.start(), match.end(), PersonalData.IP)


def _is_ipv4(shape: str) -> bool:
    parts = shape.split(".")
    return all(int(part) < 256 and (part == "0" or part[0] != "0") for part in parts)


def _is_ipv6(shape: str) -> bool:
    # Shorter ones are more often code than addresses: `a[::2]`, `::1`.
    if len([group for group in shape.split(":") if group]) < 3:
        return False
    try:
        ipaddress.IPv6Address(shape)
    except ValueError:
        return False
    return True


def _ibans(text: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        size = IBAN_LENGTHS.get(match.group()[:2].upper())
        if size is None:
            continue
        places = [at for at, c in enumerate(match.group()) if c != " "]
        if len(places) < size:
            continue
        stop = match.start() + places[size - 1] + 1
        whole = stop == len(text) or not text[stop].isalnum()
        if whole and is_iban(match.group()[: places[size - 1] + 1].replace(" ", "")):
            yield Found(match.start(), stop, PersonalData.IBAN)


def _numbers(text: str) -> Iterator[Found]:
    for match in _RUN.finditer(text):
        kind = _kind(text, match.start(), match.group())
        if kind is not None:
            yield Found(match.start(), match.end(), kind)


def _kind(text: str, start: int, run: str) -> PersonalData | None:
    before = text[max(0, start - _NEAR) : start]
    if _CARD.fullmatch(run):
        digits = _digits(run)
        if is_card(digits) or (luhn(digits) and _CARD_WORDS.search(before)):
            return PersonalData.CREDIT_CARD
    if _SSN.fullmatch(run) and is_ssn(_digits(run)) and ("-" in run or _SSN_WORDS.search(before)):
        return PersonalData.SSN
    if _DATE.fullmatch(run):
        return None
    return PersonalData.PHONE if _is_phone(text, start, run, before) else None


def _is_phone(text: str, start: int, run: str, before: str) -> bool:
    number = _EXTENSION.sub("", run)
    if not 6 <= len(_digits(number)) <= 15 or _unbalanced(number):
        return False
    if _last_word(before) in _OTHER_NUMBERS:
        return False
    if _SURE_PHONE.fullmatch(number) and len(_digits(number)) >= _SURE_DIGITS:
        return True
    if _PHONE_AFTER.match(text, start + len(run)):
        return True
    if _STREET.match(text, start + len(run)) and not before.rstrip().endswith(":"):
        return False  # a house number and its street, after "our office is at"
    near = before.rsplit("\n\n", 1)[-1].lower()
    return not _PHONE_WORDS.isdisjoint(_WORDS.findall(near)) or any(
        said in near for said in _PHONE_PHRASES
    )


def _last_word(before: str) -> str:
    word = _WORDS.match(before.rstrip(" .:#")[::-1])
    return word.group()[::-1].lower() if word else ""


def _digits(run: str) -> str:
    return "".join(filter(str.isdigit, run))


def _unbalanced(number: str) -> bool:
    return number.count("(") != number.count(")")
