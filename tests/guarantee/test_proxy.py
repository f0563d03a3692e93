"""The proxy that strikes processes counts what AWS would have carried out, and nothing else."""

import socket
from urllib.parse import urlsplit

import pytest

from tests.support.proxy import Proxy

HEAD = b"PUT /bucket/key HTTP/1.1\r\nHost: here\r\n"


@pytest.mark.parametrize(
    "request_", [HEAD + b"Content-Length: 10\r\n\r\nhalf", HEAD + b"Transfer-Encoding: chunked\r\n\r\na\r\nhalf", HEAD]
)
def test_a_request_that_is_cut_off_is_no_call(request_: bytes) -> None:
    with Proxy("http://127.0.0.1:9") as proxy:  # where nothing answers, and nothing is asked
        address = urlsplit(proxy.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0))) as client:
            client.sendall(request_)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""

    assert proxy.calls == []
