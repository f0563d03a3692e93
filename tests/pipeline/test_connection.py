"""obstore sends the request that boto3 sends, whatever the environment says."""

import os
import re
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import obstore
import pytest
from obstore.store import S3Store

from aggregator.exceptions import ConfigurationError
from aggregator.pipeline.connection import connection
from tests.support.world import CREDENTIALS

NOT_S3 = re.compile(r"aws_lc_|^aws_azure|^aws_t$")
VALUES = ("true", "1", "x", "http://127.0.0.1:9")
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
OURS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
"""The credentials, which are boto3's business."""


class Seen(NamedTuple):
    """What a request asks for, without what differs from one to the next."""

    path: str
    headers: dict[str, str]


class Handler(BaseHTTPRequestHandler):
    """S3 that remembers what it was asked for."""

    protocol_version = "HTTP/1.1"
    seen: list[Seen]

    def do_GET(self) -> None:
        """Answer."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        for name in ("authorization", "x-amz-date"):
            headers.pop(name, None)
        self.seen.append(Seen(self.path, headers))
        self.send_response(200)
        for name, value in {
            "ETag": '"e"',
            "Last-Modified": "Mon, 23 Nov 2026 14:00:00 GMT",
            "Content-Length": "2",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def seen() -> list[Seen]:
    return []


@pytest.fixture
def url(seen: list[Seen], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in list(os.environ):
        if name.startswith("AWS_") or "proxy" in name.lower():
            monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _get(url: str) -> bytes:
    options = connection(boto3.Session(), url, "eu-west-1", timeout=timedelta(seconds=5))
    return bytes(obstore.get(S3Store("source", **options), "finance/a.json").bytes())


def _variables() -> list[str]:
    """The variables that the installed object_store knows, as they stand, one after the other, in its binary."""
    (binary,) = Path(obstore.__file__).parent.glob("_obstore*.so")
    names: set[str] = set()
    for run in re.findall(rb"aws_[a-z0-9_]{4,}", binary.read_bytes()):
        text = run.decode()
        if not NOT_S3.search(text):
            names |= {f"aws_{name}" for name in re.split(r"(?<!^)aws_", text.removeprefix("aws_")) if name}
    return sorted(name.upper() for name in names)


def test_the_variables_are_found() -> None:
    known = set(_variables())

    assert {"AWS_SKIP_SIGNATURE", "AWS_REQUEST_PAYER", "AWS_COPY_IF_NOT_EXISTS", "AWS_ALLOW_HTTP"} <= known
    assert len(known) > 20


def test_no_variable_that_object_store_knows_changes_the_request(
    url: str, seen: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_S3_EXPRESS", "AWS_ENDPOINT_URL_S3", "AWS_TOKEN", *PROXIES[3:])
    _get(url)
    (plain,) = seen

    for name in sorted({*_variables(), *more} - OURS):
        for value in VALUES:
            seen.clear()
            with monkeypatch.context() as changed:
                changed.setenv(name, value)
                if "PROXY" in name.upper():
                    changed.setenv("NO_PROXY", "127.0.0.1")
                _get(url)
            assert seen == [plain], (name, value)


@pytest.mark.parametrize("proxy", PROXIES[:2])
def test_a_proxy_is_taken_where_boto3_takes_it(
    url: str, seen: list[Seen], monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv(proxy, url)

    _get("http://s3.example:1234")

    (asked,) = seen
    assert asked.path == "http://s3.example:1234/source/finance/a.json"


def test_no_proxy_is_taken_for_a_host_that_needs_none(
    url: str, seen: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    assert _get(url) == b"{}"


@pytest.mark.parametrize("spell", [str.upper, lambda url: url + "/", lambda url: url + "//"])
def test_an_endpoint_may_be_spelled_in_any_way(url: str, seen: list[Seen], spell: Any) -> None:
    assert _get(spell(url)) == b"{}"
    assert [asked.path for asked in seen] == ["/source/finance/a.json"]


def test_credentials_are_boto3s_and_renewed_as_boto3_renews_them(url: str, seen: list[Seen]) -> None:
    session = boto3.Session("key", "secret", "first")
    options = connection(session, url, "eu-west-1", timeout=timedelta(seconds=5))

    given = options["credential_provider"]()

    assert (given["access_key_id"], given["token"]) == ("key", "first")
    assert given["expires_at"] > datetime.now(UTC)
    obstore.get(S3Store("source", **options), "a")
    assert seen[0].headers["x-amz-security-token"] == "first"


def test_a_private_certificate_is_trusted_if_boto3_is_told_to(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text(ssl.get_server_certificate.__doc__ or "")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    secure = connection(boto3.Session(), "https://s3.example", "eu-west-1", timeout=timedelta(seconds=5))
    plain = connection(boto3.Session(), url, "eu-west-1", timeout=timedelta(seconds=5))

    assert secure["client_options"]["root_certificate"] == (tmp_path / "ca.pem").read_bytes()
    assert "root_certificate" not in plain["client_options"]


@pytest.mark.usefixtures("url")
def test_a_ca_bundle_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such.pem")

    with pytest.raises(ConfigurationError, match="the CA bundle cannot be read"):
        connection(boto3.Session(), "https://s3.example", "eu-west-1", timeout=timedelta(seconds=5))
