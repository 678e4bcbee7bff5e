"""Labelled texts in two sets: one that faults were mended with, and one that was only ever measured.

Run by a Python that has Faker, `python held_out.py SET SEED COUNT`: a JSON list of {"text", "spans":
[[start, stop, kind], …]} on standard output. Sentences are ours; people's data are Faker's, of the
locale that goes with the language. A seed gives the same texts with the same Faker.

`seen`    the recognisers were mended by its faults under seed 4711
`unseen`  other sentences in other languages and of other kinds of text. Whoever looks at its faults and
          mends by them must write a new one.
"""

from __future__ import annotations

import json
import random
import re
import sys
from functools import partial

from faker import Faker  # type: ignore[import-not-found,unused-ignore]

SEEN_LOCALES = {
    "en": ("en_US", "en_GB", "en_AU", "en_CA", "en_IN"),
    "de": ("de_DE", "de_AT", "de_CH"),
    "fr": ("fr_FR", "fr_CH"),
    "es": ("es_ES", "es_MX"),
    "it": ("it_IT",),
    "nl": ("nl_NL",),
    "pt": ("pt_BR", "pt_PT"),
    "sv": ("sv_SE",),
    "pl": ("pl_PL",),
}

# A place in braces is replaced; kinds in capitals are labelled, the others only fill the sentence.
SEEN = {
    "en": (
        "Please forward the minutes to {EMAIL} before noon.",
        "From: {name} <{EMAIL}>\nSubject: your visit on {date}",
        "cc {EMAIL}, {EMAIL}; the draft is in ticket {number}.",
        "You can reach me on {PHONE} after six.",
        "{name}\n{job}, {company}\nTel {PHONE}\n{EMAIL}",
        "Her new number is {PHONE}, the old one no longer works.",
        "Call {PHONE} and ask for {name}.",
        "{name}, {company}, {PHONE}",
        "Patient: {name}; SSN: {SSN}; admitted {date}.",
        "My social is {SSN} and I was born on {date}.",
        "{name} ({SSN}) filed a claim over {money}.",
        "I paid with {CARD} on {date} and was charged twice.",
        "Card number {CARD}, expires {expiry}.",
        "The chargeback for {CARD} is case {number}.",
        "Wire {money} to {IBAN} by Friday.",
        "Our IBAN changed, it is now {IBAN}.",
        "{IBAN} was rejected with code {number}.",
        "Login from {IPV4} at {time}, user {word}.",
        "Block {IPV4} and {IPV6} in the firewall.",
        "{IPV4} - - [{date}] \"GET /{word} HTTP/1.1\" 200 {number}",
        "The meeting on {date} at {time} in room {number} is about {word}.",
        "We shipped order {number} for {money} to {name}.",
    ),
    "de": (
        "Bitte schicken Sie die Rechnung an {EMAIL}.",
        "Rufen Sie mich unter {PHONE} an, am besten nach {time}.",
        "Telefon: {PHONE}, Ansprechpartner {name}",
        "Überweisen Sie {money} auf das Konto {IBAN}.",
        "Die Karte {CARD} wurde am {date} gesperrt.",
        "Zugriff von {IPV4} um {time} verweigert.",
        "Der Termin am {date} betrifft Vorgang {number}.",
    ),
    "fr": (
        "Merci d'écrire à {EMAIL} avant le {date}.",
        "Vous pouvez me joindre au {PHONE}.",
        "Tél. : {PHONE} ({name})",
        "Virement de {money} sur {IBAN}, référence {number}.",
        "Paiement par carte {CARD} refusé.",
        "La réunion du {date} à {time} concerne {word}.",
    ),
    "es": (
        "Escríbeme a {EMAIL} o llámame al {PHONE}.",
        "Mi teléfono es {PHONE}, pregunta por {name}.",
        "Transferencia de {money} a la cuenta {IBAN}.",
        "La tarjeta {CARD} caduca en {expiry}.",
        "El pedido {number} salió el {date}.",
    ),
    "it": (
        "Scrivi a {EMAIL} oppure telefona al {PHONE}.",
        "Cell. {PHONE} - {name}",
        "Bonifico di {money} su IBAN {IBAN}.",
        "L'ordine {number} del {date} è partito.",
    ),
    "nl": (
        "Mail naar {EMAIL} of bel {PHONE}.",
        "Telefoon {PHONE}, vraag naar {name}.",
        "Maak {money} over naar {IBAN}.",
        "De bestelling {number} van {date} is verzonden.",
    ),
    "pt": (
        "Envie para {EMAIL} ou ligue para {PHONE}.",
        "Telefone: {PHONE} (falar com {name})",
        "O cartão {CARD} foi recusado em {date}.",
    ),
    "sv": (
        "Skicka till {EMAIL} eller ring {PHONE}.",
        "Mobil: {PHONE}, {name}",
        "Betala {money} till {IBAN} senast {date}.",
    ),
    "pl": (
        "Proszę pisać na {EMAIL} lub dzwonić pod {PHONE}.",
        "Telefon: {PHONE}, {name}",
        "Przelew {money} na rachunek {IBAN}.",
    ),
}  # fmt: skip

UNSEEN_LOCALES = {
    "en": ("en_US", "en_NZ", "en_IE"),
    "da": ("da_DK",),
    "fi": ("fi_FI",),
    "no": ("no_NO",),
    "cs": ("cs_CZ",),
    "ro": ("ro_RO",),
    "tr": ("tr_TR",),
}

