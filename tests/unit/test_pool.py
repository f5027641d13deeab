"""The pool of connections: lent to one at a time, and none left open behind a close."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Lock

import pytest

from undrift.pooling import Pool


class Server:
    """Opens connections, which are numbers, and knows which of them are open."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.opened = 0
        self.open: set[int] = set()
        self.pool = Pool(self._connect, self._disconnect, lambda connection: True)

    def _connect(self) -> int:
        with self._lock:
            self.opened += 1
            self.open.add(self.opened)
            return self.opened

    def _disconnect(self, connection: int) -> None:
        with self._lock:
            self.open.remove(connection)  # a KeyError if it is closed twice


def test_one_connection_serves_borrowers_that_follow_each_other() -> None:
    """Opening one costs more than most queries."""
    server = Server()
    for _ in range(3):
        with server.pool.connection() as connection:
            assert connection == 1
    assert server.open == {1}
    server.pool.close()
    assert server.open == set()


def test_what_is_lent_when_the_pool_closes_is_closed_when_it_returns() -> None:
    """A heal may outlive the close; the idle ones go at once."""
    server = Server()
    with server.pool.connection():
        with server.pool.connection():
            pass
        server.pool.close()
        assert server.open == {1}
    assert server.open == set()


def test_what_is_opened_after_the_close_is_not_kept_either() -> None:
    """The heal goes on: it publishes and verifies, and nobody closes the pool again."""
    server = Server()
    server.pool.close()
    for number in (1, 2):
        with server.pool.connection() as connection:
            assert connection == number
        assert server.open == set()
    server.pool.close()


def test_a_connection_that_saw_an_exception_is_closed_and_not_lent_again() -> None:
    """Nobody knows what state it is in."""
    server = Server()
    with pytest.raises(KeyError), server.pool.connection():
        raise KeyError
    assert server.open == set()
    with server.pool.connection() as connection:
        assert connection == 2


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Let threads interrupt each other everywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_threads_that_borrow_while_others_close_lose_and_share_nothing() -> None:
    """No connection has two borrowers, is closed twice, or stays open."""
    server, threads = Server(), 8
    everybody = Barrier(threads)
    lent: set[int] = set()

    def borrow(number: int) -> None:
        everybody.wait(60)
        for turn in range(300):
            with server.pool.connection() as connection:
                assert connection not in lent
                lent.add(connection)
                lent.remove(connection)
            if number == 0 and turn == 150:
                server.pool.close()

    with frequent_switches(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(borrow, range(threads)))
    assert server.open == set()
