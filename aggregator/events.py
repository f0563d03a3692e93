"""
The events that are acknowledged and bundle nothing: a closed list.

To skip is the one silent way to lose an object. An event creates an object, or it is on this list, or its message is
rejected (docs/decisions/0022). S3 adds event types without notice (S3 user guide, "Event message structure"), so a
record is known by its family, which is what stands before the colon. Nothing is on the list that S3 does not document
as no creation. Each entry says when that was read, and where.
"""

MAX_KEY_BYTES = 1024
"""Longest key of an object in bytes of UTF-8 (S3 user guide, "Naming Amazon S3 objects")."""

CREATION = "ObjectCreated:"
"""How the name of an event begins that creates an object, in a record of S3."""

CREATION_TYPE = "Object Created"
"""The same, as EventBridge says it."""

CONFIGURATION = "s3:"
"""What stands before a name in a bucket's configuration. S3 leaves it out of records; stores that speak S3 write it."""

TEST_EVENT = "TestEvent"
"""The kind of the event that S3 sends when notifications are configured (S3 user guide, "Event message structure")."""

FOLDER_MARKER = "FolderMarker"
"""The kind of an object that the S3 console makes for "create folder"."""

_TYPES = '2026-11-28, S3 user guide, "Supported event types for SQS, SNS, and Lambda"'
_API = '2026-11-28, S3 API reference, "NotificationConfiguration"'
_LOCK = '2026-11-28, S3 user guide, Object Lock, "Configuring events and notifications"'
_BRIDGE = '2026-11-28, S3 user guide, "Using EventBridge", and EventBridge events reference, "Amazon S3 events"'

NO_CREATION = {
    "ObjectRemoved": _TYPES,
    "ObjectRestore": _TYPES,
    "ObjectTagging": _TYPES,
    "ObjectAcl": _TYPES,
    "ObjectAnnotation": _API,
    "ObjectRetention": _LOCK,
    "LifecycleExpiration": _TYPES,
    "LifecycleTransition": _TYPES,
    "IntelligentTiering": _TYPES,
    "Replication": _TYPES,
    "ReducedRedundancyLostObject": _TYPES,
    "Object Deleted": _BRIDGE,
    "Object Restore Initiated": _BRIDGE,
    "Object Restore Completed": _BRIDGE,
    "Object Restore Expired": _BRIDGE,
    "Object Storage Class Changed": _BRIDGE,
    "Object Access Tier Changed": _BRIDGE,
    "Object ACL Updated": _BRIDGE,
    "Object Tags Added": _BRIDGE,
    "Object Tags Deleted": _BRIDGE,
}
"""Families of records (no space in them) and detail types of EventBridge that create no object."""


def kind_of_record(name: str) -> str | None:
    """The kind of a record's event that creates no object; None if it is not known to create none."""
    family = name.removeprefix(CONFIGURATION).partition(":")[0]
    return family if family in NO_CREATION and " " not in family else None


def kind_of_type(detail_type: str) -> str | None:
    """The kind of an EventBridge event that creates no object; None if it is not known to create none."""
    return detail_type if detail_type in NO_CREATION and " " in detail_type else None
