"""What the stand-in's DynamoDB answers to a call that it refuses."""

from typing import Any


class RefusedError(Exception):
    """DynamoDB's answer to a call that it refuses: the kind of the error, and what else the answer says."""

    def __init__(self, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.answer = {"__type": f"com.amazonaws.dynamodb.v20120810#{kind}", "message": message, **more}
