"""Programs that fork with both sides open: the child must not touch what the parent opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.layouts import ENGINEER
from support.sides import NAMESPACE, World

TESTS = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run *program* in a process of its own, whose threads are few enough to fork."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=TESTS,
        check=False,
        env=ENVIRONMENT,
        timeout=100,
        capture_output=True,
        text=True,
    )


SHARED = """
import os
from support.sides import CountingEmbedder
from undrift import Undrift
sides = Undrift(source={source!r}, store={store!r}, embedder=CountingEmbedder(),
                namespace={namespace!r})
store = sides._connections.store
pool = (getattr(store, "_file", None) or store._sessions)._pool
assert sides.check("1").is_in_sync
idle = list(pool._idle)
assert idle
child = os.fork()
if not child:
    sides.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
status = sides.check("1")
assert status.is_in_sync, status.error
assert pool._idle == idle
sides.close()
"""


def test_a_child_that_closes_its_undrift_leaves_the_parents_sessions_alone(world: World) -> None:
    """A worker that ends in order does; the parent goes on with the connections it had."""
    world.bring_in_sync({"1": ENGINEER})
    program = SHARED.format(source=world.source_url, store=world.store_url, namespace=NAMESPACE)
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (0, "")


LENT_WHILE_FORKING = """
import os
import psycopg
from undrift.pooling import Pool
pool = Pool(lambda: psycopg.connect({url!r}, autocommit=True), psycopg.Connection.close,
            lambda connection: not connection.closed)
try:
    with pool.connection() as connection:
        session = connection.info.backend_pid
        child = os.fork()
        if not child and {raises}:
            raise KeyError
except KeyError:
    pass
if not child:
    {in_child}
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
with pool.connection() as connection:
    assert connection.execute("SELECT pg_backend_pid()").fetchone() == (session,)
pool.close()
"""
USES_AND_CLOSES = """
    with pool.connection() as connection:
        assert connection.execute("SELECT pg_backend_pid()").fetchone() != (session,)
    pool.close()
"""


@pytest.mark.parametrize("raises", [False, True])
def test_what_is_lent_while_the_process_forks_stays_the_parents(
    postgres_url: str, raises: bool
) -> None:
    """The child comes out of the block too, and whichever way it does it closes nothing."""
    ended = run(
        LENT_WHILE_FORKING.format(url=postgres_url, raises=raises, in_child=USES_AND_CLOSES)
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_control_a_child_that_closes_what_it_inherited_ends_the_parents_session(
    postgres_url: str,
) -> None:
    """What the tests above would meet."""
    ended = run(
        LENT_WHILE_FORKING.format(url=postgres_url, raises=False, in_child="connection.close()")
    )
    assert ended.returncode == 1
    assert "OperationalError" in ended.stderr


def test_a_forked_child_begins_afresh_with_what_the_parent_still_has() -> None:
    """What was collected before is not brought back, and nothing is kept only for a fork."""
    ended = run("""
import gc
import os
from undrift.forks import after_fork
class Shared:
    reborn = False
    def begin_afresh(self):
        self.reborn = True
kept, lost = Shared(), Shared()
for shared in (kept, lost):
    after_fork(shared, Shared.begin_afresh)
del shared, lost
gc.collect()
assert sum(isinstance(found, Shared) for found in gc.get_objects()) == 1
child = os.fork()
assert kept.reborn == (not child)
if child:
    assert os.waitpid(child, 0)[1] == 0
""")
    assert (ended.returncode, ended.stderr) == (0, "")
