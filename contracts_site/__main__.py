"""`python -m contracts_site [FILE]`: write the page."""

import shutil
import subprocess
import sys
from pathlib import Path

from contracts_site.fields import UnshowableError
from contracts_site.page import page
from contracts_site.validators import MissingToolError

_ROOT = Path(__file__).parent.parent


def main() -> None:
    """Write the page to the file that is named, else to `build/contracts.html`."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/contracts.html")
    try:
        written = page(_ROOT / "contracts", _commit())
    except (MissingToolError, UnshowableError) as error:
        sys.exit(f"contracts_site: {error}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(written, encoding="utf-8")
    sys.stdout.write(f"{target}\n")


def _commit() -> str:
    """The commit that is checked out; nothing where git does not know it."""
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else ""


main()
