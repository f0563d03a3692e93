"""
What an audit finds wrong, as queries over its database (`database.py` lists the tables). Nothing runs here.

Each object has one verdict. `once`, `in_flight` and `overwritten` are as they should be:

    once          in one bundle, as it is in the source, and the ledger says so
    in_flight     in none, but young, or claimed by an invocation that is not over
    overwritten   in one bundle, and replaced in the source since
    missing       in none, and nothing is known to be under way
    rejected       in none, because the handler rejected its message
    twice         in more than one, while the ledger remembered the first
    altered       in one, but not what was announced
    unrecorded    in one, but the ledger does not say so: a second message would bundle it again

Of bundles there are two: `unreplicated` are not in the archive, `unreadable` are among bundles and are not bundles.
"""

from collections.abc import Sequence
from typing import NamedTuple

GRACE = 3_600.0
"""Seconds in which an object may be on its way into a bundle, and a bundle on its way into the archive."""

_SAME_MOMENT = 2.0
"""Seconds by which an object that was overwritten after it was read may seem older than its bundle: S3 and an index
tell whole seconds, and their clocks are not one."""


class Parameters(NamedTuple):
    """
    What the verdicts depend on.

    `root` is `s3://bucket/` of the source, `published` that of bundles; what is younger than `fresh` may be on its way;
    `now` and `fresh` in seconds since the epoch. `ttl` is how many seconds the ledger remembers, None if that is not
    known. Without a ledger or an archive nothing is held against them.
    """

    root: str
    published: str
    now: float
    fresh: float
    ttl: float | None
    has_ledger: bool
    has_archive: bool


REPEATED = """
CREATE TABLE repeated AS
SELECT key, version FROM (
    SELECT
        entries.key, entries.version,
        created - lag(created) OVER (PARTITION BY entries.key, entries.version ORDER BY created) AS gap
    FROM entries JOIN bundles ON bundles.number = entries.bundle
    SEMI JOIN (SELECT key, version FROM entries GROUP BY ALL HAVING count(*) > 1) AS several
        ON several.key = entries.key AND several.version = entries.version
)
WHERE gap IS NOT NULL AND ($ttl IS NULL OR gap <= $ttl)
GROUP BY ALL
"""
"""Members that are in bundles more than once while the ledger remembered them."""

HELD = """
CREATE TABLE held AS
SELECT objects.number, bundles.key AS bundle, bundles.url, created, entries.etag, entries.size
FROM objects
JOIN entries ON entries.key = objects.key AND entries.version = objects.version
JOIN bundles ON bundles.number = entries.bundle
QUALIFY row_number() OVER (PARTITION BY objects.number ORDER BY created DESC) = 1
"""
"""What the latest bundle holds of each object."""

VERDICTS = f"""
CREATE TABLE verdicts AS
SELECT
    objects.*, held.url AS bundle, coalesce(known.url, $published || claims.bundle) AS claimed, claims.released,
    known.members, settled.bundle AS settled,
    CASE
        WHEN repeated.key IS NOT NULL THEN 'twice'
        WHEN held.number IS NULL AND NOT claims.released AND (known.members > 0 OR settled.bundle IS NOT NULL)
            THEN 'missing'
        WHEN held.number IS NULL AND NOT claims.released AND known.key IS NULL AND claims.lapses >= $now
            THEN 'in_flight'
        WHEN held.number IS NULL AND rejected.object IS NOT NULL THEN 'rejected'
        WHEN held.number IS NULL AND objects.modified > $fresh THEN 'in_flight'
        WHEN held.number IS NULL THEN 'missing'
        WHEN coalesce(held.etag, objects.etag) = objects.etag AND held.size <> objects.size THEN 'altered'
        WHEN held.etag <> objects.etag AND (objects.version <> '' OR claims.etag = objects.etag) THEN 'altered'
        WHEN held.etag <> objects.etag AND claims.etag = held.etag THEN 'overwritten'
        WHEN held.etag <> objects.etag AND objects.modified >= held.created - {_SAME_MOMENT} THEN 'overwritten'
        WHEN held.etag <> objects.etag THEN 'altered'
        WHEN $has_ledger AND ($ttl IS NULL OR held.created > $now - $ttl) AND (
            claims.number IS NULL OR claims.released OR claims.bundle <> held.bundle
        ) THEN 'unrecorded'
        ELSE 'once'
    END AS verdict
FROM objects
LEFT JOIN held ON held.number = objects.number
LEFT JOIN claims ON claims.number = objects.number
LEFT JOIN (SELECT key, max(members) AS members, arg_max(url, members) AS url FROM bundles GROUP BY key) AS known
    ON known.key = claims.bundle
LEFT JOIN settled ON settled.bundle = claims.bundle
LEFT JOIN repeated ON repeated.key = objects.key AND repeated.version = objects.version
LEFT JOIN (SELECT object, max(time) AS time FROM rejections GROUP BY ALL) AS rejected
    ON rejected.object = $root || objects.key AND rejected.time >= objects.modified - {_SAME_MOMENT}
"""  # noqa: S608 - our own number
"""
What has become of each object, one thing each.

An object whose entity tag is not the index's was overwritten since, or the bundle does not hold what was announced. The
claim says which, because it keeps the tag that was announced; else the time does.
"""

