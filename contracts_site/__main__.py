"""`python -m contracts_site [FILE]`: write the page."""

import sys
from pathlib import Path

from contracts_site.page import page


def main() -> None:
    """Write the page to the file that is named, else to `build/contracts.html`."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/contracts.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(Path(__file__).parent.parent / "contracts"), encoding="utf-8")
    sys.stdout.write(f"{target}\n")


main()
