"""The listening socket, and what accepted ones inherit from it."""

from __future__ import annotations

import socket
import statistics
import time

import pytest
from running_server import running


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_response_in_two_pieces_does_not_wait_for_the_first_to_be_acknowledged(text_model, host):
    try:
        started = running(lambda: text_model, host=host)
        with started as made:
            connection, took = made.connect(), []
            for _ in range(20):
                begin = time.perf_counter()
                connection.request("GET", "/health")
                assert connection.getresponse().read()
                took.append(time.perf_counter() - begin)
            (accepted,) = made.server.server_state.connections
            sock = accepted.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            connection.close()
            print(f"median of 20 GET /health on one connection: {1000 * statistics.median(took):.1f} ms")
    except OSError as error:
        if host != "::1":
            raise
        pytest.skip(f"no IPv6 here: {error}")