FINDING = ("finding", "object", "version_id", "bundle", "other_bundle", "why")

FINDINGS = """
CREATE TABLE findings AS
SELECT verdict AS finding, $root || verdicts.key AS object, version_id, bundle, NULL::VARCHAR AS other_bundle,
    'entity tag or size is not the one that the index names' AS why
FROM verdicts WHERE verdict = 'altered'

UNION ALL
SELECT 'rejected', object, version_id, NULL, NULL, arg_max(message, time)
FROM (SELECT $root || key AS object, version_id FROM verdicts WHERE verdict = 'rejected')
JOIN rejections USING (object) GROUP BY ALL

UNION ALL
SELECT 'unrecorded', $root || key, version_id, bundle, claimed, CASE
    WHEN claimed IS NULL THEN 'the ledger has no claim on it'
    WHEN released THEN 'the ledger says that it was given back'
    ELSE 'the ledger names another bundle' END
FROM verdicts WHERE verdict = 'unrecorded'

UNION ALL
SELECT 'missing', $root || verdicts.key, version_id, claimed, NULL, CASE
    WHEN NOT $has_ledger THEN 'in no bundle'
    WHEN claimed IS NULL THEN 'never claimed'
    WHEN released THEN 'given back'
    WHEN members > 0 THEN 'its bundle does not hold it'
    WHEN members = 0 THEN 'its bundle was never published'
    WHEN settled IS NOT NULL THEN 'its bundle is gone'
    ELSE 'its claim has lapsed and is in doubt' END
FROM verdicts WHERE verdict = 'missing'

UNION ALL
SELECT 'twice', $root || entries.key, any_value(entries.version_id), min(bundles.url), max(bundles.url),
    'in ' || count(*) || ' places'
FROM entries JOIN bundles ON bundles.number = entries.bundle
SEMI JOIN repeated ON repeated.key = entries.key AND repeated.version = entries.version
GROUP BY entries.key, entries.version

UNION ALL
SELECT 'unreplicated', NULL, NULL, url, NULL, CASE
    WHEN EXISTS (FROM copies WHERE copies.key = bundles.key) THEN 'the copy in the archive has another size'
    ELSE 'not in the archive' END
FROM bundles
WHERE $has_archive AND members > 0 AND NOT archived AND modified <= $fresh
    AND NOT EXISTS (FROM copies WHERE copies.key = bundles.key AND copies.size = bundles.size)

UNION ALL
SELECT 'unreadable', NULL, NULL, url, NULL, why FROM unreadable
"""

KINDS = ("once", "in_flight", "overwritten", "missing", "twice", "altered", "rejected", "unrecorded")
"""What may have become of an object."""

TOTALS = {
    "objects": "SELECT count(*) FROM objects",
    **{verdict: f"SELECT count(*) FROM verdicts WHERE verdict = '{verdict}'" for verdict in KINDS},  # noqa: S608
    "twice": "SELECT count(*) FROM findings WHERE finding = 'twice'",
    "other_members": """
        SELECT count(*) FROM entries
        ANTI JOIN objects ON objects.key = entries.key AND objects.version = entries.version
    """,
    "bundles": "SELECT count(*) FROM bundles WHERE members > 0",
    "empty_bundles": "SELECT count(*) FROM bundles WHERE members = 0",
    "unreplicated": "SELECT count(*) FROM findings WHERE finding = 'unreplicated'",
    "unreadable": "SELECT count(*) FROM findings WHERE finding = 'unreadable'",
}

