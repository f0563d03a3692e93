"""The stand-in that benchmarks run against answers as the embedded AWS does: what it never refuses, nobody measures."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from benchmarks.buckets import Buckets, Request
from benchmarks.capacity import item_size
from benchmarks.conditions import parsed
from benchmarks.limits import gets_per_second
from benchmarks.objects import BUCKET, LINE_SIZE, TEXT_SIZE, Object
from benchmarks.refusals import RefusedError
from benchmarks.standin import Standin
from benchmarks.tables import Tables
from tests.support.world import CREDENTIALS

pytestmark = pytest.mark.once

OBJECT = Object(7, 5 * LINE_SIZE)
FREE = "attribute_not_exists(#id) OR #expiration < :now"
POWERTOOLS = (
    "attribute_not_exists(#id) OR #expiration < :now OR "
    "(#status = :inprogress AND attribute_exists(#lapse) AND #lapse < :now)"
)
NAMES = {"#id": "id", "#expiration": "expiration", "#status": "status", "#lapse": "in_progress_expiration"}


ALL_OLD = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
INSERT = (
    """INSERT INTO "claims" VALUE {'id': ?, 'status': ?, 'data': ?, 'expiration': ?, 'in_progress_expiration': ?}"""
)
UPDATE = (
    'UPDATE "claims" SET "status" = ? SET "data" = ? SET "expiration" = ? SET "in_progress_expiration" = ? '
    'WHERE "id" = ? AND "data" = ? AND "in_progress_expiration" = ?'
)


def _key(id_: str) -> dict[str, Any]:
    return {"id": {"S": id_}}


def _item(id_: str, **more: str) -> dict[str, Any]:
    return {**_key(id_), "expiration": {"N": "100"}, **{name: {"S": value} for name, value in more.items()}}


def _put(id_: str, more: dict[str, Any] | None = None, **attributes: str) -> dict[str, Any]:
    conditional = {
        "ConditionExpression": FREE,
        "ExpressionAttributeNames": {name: NAMES[name] for name in ("#id", "#expiration")},
        "ExpressionAttributeValues": {":now": {"N": "10"}},
    }
    return {"Put": {"TableName": "claims", "Item": _item(id_, **attributes), **conditional, **(more or {})}}


def _inserted(id_: str, data: str = "x") -> dict[str, Any]:
    values = [{"S": id_}, {"S": "INPROGRESS"}, {"S": data}, {"N": "100"}, {"N": "5000"}]
    return {"Statement": INSERT, "Parameters": values}


def _updated(id_: str, *, seen: str, lapses: str = "5000") -> dict[str, Any]:
    written = [{"S": "INPROGRESS"}, {"S": "y"}, {"N": "200"}, {"N": "6000"}]
    return {"Statement": UPDATE, "Parameters": [*written, {"S": id_}, {"S": seen}, {"N": lapses}]}


def _statements(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Statements": list(statements)}


def _read(*ids: str) -> dict[str, Any]:
    return {"RequestItems": {"claims": {"Keys": [_key(id_) for id_ in ids], "ConsistentRead": True}}}


LARGE = {**_key("large"), "data": {"S": "x" * 2_048}}


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    """One stand-in for all tests here."""
    with Standin() as running:
        yield running


def test_an_object_is_the_same_text_whole_and_in_ranges(standin: Standin) -> None:
    s3 = _s3(standin.endpoint_url)
    large = Object(3, TEXT_SIZE + 700_001)

    whole = s3.get_object(Bucket=BUCKET, Key=large.key)
    halves = [
        s3.get_object(Bucket=BUCKET, Key=large.key, Range=f"bytes={bounds}", IfMatch=large.etag)["Body"].read()
        for bounds in ("0-4000000", "4000001-", "-5")
    ]

    text = whole["Body"].read()
    assert (len(text), whole["ContentLength"], whole["ETag"]) == (large.size, large.size, f'"{large.etag}"')
    assert halves[0] + halves[1] == text
    assert halves[2] == text[-5:]
    assert text == b"".join(large.pieces(0, large.size))


def test_an_object_of_whole_lines_is_json_to_its_end() -> None:
    lines = b"".join(OBJECT.pieces(0, OBJECT.size)).splitlines(keepends=True)

    assert [len(line) for line in lines] == [LINE_SIZE] * 5
    assert all(json.loads(line)["order"] for line in lines)


@pytest.mark.integration
def test_s3_answers_as_the_embedded_aws_does(standin: Standin, embedded: str) -> None:
    theirs = _s3(embedded)
    for bucket in (BUCKET, "bundles"):
        theirs.create_bucket(Bucket=bucket)
    theirs.put_bucket_versioning(Bucket="bundles", VersioningConfiguration={"Status": "Enabled"})
    tag = theirs.put_object(Bucket=BUCKET, Key=OBJECT.key, Body=b"".join(OBJECT.pieces(0, OBJECT.size)))["ETag"]

    expected = [_s3_answer(call, theirs, tag) for call in S3_CALLS]

    assert [_s3_answer(call, _s3(standin.endpoint_url), f'"{OBJECT.etag}"') for call in S3_CALLS] == expected
    assert [answer for answer in expected if isinstance(answer, int)] == [416, 412, 404, 412, 404]


def test_a_version_is_read_in_ranges_too_which_the_embedded_aws_does_not_do(standin: Standin) -> None:
    s3 = _s3(standin.endpoint_url)
    version = s3.put_object(Bucket="bundles", Key="ranges", Body=b"first")["VersionId"]
    s3.put_object(Bucket="bundles", Key="ranges", Body=b"second")

    answer = s3.get_object(Bucket="bundles", Key="ranges", VersionId=version, Range="bytes=1-3")

    assert (answer["ContentRange"], answer["Body"].read()) == ("bytes 1-3/5", b"irs")


@pytest.mark.integration
def test_dynamodb_answers_as_the_embedded_aws_does(standin: Standin, embedded: str) -> None:
    theirs, ours = (boto3.client("dynamodb", endpoint_url=url, **KEYS) for url in (embedded, standin.endpoint_url))
    theirs.create_table(
        TableName="claims",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    expected = [_dynamodb_answer(theirs, *call) for call in DYNAMODB_CALLS]

    assert [_dynamodb_answer(ours, *call) for call in DYNAMODB_CALLS] == expected
    kinds = [answer[0] for answer in expected if answer[0] != "ok"]
    assert kinds == [
        "ConditionalCheckFailedException",
        "TransactionCanceledException",
        "ConditionalCheckFailedException",
        "ValidationException",
        "ValidationException",
    ]
    batches = [told for kind, _, told, *_ in expected if kind == "ok" and isinstance(told, list)]
    codes = [each.get("Error", {}).get("Code") for told in batches for each in told]
    assert codes == [None, "DuplicateItem", None, "ConditionalCheckFailed", "ConditionalCheckFailed", None]


def test_a_transaction_with_one_taken_member_writes_none() -> None:
    tables = Tables()
    tables.call("PutItem", {"TableName": "claims", "Item": _item("b")})

    with pytest.raises(RefusedError) as refused:
        tables.call("TransactWriteItems", {"TransactItems": [_put("a"), _put("b", ALL_OLD), _put("c")]})

    codes = [reason["Code"] for reason in refused.value.answer["CancellationReasons"]]
    assert codes == ["None", "ConditionalCheckFailed", "None"]
    assert refused.value.answer["CancellationReasons"][1]["Item"] == _item("b")
    assert [tables.call("GetItem", {"TableName": "claims", "Key": _key(id_)}) for id_ in "ac"] == [{}, {}]


def test_a_transaction_asked_for_again_by_its_token_is_done_once_and_confirmed_twice() -> None:
    tables = Tables()
    request = {"TransactItems": [_put("a")], "ClientRequestToken": "token"}

    answers = [tables.call("TransactWriteItems", request) for _ in range(2)]

    assert answers == [{}, {}]
    with pytest.raises(RefusedError):
        tables.call("TransactWriteItems", {**request, "ClientRequestToken": "another"})


def test_a_transaction_of_more_than_a_hundred_is_refused() -> None:
    writes = [_put(str(number)) for number in range(101)]

    with pytest.raises(RefusedError, match="less than or equal to 100"):
        Tables().call("TransactWriteItems", {"TransactItems": writes})


@pytest.mark.parametrize(
    "statement",
    [
        """insert into claims value{'id':?,'data':?}""",
        """INSERT INTO "claims"  VALUE  { 'id' : ? , 'data' : ? }""",
        """INSERT INTO "claims" VALUE {'data': ?, 'id': ?}""",
    ],
)
def test_a_statement_may_be_spaced_quoted_and_ordered_as_one_likes(statement: str) -> None:
    tables = Tables()
    values = [{"S": "a"}, {"S": "x"}]
    if statement.index("data") < statement.index("id"):
        values.reverse()

    tables.call("BatchExecuteStatement", {"Statements": [{"Statement": statement, "Parameters": values}]})

    item = {"id": {"S": "a"}, "data": {"S": "x"}}
    assert tables.call("GetItem", {"TableName": "claims", "Key": _key("a")}) == {"Item": item}


def test_an_update_may_set_with_one_word_or_with_many() -> None:
    tables = Tables()
    tables.call("PutItem", {"TableName": "claims", "Item": _item("a", data="x")})
    statement = 'UPDATE claims SET data = ?, "expiration" = ? SET "status" = ? where "data" = ? and id = ?'
    values = [{"S": "y"}, {"N": "200"}, {"S": "NEW"}, {"S": "x"}, {"S": "a"}]

    tables.call("BatchExecuteStatement", {"Statements": [{"Statement": statement, "Parameters": values}]})

    item = {**_item("a", data="y", status="NEW"), "expiration": {"N": "200"}}
    assert tables.call("GetItem", {"TableName": "claims", "Key": _key("a")}) == {"Item": item}


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("INSERT INTO \"claims\" VALUE {'id': 'a'}", 0),
        ("INSERT INTO \"claims\" VALUE {'data': ?}", 1),
        ("INSERT INTO \"claims\" VALUE {'id': ?, 'data': ?, 'data': ?}", 3),
        ("INSERT INTO \"claims\" VALUE {'id': ?} IF NOT EXISTS", 1),
        ('UPDATE "claims" SET "data" = ?', 1),
        ('UPDATE "claims" SET "data" = ? WHERE "data" = ?', 2),
        ('UPDATE "claims" SET "id" = ? WHERE "id" = ?', 2),
        ('UPDATE "claims" SET "data" = ? WHERE "id" = ? OR "data" = ?', 3),
        ('UPDATE "claims" SET "data" = "status" WHERE "id" = ?', 1),
        ('DELETE FROM "claims" WHERE "id" = ?', 1),
        ('SELECT * FROM "claims" WHERE "id" = ?', 1),
        (INSERT, 1),
        (INSERT, 6),
    ],
)
def test_a_statement_that_the_stand_in_does_not_know_is_an_error_and_no_guess(statement: str, parameters: int) -> None:
    request = {"Statements": [{"Statement": statement, "Parameters": [{"S": "a"}] * parameters}]}

    with pytest.raises(RefusedError, match=r"does not know the statement|Number of parameters"):
        Tables().call("BatchExecuteStatement", request)


def test_two_statements_about_one_item_are_refused_with_all_others_which_the_embedded_aws_does_not_do() -> None:
    """As the real service was seen to do, 2026-08-15 (github.com/nubo-db/dynoxide, tests/partiql.rs)."""
    tables = Tables()
    tables.call("PutItem", {"TableName": "claims", "Item": _item("a", data="x")})

    with pytest.raises(RefusedError, match="Provided list of item keys contains duplicates"):
        tables.call("BatchExecuteStatement", _statements(_inserted("b"), _inserted("a"), _updated("a", seen="x")))

    assert tables.call("GetItem", {"TableName": "claims", "Key": _key("b")}) == {}


@pytest.mark.parametrize("number", [0, 26])
def test_a_batch_has_one_to_twenty_five_statements(number: int) -> None:
    with pytest.raises(RefusedError, match="between 1 and 25"):
        Tables().call("BatchExecuteStatement", _statements(*(_inserted(f"{at}") for at in range(number))))


@pytest.mark.parametrize(
    ("operation", "request_", "write", "read"),
    [
        ("PutItem", {"TableName": "claims", "Item": LARGE}, 3, 0),
        ("PutItem", _put("small")["Put"], 1, 0),
        ("PutItem", {"TableName": "claims", "Item": _item("large")}, 3, 0),
        ("PutItem", _put("large")["Put"], 3, 0),
        ("TransactWriteItems", {"TransactItems": [_put("b"), _put("c", data="x" * 1_024)]}, 6, 0),
        ("TransactWriteItems", {"TransactItems": [_put("b"), _put("a"), _put("c")]}, 6, 0),
        ("TransactWriteItems", {"TransactItems": [_put("a")], "ClientRequestToken": "known"}, 0, 2),
        ("TransactWriteItems", {"TransactItems": [_put("b")] * 2}, 0, 0),
        ("BatchWriteItem", {"RequestItems": {"claims": [{"PutRequest": {"Item": _item(id_)}} for id_ in "bc"]}}, 2, 0),
        ("BatchExecuteStatement", _statements(_inserted("b"), _inserted("a"), _updated("c", seen="x")), 3, 0),
        ("BatchExecuteStatement", _statements(_inserted("large")), 3, 0),
        ("BatchExecuteStatement", _statements(_inserted("b"), _inserted("b")), 0, 0),
        ("GetItem", {"TableName": "claims", "Key": _key("a")}, 0, 0.5),
        ("BatchGetItem", _read("a", "large", "missing"), 0, 3),
    ],
)
def test_capacity_is_counted_as_dynamodb_counts_it(
    operation: str, request_: dict[str, Any], write: float, read: float
) -> None:
    """A write that is refused for its condition costs as much as one that is not, a call that is refused nothing."""
    tables = Tables()
    for item in (_item("a"), LARGE):
        tables.call("PutItem", {"TableName": "claims", "Item": item})
    tables.call("TransactWriteItems", {"TransactItems": [_put("t")], "ClientRequestToken": "known"})
    before = dict(tables.units)

    with suppress(RefusedError):
        tables.call(operation, request_)

    assert {kind: units - before[kind] for kind, units in tables.units.items()} == {"write": write, "read": read}


def test_the_size_of_an_item_is_that_of_its_names_and_values() -> None:
    item = {"id": {"S": "ü"}, "number": {"N": "-1200"}, "time": {"N": "1795453200000"}, "none": {"N": "0"}}

    sizes = [2 + 2, 6 + 1 + 1, 4 + 4 + 1, 4 + 0 + 1]

    assert item_size(item) == sum(sizes)


@pytest.mark.parametrize(
    ("condition", "item", "holds"),
    [
        (FREE, {}, True),
        (FREE, {"id": {"S": "a"}, "expiration": {"N": "9"}}, True),
        (FREE, {"id": {"S": "a"}, "expiration": {"N": "100"}}, False),
        (POWERTOOLS, {"id": {"S": "a"}, "expiration": {"N": "100"}, "status": {"S": "COMPLETED"}}, False),
        (POWERTOOLS, {"id": {"S": "a"}, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": "9"}}, True),
        (POWERTOOLS, {"id": {"S": "a"}, "status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": "11"}}, False),
        ("(#id = :now) OR #status = :inprogress", {"status": {"S": "INPROGRESS"}}, True),
        ("NOT attribute_exists(#id) AND #status <> :inprogress", {"status": {"S": "COMPLETED"}}, True),
        ("#expiration = :inprogress", {"expiration": {"N": "10"}}, False),
    ],
)
def test_a_condition_is_judged_as_it_reads(condition: str, item: dict[str, Any], holds: bool) -> None:
    values = {":now": {"N": "10"}, ":inprogress": {"S": "INPROGRESS"}}

    assert parsed(condition)(item, NAMES, values) is holds


@pytest.mark.parametrize(
    "condition", ["#id =", "(#id = :now", "size(#id) > :now", "#id = :now ORR #id = :now", "a % b"]
)
def test_a_condition_that_the_stand_in_does_not_know_is_an_error_and_no_yes(condition: str) -> None:
    with pytest.raises(RefusedError, match="Invalid ConditionExpression"):
        parsed(condition)


def test_what_it_does_not_know_is_refused(standin: Standin) -> None:
    with pytest.raises(ClientError, match="NotImplemented"):
        _s3(standin.endpoint_url).delete_object(Bucket=BUCKET, Key=OBJECT.key)
    with pytest.raises(ClientError, match="UnknownOperation"):
        boto3.client("dynamodb", endpoint_url=standin.endpoint_url, **KEYS).list_tables()


def test_it_counts_what_it_is_asked_and_forgets_when_told(standin: Standin) -> None:
    standin.reset()
    assert gets_per_second(standin.endpoint_url, seconds=0.01) > 0
    _s3(standin.endpoint_url).put_object(Bucket="bundles", Key="a", Body=b"a")

    calls = standin.stats()["calls"]
    standin.reset()

    assert calls["PUT"] == 1
    assert calls["GET"] >= 16
    assert standin.stats()["calls"] == {}


def test_two_answers_from_one_bundle_do_not_mix() -> None:
    buckets = Buckets()
    body = _file(bytes(300_000) + b"\1" * 300_000)
    buckets.answer(Request("PUT", "/bundles/a", {}, body))
    answers = [buckets.answer(Request("GET", "/bundles/a", {}, _file(b""))) for _ in range(2)]

    pieces = list(zip(*(answer.pieces for answer in answers), strict=True))

    assert all(one == other for one, other in pieces)
    assert sum(len(one) for one, _ in pieces) == 600_000


KEYS: Any = {
    "region_name": CREDENTIALS["AWS_DEFAULT_REGION"],
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}

S3_CALLS: list[Callable[[Any, str], Any]] = [
    lambda s3, _: s3.get_object(Bucket=BUCKET, Key=OBJECT.key),
    lambda s3, tag: s3.get_object(Bucket=BUCKET, Key=OBJECT.key, IfMatch=tag, Range="bytes=256-511"),
    lambda s3, _: s3.get_object(Bucket=BUCKET, Key=OBJECT.key, Range="bytes=1000-9999"),
    lambda s3, _: s3.get_object(Bucket=BUCKET, Key=OBJECT.key, Range="bytes=9999-"),
    lambda s3, _: s3.get_object(Bucket=BUCKET, Key=OBJECT.key, IfMatch='"another"'),
    lambda s3, _: s3.get_object(Bucket=BUCKET, Key="missing"),
    lambda s3, _: s3.head_object(Bucket=BUCKET, Key=OBJECT.key),
    lambda s3, _: s3.list_object_versions(Bucket="bundles", Prefix="a b"),
    lambda s3, _: s3.put_object(Bucket="bundles", Key="a b", Body=b"first", IfNoneMatch="*"),
    lambda s3, _: s3.put_object(Bucket="bundles", Key="a b", Body=b"second", IfNoneMatch="*"),
    lambda s3, _: s3.put_object(Bucket="bundles", Key="a b", Body=b"third"),
    lambda s3, _: s3.get_object(Bucket="bundles", Key="a b"),
    lambda s3, _: s3.list_object_versions(Bucket="bundles", Prefix="a b"),
    lambda s3, _: s3.get_object(Bucket="bundles", Key="a b", VersionId=_oldest(s3)),
    lambda s3, _: s3.get_object(Bucket="bundles", Key="a b", VersionId="00000000000000000000000000000000"),
]


DYNAMODB_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("get_item", {"TableName": "claims", "Key": _key("a")}),
    ("put_item", _put("a")["Put"]),
    ("put_item", _put("a", ALL_OLD)["Put"]),
    ("transact_write_items", {"TransactItems": [_put("b"), _put("a", ALL_OLD), _put("a2")]}),
    ("get_item", {"TableName": "claims", "Key": _key("b")}),
    ("transact_write_items", {"TransactItems": [_put("b"), _put("c", data="x")], "ClientRequestToken": "t"}),
    ("transact_write_items", {"TransactItems": [_put("b"), _put("c", data="x")], "ClientRequestToken": "t"}),
    (
        "update_item",
        {
            "TableName": "claims",
            "Key": _key("c"),
            "UpdateExpression": "SET #data = :data, #expiration = :later",
            "ExpressionAttributeNames": {"#data": "data", "#expiration": "expiration"},
            "ExpressionAttributeValues": {":data": {"S": "y"}, ":later": {"N": "200"}},
        },
    ),
    ("get_item", {"TableName": "claims", "Key": _key("c")}),
    (
        "delete_item",
        {
            "TableName": "claims",
            "Key": _key("c"),
            "ConditionExpression": "#data = :data",
            "ExpressionAttributeNames": {"#data": "data"},
            "ExpressionAttributeValues": {":data": {"S": "x"}},
        },
    ),
    ("delete_item", {"TableName": "claims", "Key": _key("c")}),
    ("batch_write_item", {"RequestItems": {"claims": [{"PutRequest": {"Item": _item("d")}}]}}),
    ("batch_get_item", {"RequestItems": {"claims": {"Keys": [_key("c"), _key("d")]}}}),
    ("transact_write_items", {"TransactItems": [_put("e"), _put("e")]}),
    ("batch_execute_statement", _statements(_inserted("f"), _inserted("d"), _inserted("g"))),
    ("batch_execute_statement", _statements(_updated("missing", seen="x"), _updated("f", seen="z"))),
    ("batch_execute_statement", _statements(_updated("f", seen="x"))),
    ("batch_get_item", _read("f", "d", "g", "missing")),
    ("batch_execute_statement", _statements(*(_inserted(f"{at}") for at in range(26)))),
]


def _s3(endpoint_url: str) -> Any:
    return boto3.client("s3", endpoint_url=endpoint_url, config=Config(s3={"addressing_style": "path"}), **KEYS)


def _oldest(s3: Any) -> str:
    return str(s3.list_object_versions(Bucket="bundles", Prefix="a b")["Versions"][-1]["VersionId"])


def _s3_answer(call: Callable[[Any, str], Any], s3: Any, tag: str) -> Any:
    """What of an answer does not depend on who gives it: a refusal's status, or the content and its measures."""
    try:
        answer = call(s3, tag)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    body = answer["Body"].read() if "Body" in answer else None
    listed = [(each["Key"], each["Size"], each["IsLatest"]) for each in answer.get("Versions", [])]
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return str(status), body, answer.get("ContentLength"), answer.get("ContentRange"), listed


def _dynamodb_answer(client: Any, verb: str, request: dict[str, Any]) -> tuple[Any, ...]:
    try:
        answer = getattr(client, verb)(**request)
    except ClientError as error:
        reasons = [(each["Code"], each.get("Item")) for each in error.response.get("CancellationReasons", [])]
        return error.response["Error"]["Code"], reasons, error.response.get("Item")
    told = answer.get("Responses")
    if isinstance(told, dict):  # in no order that DynamoDB promises
        told = {table: sorted(items, key=lambda item: str(item["id"])) for table, items in told.items()}
    return "ok", answer.get("Item"), told, answer.get("UnprocessedItems")


def _file(content: bytes) -> BytesIO:

    return BytesIO(content)