UNSEEN = {
    "en": (
        "Hi, this is {name}. My cell is {PHONE} and my e-mail {EMAIL}, thanks!",
        "{name},{EMAIL},{PHONE},{date}",
        '{"user": "{word}", "email": "{EMAIL}", "phone": "{PHONE}", "ip": "{IPV4}"}',
        "Applicant SSN {SSN}, spouse SSN {SSN}",
        "Emergency contact: {name}, phone {PHONE}",
        "visa {CARD} exp {expiry} name on card {name}",
        "ERROR {date} {time} client={IPV4} user={EMAIL} status={number}",
        "Refund {money} to the card {CARD}, order {number}.",
        "IBAN: {IBAN}\nReference: {number}",
        "> On {date}, {EMAIL} wrote:",
        "whatsapp me at {PHONE} pls",
        "ssh {word}@{IPV4} then tail -n {number} the log",
        "Invoice {number} of {date}: {money}, due in 30 days.",
    ),
    "da": (
        "Skriv til {EMAIL} eller ring på {PHONE}.",
        "Tlf. {PHONE}, {name}",
        "Konto {IBAN}, beløb {money}.",
    ),
    "fi": (
        "Lähetä viesti osoitteeseen {EMAIL}.",
        "Puh. {PHONE}, {name}",
        "Maksa {money} tilille {IBAN}.",
    ),
    "no": (
        "Send det til {EMAIL}, eller ring {PHONE}.",
        "Mobil {PHONE} ({name})",
        "Betal {money} til {IBAN}.",
    ),
    "cs": (
        "Pište na {EMAIL} nebo volejte {PHONE}.",
        "Telefon {PHONE}, {name}",
        "Účet {IBAN}, částka {money}.",
    ),
    "ro": (
        "Scrieți la {EMAIL} sau sunați la {PHONE}.",
        "Telefon: {PHONE}",
        "Transfer de {money} în {IBAN}.",
    ),
    "tr": (
        "{EMAIL} adresine yazın veya {PHONE} numarasını arayın.",
        "Telefon: {PHONE}",
        "IBAN {IBAN}, {money}",
    ),
}  # fmt: skip

SETS = {"seen": (SEEN_LOCALES, SEEN), "unseen": (UNSEEN_LOCALES, UNSEEN)}

_PLACE = re.compile(r"\{(\w+)\}")
KINDS = {"CARD": "CREDIT_CARD", "IPV4": "IP", "IPV6": "IP"}


def value(kind: str, fake: Faker, us: Faker, others: list[Faker], chance: random.Random) -> str:
    if kind == "CARD":
        digits = str(fake.credit_card_number())
        if len(digits) == 16 and chance.random() < 0.5:
            return chance.choice(" -").join(digits[at : at + 4] for at in range(0, 16, 4))
        return digits
    if kind == "IBAN":
        iban = str(fake.iban())
        while iban.startswith("GB"):  # Faker's have 21 characters, where every British one has 22
            iban = str(chance.choice(others).iban())
        if chance.random() < 0.4:
            return " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))
        return iban.lower() if chance.random() < 0.1 else iban
    makers = {
        "EMAIL": chance.choice([fake.email, fake.ascii_company_email, fake.free_email]),
        "PHONE": fake.phone_number,
        "SSN": us.ssn,
        "IPV4": fake.ipv4,
        "IPV6": fake.ipv6,
        "name": fake.name,
        "job": fake.job,
        "company": fake.company,
        "word": us.word,
        "expiry": fake.credit_card_expire,
        "time": partial(fake.time, "%H:%M"),
        "date": lambda: fake.date(chance.choice(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %B %Y"])),
        "number": lambda: str(chance.randrange(10 ** chance.randrange(3, 9))),
        "money": lambda: f"{chance.choice('€$£')}{chance.randrange(10_000)}.{chance.randrange(100):02}",
    }
    return str(makers[kind]())


def documents(which: str, seed: int, count: int) -> list[dict[str, object]]:
    all_locales, sentences = SETS[which]
    chance = random.Random(seed)
    fakes = {}
    names = {"en_US", "de_DE", "fr_FR", "nl_NL"}.union(*all_locales.values())
    for number, locale in enumerate(sorted(names)):
        fakes[locale] = Faker(locale)
        fakes[locale].seed_instance(seed * 1000 + number)
    others = [fakes["de_DE"], fakes["fr_FR"], fakes["nl_NL"]]
    made: list[dict[str, object]] = []
    while len(made) < count:
        language = chance.choice(["en", "en", *sentences])
        fake = fakes[chance.choice(all_locales[language])]
        text, spans = "", []
        for sentence in chance.sample(sentences[language], k=chance.choice([1, 1, 2, 3])):
            done = 0
            for place in _PLACE.finditer(sentence):
                text += sentence[done : place.start()]
                said = value(place[1], fake, fakes["en_US"], others, chance)
                if place[1].isupper():
                    kind = KINDS.get(place[1], place[1])
                    spans.append([len(text), len(text) + len(said), kind])
                text += said
                done = place.end()
            text += sentence[done:] + chance.choice([" ", "\n"])
        made.append({"text": text, "spans": spans})
    return made


if __name__ == "__main__":
    json.dump(documents(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
