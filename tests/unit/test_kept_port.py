"""A stopped server's port stays its own."""

from __future__ import annotations

import socket

import pytest

from support.ports import KeptPort, free_port, is_free


def test_a_kept_port_refuses_connections_and_is_nobody_elses() -> None:
    port, kept = free_port(), KeptPort()
    kept.keep(port)
    try:
        assert not is_free(port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        kept.release()
    assert is_free(port)
    kept.release()


def test_a_port_is_kept_whose_connections_are_still_ending() -> None:
    port, kept = free_port(), KeptPort()
    with socket.create_server(("127.0.0.1", port)) as listener:
        client = socket.create_connection(listener.getsockname())
        listener.accept()[0].close()  # this end hangs up first, and waits
        client.close()
    assert not is_free(port)
    kept.keep(port)
    kept.release()
