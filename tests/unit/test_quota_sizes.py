"""What of a call's expected costs a ledger is asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.core.quota import Costs, Counts, Limit, Penalty
from headgate.policy.quota.sizes import Sizes

EXPECTED: Costs = {
    Counts.REQUESTS: 1,
    Counts.INPUT: 500,
    Counts.OUTPUT: 4000,
    Counts.TOTAL: 4500,
    Counts.SLOTS: 1,
}
ELASTIC = (Counts.OUTPUT, Counts.TOTAL)


def output(amount: int, name: str = "otpm") -> Limit:
    return Limit(name, Counts.OUTPUT, amount)


def test_what_nobody_limits_is_not_asked_for() -> None:
    """A cost that no domain counts would only hide domains that have room from the choice."""
    assert Sizes([[Limit("tpm", Counts.INPUT, 9)]]).costs(EXPECTED, ELASTIC) == {
        Counts.REQUESTS: 1,
        Counts.INPUT: 500,
    }


def test_what_a_call_only_might_use_is_asked_for_up_to_the_largest_limit() -> None:
    sizes = Sizes([[output(1000)], [output(3000), output(2000, "other")]])
    assert sizes.costs(EXPECTED, ELASTIC)[Counts.OUTPUT] == 2000
    assert sizes.costs(EXPECTED, ())[Counts.OUTPUT] == 4000


def test_a_domain_without_the_limit_takes_any_amount() -> None:
    assert Sizes([[output(1000)], []]).costs(EXPECTED, ELASTIC)[Counts.OUTPUT] == 4000


def test_limits_that_a_provider_tells_count_from_then_on() -> None:
    sizes = Sizes([[], []])
    assert Counts.OUTPUT not in sizes.costs(EXPECTED, ELASTIC)
    sizes.learn([Penalty(0, limit=output(1000)), Penalty(0, until=5)])
    assert sizes.costs(EXPECTED, ELASTIC)[Counts.OUTPUT] == 4000
    sizes.learn([Penalty(1, limit=output(700)), Penalty(9, limit=output(1))])
    assert sizes.costs(EXPECTED, ELASTIC)[Counts.OUTPUT] == 1000


@given(
    st.lists(st.lists(st.integers(1, 5000), max_size=3), min_size=1, max_size=4), st.integers(1, 9000)
)
def test_an_elastic_cost_always_fits_one_domain(amounts: list[list[int]], cost: int) -> None:
    domains = [[output(amount, f"l{n}") for n, amount in enumerate(row)] for row in amounts]
    asked = Sizes(domains).costs({Counts.OUTPUT: cost}, ELASTIC).get(Counts.OUTPUT, 0)
    assert any(all(asked <= limit.amount for limit in row) for row in domains)
    assert asked <= cost


def test_of_prompt_and_answer_together_the_prompt_is_sure() -> None:
    """A prompt that is longer than the limit of both is never asked for less than it needs."""
    sizes = Sizes([[Limit("tpm", Counts.TOTAL, 1000)]])
    assert sizes.costs(EXPECTED, ELASTIC)[Counts.TOTAL] == 1000
    long = {**EXPECTED, Counts.INPUT: 1500, Counts.TOTAL: 5500}
    assert sizes.costs(long, ELASTIC)[Counts.TOTAL] == 1500
    assert sizes.costs(long, (*ELASTIC, Counts.INPUT))[Counts.TOTAL] == 1000  # a cache may have it
