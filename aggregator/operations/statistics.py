"""
How bundles fill over time: what their indexes say, added up. Pure: bundles go in, figures come out.

Nothing is kept of a bundle but six numbers, and of its members but a count for each prefix.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Literal, NamedTuple

from aggregator.bundles.bundle import Bundle

_MOST_PERIODS = 60
_FORMS: dict[str, str] = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d", "month": "%Y-%m"}

Unit = Literal["hour", "day", "month"]

_STEPS: dict[str, timedelta] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}

_LONGEST = timedelta(days=100 * 366)
"""Beyond a century, only the months that have bundles are shown."""


class Measured(NamedTuple):
    """A bundle: when it was made, its members, and the bytes of the file, of its text, of what counts for its limit."""

    created: datetime
    members: int
    size: int
    text: int
    packed: int
    objects: int


class Period(NamedTuple):
    """The bundles of an hour, a day or a month; `fill` is the mean of theirs, None without a bundle."""

    name: str
    bundles: int
    members: int
    size: int
    text: int
    fill: float | None


class Prefix(NamedTuple):
    """Where members come from: how many, and their bytes in the source."""

    name: str
    members: int
    size: int


class Sizes(NamedTuple):
    """The sizes of bundles in bytes: smallest, twentieth, median, twentieth from above, largest."""

    least: int
    p5: int
    median: int
    p95: int
    most: int


class Figures:
    """The figures of many bundles, `limit` bytes of members being a full one (MAX_BUNDLE_INPUT_MB)."""

    def __init__(self, *, limit: int, depth: int = 1) -> None:
        """Prefixes are counted to the `depth`-th slash of the key."""
        self.limit, self._depth = limit, depth
        self.bundles: list[Measured] = []
        self.empty = 0
        self._members: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def add(self, bundle: Bundle) -> None:
        """Take down a bundle; an empty one closes a name and is only counted."""
        if not len(bundle):
            self.empty += 1
            return
        index = bundle.index
        packed, objects = sum(index.members.length), sum(index.members.size)
        created = datetime.fromisoformat(index.created)
        self.bundles.append(Measured(created, len(bundle), bundle.size, index.text_size, packed, objects))
        for member in bundle:
            name = self._prefix(member.bucket, member.key)
            self._members[name] += 1
            self._bytes[name] += member.size

    @property
    def members(self) -> int:
        """All members."""
        return sum(bundle.members for bundle in self.bundles)

    @property
    def size(self) -> int:
        """Bytes of all bundles."""
        return sum(bundle.size for bundle in self.bundles)

    @property
    def text(self) -> int:
        """Bytes of all texts."""
        return sum(bundle.text for bundle in self.bundles)

    @property
    def ratio(self) -> float:
        """Bytes of text for each byte of a bundle."""
        return self.text / self.size if self.size else 0.0

    @property
    def fills(self) -> list[float]:
        """How full each bundle is, 1.0 being full."""
        return [bundle.packed / self.limit for bundle in self.bundles]

    def sizes(self) -> Sizes | None:
        """The sizes of the bundles, if there are any."""
        ordered = sorted(bundle.size for bundle in self.bundles)
        if not ordered:
            return None
        return Sizes(*(ordered[ceil(share * len(ordered)) - 1] for share in (1e-9, 0.05, 0.5, 0.95, 1)))

    def unit(self) -> Unit:
        """The finest of hour, day and month of which there are not too many."""
        if not self.bundles:
            return "hour"
        span = max(bundle.created for bundle in self.bundles) - min(bundle.created for bundle in self.bundles)
        if span < timedelta(hours=_MOST_PERIODS):
            return "hour"
        return "day" if span < timedelta(days=_MOST_PERIODS) else "month"

    def periods(self) -> list[Period]:
        """All hours, days or months from the first bundle to the last, those without one included."""
        unit = self.unit()
        form = _FORMS[unit]
        found: dict[str, list[Measured]] = {f"{at:{form}}": [] for at in self._begins(unit)}
        for bundle in sorted(self.bundles, key=lambda bundle: bundle.created):
            found.setdefault(f"{bundle.created:{form}}", []).append(bundle)
        return [self._period(name, bundles) for name, bundles in found.items()]

    def prefixes(self, most: int) -> list[Prefix]:
        """Those with most members; equals by name."""
        ordered = sorted(self._members.items(), key=lambda item: (-item[1], item[0]))
        return [Prefix(name, count, self._bytes[name]) for name, count in ordered[:most]]

    def document(self, most: int) -> dict[str, Any]:
        """All figures, as JSON takes them."""
        sizes, fills = self.sizes(), self.fills
        return {
            "bundles": len(self.bundles),
            "empty_bundles": self.empty,
            "members": self.members,
            "object_bytes": sum(bundle.objects for bundle in self.bundles),
            "text_bytes": self.text,
            "bundle_bytes": self.size,
            "compression": round(self.ratio, 3),
            "fill": round(sum(fills) / len(fills), 6) if fills else None,
            "sizes": sizes._asdict() if sizes else None,
            "periods": [period._asdict() for period in self.periods()],
            "prefixes": [prefix._asdict() for prefix in self.prefixes(most)],
        }

    def _begins(self, unit: Unit) -> Iterator[datetime]:
        """When each period begins; nothing, if a bundle is so old or so new that there are too many of them."""
        if not self.bundles:
            return
        at, last = (choose(bundle.created for bundle in self.bundles) for choose in (min, max))
        if last - at > _LONGEST:
            return
        at = at.replace(minute=0, second=0, microsecond=0)
        at = at if unit == "hour" else at.replace(hour=0)
        at = at if unit != "month" else at.replace(day=1)
        while at <= last:
            yield at
            try:
                at = at + _STEPS[unit] if unit != "month" else (at + timedelta(days=31)).replace(day=1)
            except OverflowError:  # the last hour of the year 9999
                return

    def _period(self, name: str, bundles: Sequence[Measured]) -> Period:
        return Period(
            name,
            len(bundles),
            sum(bundle.members for bundle in bundles),
            sum(bundle.size for bundle in bundles),
            sum(bundle.text for bundle in bundles),
            sum(bundle.packed for bundle in bundles) / self.limit / len(bundles) if bundles else None,
        )

    def _prefix(self, bucket: str, key: str) -> str:
        folders = key.split("/")[:-1][: self._depth]
        return "/".join([f"s3://{bucket}", *folders, ""])


def histogram(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    """How many values lie at or above each edge and below the next; the last edge has no end."""
    counts = [0] * len(edges)
    for value in values:
        counts[max(at for at, edge in enumerate(edges) if value >= edge or not at)] += 1
    return counts
