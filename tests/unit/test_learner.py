"""What the learner tells the gate of what it hears, and what it keeps to itself."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from headgate.core.call import Key, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.quota import Counts, Limit, Penalty
from headgate.engine.gate import QuotaGate, Want
from headgate.engine.learner import QuotaLearner
from headgate.engine.passage import NoKeyReady
from headgate.engine.pool import KeyPool
from headgate.policy.keyring import KeyRing
from headgate.policy.learning import PATIENCE
from headgate.policy.leases import Lease
from headgate.policy.quota.table import Quota, QuotaTable
from headgate.policy.tally import Charge
from headgate.stores.memory import MemoryStore
from headgate.testing import VirtualClock

KEYS = [Key(f"k{number}", f"AIzaCANARY-{number}", f"p{number}") for number in range(2)]
FINE = Outcome(Kind.SUCCESS, status=200, usage=Usage(prompt=100, output=5))


class Gate:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.covered: list[tuple[str, int, str, int]] = []
        self.recalled: list[Charge] = []
        self.told: list[Penalty] = []

    def cover(self, model: str, limits_by_domain: dict[int, tuple[Limit, ...]]) -> None:
        for domain, limits in limits_by_domain.items():
            self.covered += [(model, domain, limit.name, limit.amount) for limit in limits]

    def recall(self, model: str, charges: list[Charge]) -> None:
        self.recalled += charges

    def tell(self, model: str, penalties: list[Penalty]) -> None:
        self.told += penalties


class Desk:
    """A learner, what it tells, and a clock to move."""

    def __init__(self, table: QuotaTable | None = None, **more: Any) -> None:
        self.clock = VirtualClock()
        self.gate = Gate()
        self.learner = QuotaLearner(
            self.gate,  # type: ignore[arg-type]
            table or QuotaTable(),
            [key.domain for key in KEYS],
            self.clock,
            **more,
        )

    def send(
        self, outcome: Outcome, *, domain: int = 0, model: str = "m", reserved: bool = False,
        later: float = 0.0, **more: Any,
    ) -> None:  # fmt: skip
        """One attempt from begin to end."""
        self.clock.advance(0.001)
        lease = self.lease(domain, model)
        self.clock.advance(later + 0.001)
        self.learner.heard(lease, outcome, reserved=reserved, **more)

    def lease(self, domain: int = 0, model: str = "m") -> Lease:
        lease = Lease(KEYS[domain], domain, domain, model, self.clock.monotonic())
        self.learner.leased(lease)
        return lease


def refused(
    *limits: Limit, names: tuple[str, ...] = (), kind: Kind = Kind.QUOTA_MINUTE, family: str = ""
) -> Outcome:
    named = names or tuple(limit.name for limit in limits)
    return Outcome(kind, "no", 429, quota_names=named, limits=tuple(limits), quota_model=family or None)


def limit(**numbers: int) -> Limit:
    (made,) = Quota(**numbers).limits()
    return made


# ── told ────────────────────────────────────────────────────────────────────────────────────────


def test_answers_without_limits_teach_nothing_and_leave_no_record() -> None:
    desk = Desk()
    for _ in range(10):
        desk.send(FINE)
    desk.send(Outcome(Kind.OVERLOAD, status=503))
    assert (desk.gate.covered, desk.gate.told, desk.learner._known) == ([], [], {})


def test_a_limit_that_is_told_covers_the_domain_that_was_told_and_no_other() -> None:
    desk = Desk()
    desk.send(FINE, domain=1)
    desk.send(refused(limit(rpm=10)))
    assert desk.gate.covered == [("m", 0, "rpm", 10)]
    desk.send(refused(limit(rpm=10)))
    assert len(desk.gate.covered) == 1, "told once"


def test_what_was_sent_before_counts_against_it() -> None:
    desk = Desk()
    desk.clock.advance(100.0)
    desk.send(FINE)
    desk.clock.advance(10.0)
    desk.send(FINE)
    desk.send(FINE)
    desk.lease()  # in flight
    desk.send(refused(limit(rpm=3)))
    assert [(c.domain, c.limit, c.amount) for c in desk.gate.recalled] == [(0, "rpm", 1), (0, "rpm", 3)]
    assert [c.ends for c in desk.gate.recalled] == pytest.approx([161.35, 171.35], abs=0.02)


def test_each_text_of_a_batch_that_was_sent_before_counts_against_it() -> None:
    desk = Desk()
    for outcome in (FINE, FINE, refused(limit(rpm=12))):
        desk.clock.advance(0.001)
        lease = Lease(KEYS[0], 0, 0, "m", desk.clock.monotonic())
        desk.learner.leased(lease, 5)
        desk.learner.heard(lease, outcome, reserved=False, requests=5)
    assert [(c.limit, c.amount) for c in desk.gate.recalled] == [("rpm", 10)], "the refused are no use"


def test_tokens_and_days_that_were_used_before_count_too() -> None:
    desk = Desk()
    desk.send(FINE)
    desk.send(FINE)
    desk.send(refused(limit(tpm=1000), limit(rpd=20), kind=Kind.QUOTA_DAY))
    by_name = {charge.limit: charge for charge in desk.gate.recalled}
    assert by_name["tpm"].amount == 200
    assert by_name["rpd"].amount == 2
    assert by_name["rpd"].ends > 3600


def test_the_margin_is_taken_of_what_is_told() -> None:
    desk = Desk(margin=0.85)
    desk.send(refused(limit(rpm=10)))
    desk.send(refused(limit(rpd=1), kind=Kind.QUOTA_DAY))
    assert [row[2:] for row in desk.gate.covered] == [("rpm", 8), ("rpd", 1)]


def test_limits_beside_an_answer_are_learned_and_followed_up_and_down() -> None:
    desk = Desk()
    for amount in (1000, 1000, 4000, 500):
        told = (limit(rpm=amount), limit(otpm=8000))
        desk.send(Outcome(Kind.SUCCESS, status=200, limits=told))
    assert [row[2:] for row in desk.gate.covered] == [
        ("rpm", 1000), ("otpm", 8000), ("rpm", 4000), ("rpm", 500),
    ]  # fmt: skip


def test_a_smaller_number_beats_a_declared_one_and_a_larger_one_is_mentioned_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk(QuotaTable(default=Quota(rpm=10)))
    with caplog.at_level(logging.INFO, "headgate.quota"):
        for _ in range(3):
            desk.send(refused(limit(rpm=15)))
    assert desk.gate.covered == []
    assert [record.message for record in caplog.records] == [
        "p0 allows rpm 15 for m; 10 is declared and kept."
    ]
    desk.send(refused(limit(rpm=5)))
    assert desk.gate.covered == [("m", 0, "rpm", 5)]
    assert desk.gate.recalled == [], "the ledger knew the limit and has counted"
    desk.send(refused(limit(rpm=15)))
    assert desk.gate.covered[-1] == ("m", 0, "rpm", 10), "up again to what is declared"


def test_a_preset_gives_way_to_what_is_told_up_and_down() -> None:
    desk = Desk(QuotaTable(presets={"m": Quota(rpm=10)}))
    desk.send(refused(limit(rpm=15)))
    desk.send(refused(limit(rpm=5)))
    assert [row[2:] for row in desk.gate.covered] == [("rpm", 15), ("rpm", 5)]


@pytest.mark.parametrize(
    "kind", [Kind.BILLING, Kind.QUOTA_ZERO, Kind.STORAGE, Kind.OVERLOAD, Kind.QUOTA_DAY]
)
def test_what_is_no_limit_of_a_minute_is_not_searched_for(kind: Kind) -> None:
    desk = Desk()
    desk.send(FINE)
    desk.send(Outcome(kind, "no", 429))
    assert (desk.gate.covered, desk.gate.told) == ([], [])


# ── found ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [Kind.QUOTA_MINUTE, Kind.QUOTA_UNKNOWN])
def test_without_numbers_the_limit_is_found_by_use(kind: Kind) -> None:
    desk = Desk()
    for _ in range(10):
        desk.send(FINE)
    desk.send(refused(kind=kind))
    assert desk.gate.covered == [("m", 0, "rpm", 10)]
    assert sum(charge.amount for charge in desk.gate.recalled) == 10


def test_a_refusal_without_any_use_of_ours_means_something_else() -> None:
    desk = Desk()
    desk.send(refused(kind=Kind.QUOTA_UNKNOWN))
    assert desk.gate.covered == []


def test_tokens_are_searched_for_as_requests() -> None:
    desk = Desk()
    desk.send(FINE)
    desk.send(FINE)
    desk.send(refused(names=("tpm",)))
    assert desk.gate.covered == [("m", 0, "rpm", 2)]


def test_bare_refusals_are_a_quota_only_if_they_last() -> None:
    bare = Outcome(Kind.CAPACITY, "Resource has been exhausted", 429)
    desk = Desk()
    for _ in range(4):
        desk.send(FINE)
        desk.send(bare)
        desk.send(bare)
    desk.send(Outcome(Kind.CAPACITY, "no 429", 503))
    assert desk.gate.covered == []
    desk.send(bare)
    assert desk.gate.covered == [("m", 0, "rpm", 4)]
    known = declared(rpm=10)
    for _ in range(6):
        known.send(bare, reserved=True)
    assert known.gate.told == [], "limits that had room explain nothing: it lacks capacity"


def test_what_was_found_rises_with_use_and_ends_when_the_limit_is_told() -> None:
    desk = Desk()
    desk.send(FINE)
    desk.send(FINE)
    desk.send(refused())
    desk.clock.advance(PATIENCE)
    for _ in range(2):
        desk.send(FINE, reserved=True)
    assert desk.gate.covered[-1] == ("m", 0, "rpm", 3)
    desk.send(refused(limit(rpm=30)))
    assert desk.gate.covered[-1] == ("m", 0, "rpm", 30)
    desk.clock.advance(10 * PATIENCE)
    desk.send(FINE, reserved=True)
    assert desk.gate.covered[-1] == ("m", 0, "rpm", 30)
    desk.send(refused(names=("rpm",)), reserved=True, later=0.1)
    assert desk.gate.told == [Penalty(0, pace="rpm")], "no search goes on beside it"


def test_attempts_that_were_never_sent_count_nowhere() -> None:
    desk = Desk()
    desk.send(FINE)
    for _ in range(5):
        desk.send(Outcome(Kind.NETWORK), sent=False)
    desk.send(refused())
    assert desk.gate.covered == [("m", 0, "rpm", 1)]


# ── unexplained ─────────────────────────────────────────────────────────────────────────────────


def declared(**numbers: int) -> Desk:
    desk = Desk(QuotaTable(default=Quota(**numbers)))
    desk.clock.advance(1.0)
    return desk


def test_a_refusal_within_every_limit_is_paced() -> None:
    desk = declared(rpm=10)
    desk.send(FINE, reserved=True)
    desk.send(refused(limit(rpm=10)), reserved=True, later=0.1)
    assert desk.gate.told == [Penalty(0, pace="rpm")]
    assert desk.gate.covered == []


def test_the_limit_that_is_named_is_paced_else_all_of_them() -> None:
    desk = declared(rpm=10, tpm=1000)
    desk.send(refused(names=("tpm",)), reserved=True, later=0.1)
    desk.send(refused(kind=Kind.QUOTA_UNKNOWN), reserved=True, later=0.1)
    assert [penalty.pace for penalty in desk.gate.told] == ["tpm", ""]


def test_thirty_refusals_of_one_burst_are_one_event() -> None:
    desk = declared(rpm=100)
    leases = [desk.lease() for _ in range(30)]
    for lease in leases:
        desk.clock.advance(0.01)
        desk.learner.heard(lease, refused(names=("rpm",)), reserved=True)
    assert len(desk.gate.told) == 1


def test_a_refusal_of_what_was_sent_too_much_is_explained() -> None:
    desk = declared(rpm=5)
    for _ in range(6):  # before this process knew, say
        desk.send(FINE)
    desk.send(refused(names=("rpm",)), reserved=True, later=0.1)
    desk = declared(tpm=150)
    desk.send(FINE, reserved=True)
    desk.send(FINE, reserved=True)
    desk.send(refused(names=("tpm",)), reserved=True, later=0.1)
    assert desk.gate.told == []


def test_a_sibling_of_the_same_family_explains_it() -> None:
    desk = declared(rpm=5)
    for _ in range(4):
        desk.send(FINE, reserved=True)
        desk.send(FINE, model="m-tools", reserved=True)
    desk.send(refused(names=("rpm",), family="f"), reserved=True, later=0.1)
    assert len(desk.gate.told) == 1, "nobody said yet that they are counted together"
    desk.clock.advance(1.0)
    desk.send(refused(names=("rpm",), family="f"), model="m-tools", reserved=True, later=0.1)
    assert len(desk.gate.told) == 1


def test_attempts_that_reserved_nothing_are_never_unexplained() -> None:
    desk = declared(rpm=10)
    desk.send(refused(names=("rpm",)), later=0.1)
    assert desk.gate.told == []


def test_where_single_calls_are_refused_the_amount_itself_is_searched_for() -> None:
    desk = declared(rpm=8)
    for number in range(4):
        desk.send(FINE, reserved=True)
        desk.send(refused(names=("rpm",)), reserved=True, later=0.1)
        assert len(desk.gate.told) == number + 1
    assert desk.gate.covered == [("m", 0, "rpm", 4)]
    desk.clock.advance(100 * PATIENCE)
    for _ in range(20):
        desk.clock.advance(61.0)
        for _ in range(8):
            desk.send(FINE, reserved=True)
    assert desk.gate.covered[-1] == ("m", 0, "rpm", 8), "never above what is declared"


def test_nothing_is_searched_for_while_one_of_the_limits_may_still_be_paced() -> None:
    desk = declared(rpm=2, tpm=1000)
    desk.send(FINE, reserved=True)
    for _ in range(5):
        desk.send(refused(kind=Kind.QUOTA_UNKNOWN), reserved=True, later=0.1)
    assert [penalty.pace for penalty in desk.gate.told] == [""] * 5
    assert desk.gate.covered == []
    for _ in range(6):
        desk.send(refused(kind=Kind.QUOTA_UNKNOWN), reserved=True, later=0.1)
    assert desk.gate.covered == [("m", 0, "rpm", 1)]


def test_classes_of_models_share_what_is_known() -> None:
    desk = Desk(QuotaTable(class_of=lambda model: model.split("-")[0]))
    desk.send(FINE, model="m-1")
    desk.send(FINE, model="m-2")
    desk.send(refused(), model="m-1")
    assert desk.gate.covered == [("m-1", 0, "rpm", 2)]
    assert desk.gate.recalled[0].amount == 2


def test_the_output_of_a_class_is_not_recalled_but_limited() -> None:
    desk = Desk()
    desk.send(Outcome(Kind.SUCCESS, status=200, limits=(limit(otpm=100),)))
    assert desk.gate.covered == [("m", 0, "otpm", 100)]
    assert desk.gate.recalled == []
    assert limit(otpm=1).counts is Counts.OUTPUT


# ── at the gate ─────────────────────────────────────────────────────────────────────────────────


async def test_a_ledger_that_another_process_made_hears_of_what_is_learned_too(
    clock: VirtualClock,
) -> None:
    store = MemoryStore(clock)
    gates = [
        QuotaGate(store, KeyPool(KeyRing(KEYS), clock), QuotaTable(), clock, lambda: 0.5)
        for _ in range(2)
    ]
    gates[0].cover("m", {0: (limit(rpm=2),)})
    await gates[0].acquire(want())
    gates[1].cover("m", {1: (limit(rpm=3),)})
    gates[1].recall("m", [Charge(1, "rpm", clock.monotonic() + 60, 2)])
    taken = [(await gates[1].acquire(want())).lease.domain for _ in range(3)]
    assert sorted(taken) == [0, 0, 1], "two of two, and one of three of which two had been used"
    with pytest.raises(NoKeyReady):
        await gates[1].acquire(want())


def want() -> Want:
    return Want(
        "m", {Counts.REQUESTS: 1, Counts.INPUT: 1}, exclude=(), prefer=None, bound=0.0,
        on_wait=lambda seconds: None,
    )  # fmt: skip
