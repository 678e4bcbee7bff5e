"""What Presidio's own pattern recognisers find: run by a Python that has presidio-analyzer.

Reads a JSON list of texts, writes what was found in each, the CPU seconds of all, and the version. The
recognisers are those of the six kinds, with their defaults and without a language model: that is what
patterns alone do. Finds with a score below 0.4, the least of their sure patterns, are left out.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

from presidio_analyzer import predefined_recognizers as theirs  # type: ignore[import-not-found]

LEAST_SCORE = 0.4

KINDS = {
    "CREDIT_CARD": "CREDIT_CARD", "EMAIL_ADDRESS": "EMAIL", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP",
    "US_SSN": "SSN", "PHONE_NUMBER": "PHONE",
}  # fmt: skip


def recognisers() -> list[Any]:
    """One of each kind."""
    return [
        theirs.CreditCardRecognizer(), theirs.EmailRecognizer(), theirs.IbanRecognizer(),
        theirs.IpRecognizer(), theirs.UsSsnRecognizer(), theirs.PhoneRecognizer(),
    ]  # fmt: skip


def spans(each: list[Any], text: str) -> list[tuple[int, int, str]]:
    """What they find in a text: start, stop, kind."""
    found = []
    for recogniser in each:
        results = recogniser.analyze(text, recogniser.supported_entities, None) or []
        results = recogniser.remove_duplicates(results)
        found += [
            (result.start, result.end, KINDS[result.entity_type])
            for result in results
            if result.score >= LEAST_SCORE and result.entity_type in KINDS
        ]
    return found


def main() -> int:
    """Look through the texts."""
    texts = json.load(sys.stdin)
    each = recognisers()
    spans(each, "ada@example.org")  # the first address reads a list of domains
    began = time.process_time()
    found = [spans(each, text) for text in texts]
    seconds = time.process_time() - began
    shown = {"version": version("presidio-analyzer"), "seconds": seconds, "found": found}
    json.dump(shown, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
