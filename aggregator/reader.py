"""
The door for programs that read bundles: `from aggregator.reader import Bundle`.

It needs nothing but pydantic. docs/reading-bundles.md shows how to use it.
"""

from aggregator.bundles.bundle import Bundle as Bundle
from aggregator.bundles.index import Member as Member
