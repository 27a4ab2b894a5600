"""A port that was found free is free still when a server is started on it, whoever looks for one meanwhile."""

import socket

from standalone import machine

MANY = 300


def test_no_port_is_found_twice():
    assert len({machine.free_port() for _ in range(MANY)}) == MANY


def test_a_port_that_was_found_is_for_whoever_asks_for_it_and_for_nobody_else():
    found = {machine.free_port() for _ in range(MANY)}
    given = set[int]()
    for _ in range(MANY):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            given.add(other.getsockname()[1])
    assert found & given == set()
    for port in found:
        with socket.create_server(("127.0.0.1", port)) as server:
            assert server.getsockname()[1] == port


def test_the_usual_port_is_found_where_it_is_free():
    usual = machine.free_port()
    assert machine.free_port(usual) == usual
    with socket.create_server(("127.0.0.1", usual)):
        assert not machine.port_is_free(usual)
        assert machine.free_port(usual) != usual
    assert machine.free_port(usual) == usual
