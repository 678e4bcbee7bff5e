"""Ids of calls and reservations: nobody else has them, not even a forked process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from headgate.engine.fresh_ids import fresh_id

FORK = """
import os
from headgate.engine.fresh_ids import fresh_id
fresh_id()
if os.fork() == 0:
    print("child", *[fresh_id() for _ in range(600)], flush=True)
    os._exit(0)
os.wait()
print("parent", *[fresh_id() for _ in range(600)], flush=True)
"""


def test_ids_are_sixteen_hexadecimal_digits_and_no_two_alike() -> None:
    ids = [fresh_id() for _ in range(5_000)]
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in ids)
    assert len(set(ids)) == len(ids)


def test_threads_get_no_id_twice() -> None:
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: [fresh_id() for _ in range(2_000)], range(8)))
    ids = [name for names in drawn for name in names]
    assert len(set(ids)) == len(ids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_a_forked_process_has_ids_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, check=True, text=True, timeout=60
    )
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert not set(said["child"].split()) & set(said["parent"].split())
