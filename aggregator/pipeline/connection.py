"""
How obstore reaches S3: by the same requests as boto3, and by nothing that it finds in the environment itself.

object_store, which obstore wraps, takes each setting that it is not given from an `AWS_` variable of its own, and
proxies from the system's. With AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true it read another bucket's object. So it is given
every setting that changes a request, or that it fails to parse; tests/pipeline/test_connection.py tries each variable
that the installed one knows.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from botocore.utils import get_environ_proxies

from aggregator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    import boto3
    from obstore.store import S3Credential

_REFRESH = timedelta(minutes=5)
"""How long obstore keeps credentials before it asks boto3's again, which know when to renew them."""

_NOT_FROM_THE_ENVIRONMENT: dict[str, Any] = {
    "virtual_hosted_style_request": False,
    "s3_express": False,
    "skip_signature": False,
    "unsigned_payload": False,
    "request_payer": False,
    "imdsv1_fallback": False,
    "disable_tagging": False,
    "disable_bulk_delete": False,
    "sse_bucket_key_enabled": False,
    # of writes, which obstore does not do here
    "server_side_encryption": "AES256",
    "checksum_algorithm": "sha256",
    "copy_if_not_exists": "multipart",
    "conditional_put": "etag",
}
"""Settings by their own names, with the value that leaves a get as boto3 sends it."""


def connection(session: "boto3.Session", endpoint_url: str, region: str, *, timeout: timedelta) -> dict[str, Any]:
    """
    What an `S3Store` is made with; `timeout` is of one request.

    Raises:
        ConfigurationError: there are no credentials, or the CA bundle cannot be read.
    """
    endpoint = _spelled(endpoint_url)
    backoff = {"init_backoff": timedelta(milliseconds=50), "max_backoff": timeout / 2, "base": 2}
    return {
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,
        "region": region,
        "credential_provider": _credentials(session),
        **_NOT_FROM_THE_ENVIRONMENT,
        "client_options": {
            "timeout": timeout,
            "connect_timeout": timeout / 2,
            "allow_http": endpoint.startswith("http:"),
            **_certificates(session, endpoint),
            **_proxy(endpoint),
        },
        "retry_config": {"max_retries": 4, "retry_timeout": timeout, "backoff": backoff},
    }


def may_leak(session: "boto3.Session", endpoint_url: str) -> bool:
    """
    Whether a redirect could take a session token to a stranger: obstore follows each, and sends the token along.

    AWS redirects to hosts of its own only. boto3 follows none to a host that it does not know.
    """
    host, credentials = urlsplit(endpoint_url).hostname or "", session.get_credentials()
    if credentials is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
        return False
    return bool(credentials.get_frozen_credentials().token)


def _credentials(session: "boto3.Session") -> "Callable[[], S3Credential]":
    """A provider that hands on boto3's credentials."""
    credentials = session.get_credentials()
    if credentials is None:
        raise ConfigurationError("no AWS credentials were found: give the process a role or set the AWS_ variables")

    def current() -> "S3Credential":
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": str(frozen.access_key),
            "secret_access_key": str(frozen.secret_key),
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _REFRESH,
        }

    return current


def _spelled(url: str) -> str:
    """A URL as obstore reads it: the scheme in small letters, and no slash at the end."""
    scheme, place, path, *_ = urlsplit(url)
    return urlunsplit((scheme.lower(), place, path.rstrip("/"), "", ""))


def _certificates(session: "boto3.Session", endpoint: str) -> dict[str, Any]:
    """The CA bundle that boto3 trusts: AWS_CA_BUNDLE, `ca_bundle` of the profile, or REQUESTS_CA_BUNDLE."""
    path = session._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")  # noqa: SLF001
    if not path or not endpoint.startswith("https:"):
        return {}
    try:
        return {"root_certificate": Path(path).read_bytes()}
    except OSError as error:
        raise ConfigurationError("the CA bundle cannot be read", path=path) from error


def _proxy(endpoint: str) -> dict[str, Any]:
    """The proxy that boto3 takes; without one, obstore is told of a proxy that the endpoint is excluded from."""
    parts = urlsplit(endpoint)
    if proxy := get_environ_proxies(endpoint).get(parts.scheme):
        return {"proxy_url": proxy if "://" in proxy else f"http://{proxy}", "proxy_excludes": ""}
    return {"proxy_url": endpoint, "proxy_excludes": parts.hostname}
