"""Checks that tell a personal number from any other: checksums, lengths and issued ranges."""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["IBAN_LENGTHS", "is_card", "is_iban", "is_ssn", "luhn"]

# ISO 13616, as registered with SWIFT (IBAN Registry, release 99 of December 2024): characters in all.
_BY_LENGTH = {
    15: "NO", 16: "BE", 18: "DK FK FO FI GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
    21: "CH CR HR LI LV", 22: "BG BH DE GB GE IE ME RS", 23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
    32: "LC", 33: "RU",
}  # fmt: skip
IBAN_LENGTHS = {country: size for size, row in _BY_LENGTH.items() for country in row.split()}

# Issuer ranges by their first six digits, from ISO/IEC 7812 as the card schemes publish them. A row:
# first, last, lengths. What lies in none of them may be an order number, however well its checksum
# fits: one number in ten does. So Maestro, which takes any of 12 to 19 digits, is left to the words
# around a number.
_ISSUERS = [
    (180000, 180099, (15,)),  # JCB
    (213100, 213199, (15,)),  # JCB
    (222100, 272099, (16,)),  # Mastercard
    (300000, 305999, (14,)),  # Diners Club
    (309500, 309599, (14,)),  # Diners Club
    (340000, 349999, (15,)),  # American Express
    (352800, 358999, (16, 17, 18, 19)),  # JCB
    (360000, 369999, (14,)),  # Diners Club
    (370000, 379999, (15,)),  # American Express
    (380000, 399999, (14,)),  # Diners Club
    (400000, 499999, (16, 19)),  # Visa; its old ones have 13
    (510000, 559999, (16,)),  # Mastercard
    (601100, 601199, (16, 17, 18, 19)),  # Discover
    (620000, 659999, (16, 17, 18, 19)),  # UnionPay, Discover
]
_FIRSTS = [first for first, _, _ in _ISSUERS]


_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Twice a digit, and of two digits their sum."""


def luhn(digits: str) -> bool:
    """Whether a number's last digit is its check digit (ISO/IEC 7812-1, annex B)."""
    doubled = digits[-2::-2].translate(_DOUBLED)
    return (sum(map(int, digits[::-2])) + sum(map(int, doubled))) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether digits are a card's number and hardly anything else: range, length, check digit."""
    if len(digits) < 12 or not digits.isascii():
        return False
    prefix = int(digits[:6])
    row = bisect_right(_FIRSTS, prefix) - 1
    if row < 0:
        return False
    _, last, lengths = _ISSUERS[row]
    return prefix <= last and len(digits) in lengths and luhn(digits)


def is_iban(compact: str) -> bool:
    """Whether characters without spaces are an IBAN: the country's length, and ISO 7064 mod 97-10."""
    compact = compact.upper()
    if IBAN_LENGTHS.get(compact[:2]) != len(compact) or not (compact.isascii() and compact.isalnum()):
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def is_ssn(digits: str) -> bool:
    """Whether nine digits may be a US social security number: no part all zeros, no 666, no 9xx."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
