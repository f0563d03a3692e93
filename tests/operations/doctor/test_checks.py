"""The doctor on templates, on facts that nobody knows, and on calls that are wrong."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator.commands import main as cli
from aggregator.operations.doctor import facts_from_template as blueprint
from aggregator.operations.doctor.checks import CHECKS, Finding, State, diagnose
from aggregator.operations.doctor.facts import Facts, Unknown
from aggregator.operations.doctor.template import Template, TemplateError, read
from tests.support.stack import PATH, REQUIRED

DOCUMENT = read(PATH)

ONLY_WHEN_IT_RUNS = {"replica", "replicas", "permissions", "conditional writes", "ledger writes", "clock"}

Edit = Callable[[dict[str, Any]], object]


def _properties(resource: str, **properties: Any) -> Edit:
    return lambda document: document["Resources"][resource]["Properties"].update(properties)


def _without(resource: str, name: str) -> Edit:
    return lambda document: document["Resources"][resource]["Properties"].pop(name)


def _event(**properties: Any) -> Edit:
    return lambda document: document["Resources"]["Function"]["Properties"]["Events"]["Queue"]["Properties"].update(
        properties
    )


def _variable(name: str, value: Any) -> Edit:
    return lambda document: document["Resources"]["Function"]["Properties"]["Environment"]["Variables"].update(
        {name: value}
    )


def _policy(resource: str, statements: list[Any]) -> Edit:
    return _properties(resource, PolicyDocument={"Statement": statements})


def _rule(**properties: Any) -> Edit:
    return lambda document: document["Resources"]["Distribution"]["Properties"]["ReplicationConfiguration"]["Rules"][
        0
    ].update(properties)


_EVERY_WAY: list[Any] = [
    {"Event": f"s3:ObjectCreated:{how}", "Queue": {"Fn::GetAtt": ["Queue", "Arn"]}}
    for how in ("Put", "Post", "Copy", "CompleteMultipartUpload")
]

EDITS: dict[str, tuple[Edit, set[str]]] = {
    "a setting is missing": (_variable("LOG_LEVEL", ""), {"settings"}),
    "the ledger is switched off": (_variable("POWERTOOLS_IDEMPOTENCY_DISABLED", "1"), {"ledger"}),
    "bundles go into the archive": (
        _variable("ARCHIVE_BUCKET_NAME", {"Ref": "Distribution"}),
        {"buckets apart", "replication"},
    ),
    "a short visibility time-out": (_properties("Queue", VisibilityTimeout=779), {"visibility time-out"}),
    "no visibility time-out": (_without("Queue", "VisibilityTimeout"), {"visibility time-out"}),
    "a long window": (_event(MaximumBatchingWindowInSeconds=301), {"visibility time-out"}),
    "members forgotten with the last message": (_variable("IDEMPOTENCY_TTL_DAYS", 28), {"idempotency time"}),
    "few receives": (
        _properties("Queue", RedrivePolicy={"deadLetterTargetArn": "arn", "maxReceiveCount": 4}),
        {"redrive"},
    ),
    "no dead letters": (_without("Queue", "RedrivePolicy"), {"redrive"}),
    "dead letters gone early": (_without("DeadLetterQueue", "MessageRetentionPeriod"), {"dead-letter retention"}),
    "small messages": (_properties("Queue", MaximumMessageSize=65_535), {"message size"}),
    "no partial failures": (_event(FunctionResponseTypes=[]), {"partial failures"}),
    "a mapping that is off": (_event(Enabled=False), {"event source"}),
    "little storage": (_without("Function", "EphemeralStorage"), set()),
    "bundles larger than the storage": (_variable("MAX_BUNDLE_INPUT_MB", 269), {"storage"}),
    "another key": (_properties("Ledger", KeySchema=[{"AttributeName": "id", "KeyType": "RANGE"}]), {"table key"}),
    "expiry by another attribute": (
        _properties("Ledger", TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True}),
        {"table expiry"},
    ),
    "no expiry": (
        _properties("Ledger", TimeToLiveSpecification={"AttributeName": "expiration", "Enabled": False}),
        {"table expiry"},
    ),
    "no versions": (_without("Distribution", "VersioningConfiguration"), {"versioning"}),
    "deleted bundles gone early": (
        _properties(
            "Distribution",
            LifecycleConfiguration={
                "Rules": [{"Status": "Enabled", "NoncurrentVersionExpiration": {"NoncurrentDays": 28}}]
            },
        ),
        {"deleted bundles"},
    ),
    "deleted bundles kept for good": (_without("Distribution", "LifecycleConfiguration"), set()),
    "a filter": (_event(FilterCriteria={"Filters": [{"Pattern": "{}"}]}), {"filters"}),
    "fewer at once than the mapping wants": (
        _properties("Function", ReservedConcurrentExecutions=1),
        {"function state"},
    ),
    "a queue that takes nothing": (_policy("QueuePolicy", []), {"way in"}),
    "a bucket that lets a put replace": (_policy("DistributionPolicy", []), {"commit"}),
    "an archive without a lock": (_without("Archive", "ObjectLockConfiguration"), {"archive lock"}),
    "objects from another bucket": (_variable("SOURCE_BUCKETS", "another"), {"sources"}),
    "the ledger is not switched off": (_variable("POWERTOOLS_IDEMPOTENCY_DISABLED", "false"), set()),
    "a source without versions": (_variable("IDEMPOTENCY_SCOPE", "version"), {"source bucket"}),
    "a rule for some bundles": (_rule(Filter={"Prefix": "2026/"}), {"replication"}),
    "a rule that leaves a prefix out": (_rule(Filter={"Not": {"Prefix": "2026/"}}), {"replication"}),
    "other objects gone early": (
        _properties(
            "Distribution",
            LifecycleConfiguration={
                "Rules": [
                    {"Status": "Enabled", "Prefix": "logs/", "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
                    {"Status": "Enabled", "NoncurrentVersionExpiration": {"NoncurrentDays": 30}},
                ]
            },
        ),
        set(),
    ),
    "several rules that together notify of everything": (
        _properties("Source", NotificationConfiguration={"QueueConfigurations": _EVERY_WAY}),
        set(),
    ),
    "rules that leave a way out": (
        _properties("Source", NotificationConfiguration={"QueueConfigurations": _EVERY_WAY[1:]}),
        {"notification"},
    ),
    "no replication": (_without("Distribution", "ReplicationConfiguration"), {"replication"}),
    "no notification": (_without("Source", "NotificationConfiguration"), {"notification"}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_breaks_a_condition_is_found_in_the_template(edit: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    change, wrong = EDITS[edit]
    change(document)

    findings = diagnose(blueprint.facts(Template(document, REQUIRED)))

    assert {finding.check for finding in findings if finding.state is State.WRONG} == wrong
    assert all(bool(finding.fix) is (finding.state is State.WRONG) for finding in findings)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"SourcePrefix": "in/", "SourceSuffix": ".json", "IdempotencyScope": "version"},
        {"FunctionTimeoutSeconds": "900", "BatchingWindowSeconds": "300", "MaxBundleInputMb": "4000"},
        {"IdempotencyTtlDays": "29", "DistributionExpirationDays": "1"},
    ],
)
def test_no_parameters_make_the_template_wrong(parameters: dict[str, str]) -> None:
    findings = diagnose(blueprint.facts(Template(DOCUMENT, {**REQUIRED, **parameters})))

    assert {finding.check: finding.state for finding in findings} == {
        check: State.NOT_CHECKED if check in ONLY_WHEN_IT_RUNS else State.OK for check in CHECKS
    }


def test_the_notification_of_a_bucket_of_ones_own_cannot_be_seen_in_a_template() -> None:
    template = Template(DOCUMENT, {**REQUIRED, "SourceBucket": "existing"})

    (finding,) = (each for each in diagnose(blueprint.facts(template)) if each.check == "notification")

    assert finding == Finding(
        "notification",
        State.NOT_CHECKED,
        "the source bucket exists already: set its notification, then ask again with --stack",
        "",
    )


@pytest.mark.parametrize(
    "announcer",
    [
        {"SourceTopicArn": "arn:aws:sns:us-east-1:123456789012:created"},
        {"SourceRuleArn": "arn:aws:events:us-east-1:123456789012:rule/created"},
    ],
)
def test_a_topic_or_a_rule_that_announces_is_no_fault(announcer: dict[str, str]) -> None:
    template = Template(DOCUMENT, {**REQUIRED, "SourceBucket": "existing", **announcer})

    findings = {each.check: each for each in diagnose(blueprint.facts(template))}

    assert [each for each in findings.values() if each.state is State.WRONG] == []
    assert findings["way in"].state is State.NOT_CHECKED


def test_a_template_that_lacks_a_resource_is_a_mistake() -> None:
    document = copy.deepcopy(DOCUMENT)
    for name in ("DeadLetterQueue", "DeadLetterQueuePolicy", "DeadLettersAlarm", "Dashboard"):
        del document["Resources"][name]
    del document["Resources"]["Queue"]["Properties"]["RedrivePolicy"]

    with pytest.raises(TemplateError, match="the template has no resource DeadLetterQueue"):
        blueprint.facts(Template(document, REQUIRED))


def test_what_nobody_knows_passes_no_check() -> None:
    facts = Facts(**dict.fromkeys(Facts._fields, Unknown("nobody knows")))

    findings = diagnose(facts)

    assert findings == [Finding(check, State.NOT_CHECKED, "nobody knows", "") for check in CHECKS]


def test_a_template_is_judged_on_the_command_line() -> None:
    well = _doctor("--template", str(PATH), "--parameter", "SourceBucketName=objects", "--json")

    assert well.exit_code == 0
    told = json.loads(well.stdout)
    assert {each["check"] for each in told["checks"] if each["state"] == "not checked"} == ONLY_WHEN_IT_RUNS
    assert told["now"] is None


def test_a_template_that_is_wrong_ends_with_a_finding_and_its_fix(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(PATH.read_text().replace("{Status: Enabled} # what a consumer", "{Status: Suspended} #"))

    ill = _doctor("--template", str(template), "--parameter", "SourceBucketName=objects")

    (line,) = (line for line in ill.stdout.splitlines() if "\twrong\t" in line)
    assert ill.exit_code == 1
    assert line == (
        "versioning\twrong\toff: a bundle that a consumer deletes at once may be made again; "
        "fix: enable versioning of the distribution bucket"
    )
    assert "1 wrong" in ill.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stack", "a", "--template", "b"], "--stack and --template are two questions: ask one"),
        (["--parameter", "A=b"], "--parameter belongs to --template"),
        (["--template", str(PATH), "--parameter", "A"], "--parameter A is not NAME=VALUE"),
        (["--template", str(PATH), "--parameter", "A=b"], "the template has no parameter A"),
        (["--template", str(PATH)], "the parameters are not accepted: SourceBucketName is not given: add --parameter"),
        (["--template", "nowhere.yaml"], "there is no such file or folder"),
        (["--template", "README.md"], "README.md is no"),
        (["--template", "requirements.lock"], "requirements.lock is no"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PATH.parent.parent)

    told = _doctor(*arguments)

    assert told.exit_code == 2
    assert says in told.stderr
    assert len(told.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Resources: {Function: 3}", "is not a template: Function of its Resources has no Type"),
        ("Resources: {A: {Type: B}}\nParameters: 3", "is not a template: everything of its Parameters has no Type"),
        (
            "Resources: {A: {Type: B, Condition: C}}",
            "is not laid out as deploy/template.yaml is (KeyError: 'Conditions')",
        ),
        ("Resources: {A: {Type: B, Properties: {Fn::If: []}}}", "is not laid out as deploy/template.yaml is"),
    ],
)
def test_a_template_that_is_laid_out_otherwise_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "template.yaml").write_text(text)

    told = _doctor("--template", str(tmp_path / "template.yaml"))

    assert (told.exit_code, len(told.stderr.splitlines())) == (2, 1)
    assert says in told.stderr


def _doctor(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["doctor", *arguments])
