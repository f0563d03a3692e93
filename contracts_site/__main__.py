"""`python -m contracts_site [FILE]`: write the page."""

import sys
from pathlib import Path

from contracts_site.fields import UnshowableError
from contracts_site.page import page
from contracts_site.validators import MissingToolError


def main() -> None:
    """Write the page to the file that is named, else to `build/contracts.html`."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/contracts.html")
    try:
        written = page(Path(__file__).parent.parent / "contracts")
    except (MissingToolError, UnshowableError) as error:
        sys.exit(f"contracts_site: {error}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(written, encoding="utf-8")
    sys.stdout.write(f"{target}\n")


main()
