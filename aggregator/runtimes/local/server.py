"""
The child process of the embedded AWS: ministack, with a guard in front of it (`embedded.py` starts it).

A browser sends a page's request to any port of this machine, whatever page it is, and ministack answers all of them. So
a request that says that a page made it (Origin, Sec-Fetch-*) is answered 403, without a CORS header. For a local run,
so is every request to another host name than ours, without the access key of the run, or to a path of ministack's own.
The key is random, because ministack takes several well-known ones, and does not verify what a root key signs. The
process ends, and its folder goes, when its standard input ends.
"""

import os
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from importlib import import_module
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_HEALTH = "/_ministack/health"


def guard(application: Application, *, host: str, access_key_id: str) -> Application:
    """`application`, for requests of no page; and if there is an access key, for those with it to `host`."""

    async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_let_in(scope, host, access_key_id):
            await application(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close"})

    return guarded


def _is_let_in(scope: MutableMapping[str, Any], host: str, access_key_id: str) -> bool:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    if "origin" in found or any(name.startswith("sec-fetch-") for name in found):
        return False
    if not access_key_id:
        return True
    if found.get("host") != host:  # a name that a page had resolved to this machine
        return False
    if scope["path"] == _HEALTH:
        return True
    signed = f"Credential={access_key_id}/" in found.get("authorization", "")
    return signed and not scope["path"].startswith("/_")


def _end_with_standard_input() -> None:
    sys.stdin.read()
    shutil.rmtree(os.environ["STATE_DIR"], ignore_errors=True)
    os._exit(0)


def _main() -> None:
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    ministack = import_module("ministack.app")  # only this process has it in its path
    host = f"{os.environ['BIND_HOST']}:{os.environ['GATEWAY_PORT']}"
    key = os.environ["AWS_ACCESS_KEY_ID"] if os.environ["AUTH"] == "true" else ""
    ministack.app = guard(ministack.app, host=host, access_key_id=key)  # type: ignore[attr-defined]
    ministack.main()


if __name__ == "__main__":
    _main()