_OBJECTS = "SELECT '{0}' AS finding, $root || key AS object, version_id, bundle, NULL::VARCHAR AS other_bundle, "
_BUNDLES = "SELECT '{0}', NULL, NULL, url, NULL, {1} FROM bundles WHERE members "

SHOWN = {
    "objects": _OBJECTS.format("objects") + "verdict AS why FROM verdicts",
    **{
        verdict: f"{_OBJECTS.format(verdict)} NULL::VARCHAR AS why FROM verdicts WHERE verdict = '{verdict}'"
        for verdict in ("once", "in_flight")
    },
    "overwritten": _OBJECTS.format("overwritten")
    + "'its bundle holds an earlier content' AS why FROM verdicts WHERE verdict = 'overwritten'",
    "other_members": """
        SELECT 'other_members', $root || entries.key, entries.version_id, bundles.url, NULL, NULL
        FROM entries JOIN bundles ON bundles.number = entries.bundle
        ANTI JOIN objects ON objects.key = entries.key AND objects.version = entries.version
    """,
    "bundles": _BUNDLES.format("bundles", "members || ' members'") + "> 0",
    "empty_bundles": _BUNDLES.format("empty_bundles", "NULL") + "= 0",
}
"""What a total counts, for those that are not findings: the columns of `FINDING`."""


def numbered(kinds: Sequence[str]) -> str:
    """The query that makes the table `numbered` of what the totals `kinds` count."""
    found = "SELECT * FROM findings WHERE finding IN ({})".format(", ".join(f"'{kind}'" for kind in kinds))  # noqa: S608
    parts = " UNION ALL ".join([found, *(SHOWN[kind] for kind in kinds if kind in SHOWN)])
    number = "row_number() OVER (ORDER BY finding, object, version_id, bundle) - 1 AS number"
    return f"CREATE OR REPLACE TABLE numbered AS SELECT {number}, * FROM ({parts})"  # noqa: S608 - our own names


CANDIDATES = """
CREATE TABLE candidates AS
WITH held AS (
    SELECT
        entries.key, entries.version, entries.etag, entries.size,
        list_sort(list_distinct(min(bundles.key, $most))) AS bundles
    FROM entries JOIN bundles ON bundles.number = entries.bundle
    GROUP BY entries.key, entries.version, entries.etag, entries.size
), other AS (
    SELECT
        entries.key, max(bundles.key) AS bundle,
        arg_max('it has eTag ' || coalesce(entries.etag, 'unknown') || ', size ' || entries.size, bundles.key) AS why
    FROM entries JOIN bundles ON bundles.number = entries.bundle
    GROUP BY entries.key
), judged AS (
    SELECT
        objects.key, objects.version, objects.version_id, objects.etag, objects.size,
        row_number() OVER (PARTITION BY objects.key ORDER BY number DESC) - 1 AS older,
        count(*) OVER (PARTITION BY objects.key) > 1 AS several,
        CASE
            WHEN modified >= $until THEN 'young'
            WHEN held.bundles IS NOT NULL THEN 'safe'
            WHEN other.key IS NOT NULL THEN 'overwritten'
            ELSE 'unbundled'
        END AS verdict,
        CASE verdict WHEN 'overwritten' THEN other.why WHEN 'unbundled' THEN 'no index names its key' END AS why,
        CASE verdict WHEN 'safe' THEN held.bundles WHEN 'overwritten' THEN [other.bundle] ELSE [] END AS bundles
    FROM objects LEFT JOIN held USING (key, version, etag, size) LEFT JOIN other ON other.key = objects.key
)
SELECT row_number() OVER (ORDER BY older, verdict = 'safe', bundles, key) - 1 AS number, * FROM judged
"""
"""
The source objects, and at most `$most` bundles that name each as it is stored: the same key, version, eTag and size.
Of an object that is overwritten the bundle is that which holds its key and comes last.

S3 lists the newest version of a key first. The time of a version does not say which is newer: it is in whole seconds,
and for a multipart upload it is the time when the upload began.
"""
