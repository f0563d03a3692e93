"""Which version this is: its number, and the commit that it was installed from, if that is known."""

import json
import subprocess
from importlib.metadata import Distribution, distribution
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "data-aggregator"


def version(of: Distribution | None = None) -> str:
    """
    `0.1.0`, or `0.1.0 (commit 1a2b3c4d5e6f)`, and the commit's date where the checkout itself is installed.

    pip writes where a package came from into `direct_url.json` (PyPA specifications, "Recording the Direct URL Origin
    of installed distributions"); of a release there is no such file, and its number says all.
    """
    of = of or distribution(NAME)
    origin: dict[str, Any] = json.loads(of.read_text("direct_url.json") or "{}")
    commit = str(origin.get("vcs_info", {}).get("commit_id", ""))[:12]
    if origin.get("dir_info", {}).get("editable"):
        commit = _checked_out(url2pathname(urlsplit(origin["url"]).path))
    return f"{of.version} (commit {commit})" if commit else of.version


def _checked_out(folder: str) -> str:
    """The commit of a checkout, and its date; nothing, if git is not there or does not know."""
    command = ["git", "-C", folder, "log", "-1", "--format=%h, %cs"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
