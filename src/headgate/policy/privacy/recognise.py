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
from operator import itemgetter
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
    r"|\(0\d{1,5}\)[ /-]{0,2}\d{2,8}(?:[ -]\d{2,4}){0,3}"  # a bracketed area code
    r"|0\d{1,4}(?:[ .-]\d{2,4}){3,4}"  # a trunk zero and three or more groups
)
_OF_PHONES = """
phone phones telephone tel telefon telefonnummer telefone telefono teléfono téléphone telefoon puhelin
mobile mobil móvil mobiel mobilnummer handynummer cell cellular cellphone cellulare celular celulaire
handy gsm portable telemóvel komórka whatsapp fax desk office landline hotline sms tél phoned mobiles
call called calling dial dialed ring ringa reach reached answering registered anrufen rufen ruf rufe
rückruf erreichbar appelez appeler appelle joindre joignable rappeler llame llama llámame llamar
llámeme chiama chiamami chiamare chiamate telefona telefonare bel bellen bellt ligue ligar liga
telefonar dzwonić dzwoń zadzwoń zadzwonić ringer ringe soita puhelimitse numer numerem
"""
_OF_OTHERS = """
account acct apt box build case customer flight id invoice isbn issn license licence line model nr no
order page part patent pid policy port postal ref reference release rfc serial sku suite ticket tracking
unit version zip
"""
_PHONE_WORDS = frozenset(_OF_PHONES.split())
_OTHER_NUMBERS = frozenset(_OF_OTHERS.split())
_PHONE_PHRASES = ("text me", "message to", "messages to", "my number")
_PLACES = frozenset({"desk", "office"})
_NUMBER_WORDS = frozenset(("code", "num", "number", "numbers", "nummer", "numero", "numéro", "número"))
_WORDS = re.compile(r"[^\W\d_]+")
_PHONE_AFTER = re.compile(
    r"[ \t,(-]{0,3}(?:office|fax|mobile|cell|home|work|desk|phone)\b", re.IGNORECASE
)
_CARD_WORDS = re.compile(
    r"\b(?:cards?|credit|debit|cc|visa|mastercard|amex|maestro|jcb|chargeback|paid with"
    r"|(?:kredit|debit|bank)?kart[ea]n?|cartes?|tarjetas?|cart[aã]o|carta|kort|kaart)\b",
    re.IGNORECASE,
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
    stop = 0
    for piece in sorted(found, key=itemgetter(0)):  # which keeps the order of those that begin together
        if piece.start >= stop:
            stop = piece.stop
            yield piece


def _emails(text: str) -> Iterator[Found]:
    done = 0
    for match in _AT.finditer(text):
        at = match.start()
        if at < done:
            continue
        after = _DOMAIN.match(text, at + 1)
        if after is None:
            continue
        before = _LOCAL.match(text[max(done, at - 64) : at][::-1])
        local = before.group()[::-1].lstrip(".-'%+") if before else ""
        if local:
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
        start, run = match.start(), match.group()
        if run[0] == "(" and ")" not in run:  # it opens a remark that ends after the number
            start, run = start + 1, run[1:]
        kind = _kind(text, start, run)
        if kind is not None:
            yield Found(start, match.end(), kind)


def _kind(text: str, start: int, run: str) -> PersonalData | None:
    digits = _digits(run)
    before = text[max(0, start - _NEAR) : start]
    if len(digits) >= 12 and _CARD.fullmatch(run) and luhn(digits):
        if is_card(digits) or _CARD_WORDS.search(before):
            return PersonalData.CREDIT_CARD
    elif len(digits) == 9 and _SSN.fullmatch(run):
        said = "-" in run or _SSN_WORDS.search(before)
        if said and is_ssn(digits):
            return PersonalData.SSN
    if _DATE.fullmatch(run):
        return None
    return PersonalData.PHONE if _is_phone(text, start, run, digits, before) else None


def _is_phone(text: str, start: int, run: str, digits: str, before: str) -> bool:
    number = run
    if "x" in run or "X" in run:
        number = _EXTENSION.sub("", run)
        digits = _digits(number)
    if not 6 <= len(digits) <= 15 or number.count("(") != number.count(")"):
        return False
    near = before.rsplit("\n\n", 1)[-1].lower()
    words = _WORDS.findall(near)
    if words and _of_another_kind(near.rstrip(" .:#"), words):
        return False
    if len(digits) >= _SURE_DIGITS and _SURE_PHONE.fullmatch(number):
        return True
    stop = start + len(run)
    if _PHONE_AFTER.match(text, stop):
        return True
    if _STREET.match(text, stop) and not before.rstrip().endswith(":"):
        # A house number and its street, after "our office is at"; "call 2125550123 and ask" is none.
        said = [word for word in words[-4:] if word in _PHONE_WORDS and word not in _PLACES]
        return bool(said) and len(digits) >= _SURE_DIGITS
    return not _PHONE_WORDS.isdisjoint(words) or any(said in near for said in _PHONE_PHRASES)


def _of_another_kind(tail: str, words: list[str]) -> bool:
    """Whether the words right before a number say that it numbers something else: "part number"."""
    last = words[-1]
    if not tail.endswith(last):
        return False
    if last in _NUMBER_WORDS and len(words) > 1 and tail.endswith(f"{words[-2]} {last}"):
        return words[-2] in _OTHER_NUMBERS
    return last in _OTHER_NUMBERS


def _digits(run: str) -> str:
    """The digits of a run and of an extension, if it has one."""
    if run.isdigit():
        return run
    for separator in " -().+/":
        if separator in run:
            run = run.replace(separator, "")
    return run if run.isdigit() else "".join(filter(str.isdigit, run))
