"""Whatever becomes of the store, the provider never counts more than a limit (`tests/store_death.py`).

A seed that fails is named by its test: replay it alone.
"""

from __future__ import annotations

import pytest
from tests.store_death import random_run


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("members", [1, 2, 4, 7])
def test_no_window_holds_more_than_its_limit(members: int, seed: int) -> None:
    check(seed, members, end=130.0)


@pytest.mark.parametrize("seed", range(2))
def test_nor_among_sixteen(seed: int) -> None:
    check(seed, 16, end=90.0)


def check(seed: int, members: int, end: float) -> None:
    provider, processes = random_run(seed, members, end)
    assert sum(len(process.granted) for process in processes) > 5
    provider.check()


@pytest.mark.parametrize("seed", range(20, 24))
def test_nor_where_processes_know_that_the_server_is_new(seed: int) -> None:
    """They do not wait at their start; what becomes of the server later is as bad as ever."""
    provider, processes = random_run(seed, 3, 110.0, born="life 1")
    assert sum(len(process.granted) for process in processes) > 5
    provider.check()
