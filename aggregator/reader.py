"""
The door for programs that read bundles: `from aggregator.reader import Bundle`.

It needs nothing but pydantic. docs/reading-bundles.md shows how to use it, docs/api.md lists it.
"""

from aggregator.bundles.bundle import Bundle as Bundle
from aggregator.bundles.index import BundleIndex as BundleIndex
from aggregator.bundles.index import Member as Member
from aggregator.bundles.verification import Proof as Proof
