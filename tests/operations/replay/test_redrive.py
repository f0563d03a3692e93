"""`aggregator redrive` on the embedded AWS: what is in the dead-letter queue and why, and the way back."""

import json
import os
import subprocess
import sys
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from aggregator.commands.main import app
from aggregator.operations.replay import dead_letters
from aggregator.operations.replay.dead_letters import DeadLetter, DeadLetters, Wanted, send_back
from aggregator.operations.replay.queues import Delivery
from fixtures import factories
from tests.support.world import World

pytestmark = pytest.mark.integration


class Office:
    """A queue with a dead-letter queue behind it, in which four messages lie for three reasons."""

    def __init__(self, world: World) -> None:
        self.world, self.sqs = world, boto3.client("sqs")
        self.dlq = self.sqs.create_queue(QueueName=f"{world.name}-dlq")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.dlq, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
        self.url = self.sqs.create_queue(QueueName=world.name, Attributes={"RedrivePolicy": redrive})["QueueUrl"]
        world.put("in/broken.gz", b"\x1f\x8b\x08 no gzip")
        self.bodies = {
            "missing": world.body("in/missing.json"),
            "missing too": world.body("out/missing too.json"),
            "corrupt": world.body("in/broken.gz"),
            "patient": world.body("in/patient.json"),
        }
        ids = {
            name: self.sqs.send_message(QueueUrl=self.url, MessageBody=body)["MessageId"]
            for name, body in self.bodies.items()
        }
        self.names = {id_: name for name, id_ in ids.items()}
        self.ids = ids
        rejected = {id_: self.bodies[name] for id_, name in self.names.items() if name != "patient"}
        world.deliver_bodies(rejected)
        for _ in range(2):  # the second receive finds that the first was one too many
            self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)

    def redrive(self, *options: str) -> Result:
        """Run the command in this process."""
        table = ("--table", self.world.table, "--distribution", self.world.distribution)
        return CliRunner().invoke(app, ["redrive", "--dlq", self.dlq, *table, *options])

    def left(self, url: str) -> list[str]:
        """What anybody sees in a queue at once, by name, without hiding it."""
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        named = {body: name for name, body in self.bodies.items()}
        return sorted(named[message["Body"]] for message in answer.get("Messages", []))

    def looking(self, **options: Any) -> DeadLetters:
        return DeadLetters(self.sqs, self.dlq, None, **{"most": 100, **options})


ALL = ["corrupt", "missing", "missing too", "patient"]


@pytest.fixture
def office(world: World) -> Office:
    return Office(world)


def test_messages_are_shown_by_the_reason_that_the_ledger_kept_and_stay_where_they_are(office: Office) -> None:
    ran = office.redrive()

    rows = sorted(tuple(line.split("\t")) for line in ran.stdout.splitlines())
    assert [row[:3] for row in rows] == [
        ("1", "1", "corrupt_member"),
        ("1", "1", "not_rejected"),
        ("2", "2", "missing_object"),
    ]
    assert rows[0][3].startswith("object is not gzip to its end (")
    assert (ran.exit_code, ran.stderr) == (1, "")
    assert (office.left(office.dlq), office.left(office.url)) == (ALL, [])


@pytest.mark.parametrize(
    ("options", "back"),
    [
        (("--reason", "missing_object"), ["missing", "missing too"]),
        (("--reason", "missing_object", "--pattern", "in/*"), ["missing"]),
        (("--reason", "corrupt_member", "--reason", "not_rejected"), ["corrupt", "patient"]),
        (("--pattern", "*too.json"), ["missing too"]),
        (("--all", "--yes"), ALL),
    ],
)
def test_what_is_chosen_goes_back_and_the_rest_stays(office: Office, options: tuple[str, ...], back: list[str]) -> None:
    ran = office.redrive("--send-back", *options)

    assert office.left(office.url) == back
    assert office.left(office.dlq) == sorted(set(ALL) - set(back))
    assert ran.stderr == f"sent back {len(back)}, left {4 - len(back)}\n"
    assert ran.exit_code == (0 if back == ALL else 1)


@pytest.mark.parametrize("choice", [("--message-id", "nope"), ("--pattern", "nope/*")])
def test_a_choice_that_fits_no_message_is_named(office: Office, choice: tuple[str, str]) -> None:
    ran = office.redrive("--send-back", *choice)

    assert ran.stderr.splitlines() == [
        "no message that was seen fits the choice: compare --reason, --message-id and --pattern with the table",
        "sent back 0, left 4",
    ]
    assert (ran.exit_code, office.left(office.dlq)) == (1, ALL)


def test_a_message_that_went_back_once_its_cause_was_mended_is_bundled(office: Office) -> None:
    office.world.put("in/missing.json", b"{}")

    office.redrive("--send-back", "--message-id", office.ids["missing"])

    message = office.sqs.receive_message(QueueUrl=office.url)["Messages"][0]
    assert office.world.deliver_bodies({message["MessageId"]: message["Body"]}) == set()
    assert office.world.published() == {"in/missing.json": [b"{}"]}


def test_another_queue_can_be_named(office: Office) -> None:
    other = office.sqs.create_queue(QueueName=f"{office.world.name}-other")["QueueUrl"]

    office.redrive("--send-back", "--reason", "corrupt_member", "--queue-url", other)

    assert (office.left(other), office.left(office.url)) == (["corrupt"], [])


def test_json_tells_of_each_message(office: Office) -> None:
    ran = office.redrive("--json", "--pattern", "out/*")

    told = json.loads(ran.stdout)
    assert {name: told[name] for name in ("complete", "seen", "sent_back", "left", "on_both_queues", "error")} == {
        "complete": True,
        "seen": 4,
        "sent_back": 0,
        "left": 4,
        "on_both_queues": [],
        "error": None,
    }
    (chosen,) = (message for message in told["messages"] if message["chosen"])
    bucket = office.world.source
    assert chosen == {
        "message_id": office.ids["missing too"],
        "reason": "missing_object",
        "message": f"object is not there (bucket='{bucket}', key='out/missing too.json', fault='NoSuchKey')",
        "objects": [f"s3://{office.world.source}/out/missing too.json"],
        "chosen": True,
    }


def test_more_than_is_looked_at_is_said(office: Office) -> None:
    ran = office.redrive("--most", "3", "--details")

    assert ran.stderr == "there may be more: this is what was seen\n"
    assert len([line for line in ran.stdout.splitlines() if line.split("\t")[0] in office.names]) == 3
    assert office.left(office.dlq) == ALL


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--send-back",), "--send-back needs a choice: --reason, --message-id, --pattern or --all"),
        (
            ("--send-back", "--all"),
            "--all sends back messages too that cannot succeed: add --yes, or choose by --reason",
        ),
        (("--distribution", ""), "--table and --distribution belong together: IDEMPOTENCY_TABLE_NAME gives"),
        (("--table", ""), "--table and --distribution belong together: DISTRIBUTION_BUCKET_NAME gives"),
        (
            ("--reason", "corrupt_membre"),
            "there is no reason 'corrupt_membre': --reason is archived_object, binary_content",
        ),
        (("--distribution", "no-such-bucket"), "there is no such bucket (bucket='no-such-bucket'): check the name"),
        (
            ("--table", "", "--distribution", "", "--reason", "missing_object"),
            "--reason needs --table and --distribution: it is the ledger that knows",
        ),
    ],
)
def test_a_wrong_call_is_one_clear_line_and_changes_nothing(
    office: Office, options: tuple[str, ...], said: str
) -> None:
    ran = office.redrive(*options)

    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"aggregator: {said}")
    assert office.left(office.dlq) == ALL


def test_a_queue_without_messages_is_said_to_be_empty(world: World) -> None:
    empty = boto3.client("sqs").create_queue(QueueName=f"{world.name}-empty")["QueueUrl"]

    ran = CliRunner().invoke(app, ["redrive", "--dlq", empty])

    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "", "the dead-letter queue is empty\n")


def test_a_fifo_queue_is_a_wrong_call(office: Office) -> None:
    ran = office.redrive("--dlq", "http://queues/dead.fifo")

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("aggregator: FIFO queues are not supported")


def test_without_a_ledger_no_reason_is_known(office: Office) -> None:
    ran = office.redrive("--table", "", "--distribution", "", "--details")

    rows = [line.split("\t") for line in ran.stdout.splitlines()]
    assert (ran.exit_code, rows[0]) == (1, ["4", "4", "unknown", ""])
    assert {row[1] for row in rows[1:]} == {"unknown"}


def test_the_variables_of_the_function_are_read_as_by_its_siblings(office: Office) -> None:
    ran = CliRunner().invoke(app, ["redrive", "--dlq", office.dlq, "--reason", "corrupt_member"])

    assert ["1", "1", "corrupt_member"] in [line.split("\t")[:3] for line in ran.stdout.splitlines()]


def test_a_key_commands_no_terminal_and_stays_on_its_line(office: Office) -> None:
    key = "a\x1b[31m\nb"
    office.bodies["wicked"] = office.world.body(key)
    office.sqs.send_message(QueueUrl=office.dlq, MessageBody=office.bodies["wicked"])

    ran = office.redrive("--details")

    assert f"s3://{office.world.source}/a\\x1b[31m\\nb" in ran.stdout
    assert "\x1b" not in ran.stdout


def test_a_queue_that_counts_receives_is_not_looked_at(office: Office) -> None:
    ran = CliRunner().invoke(app, ["redrive", "--dlq", office.url])

    assert ran.exit_code == 2
    assert "this queue moves messages on after some receives" in ran.stderr


def test_whatever_ends_the_look_messages_are_given_back(office: Office) -> None:
    hidden = []

    def look() -> None:
        with office.looking() as letters:
            next(letters.letters())
            hidden.append(office.left(office.dlq))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look()

    assert hidden == [[]]
    assert office.left(office.dlq) == ALL


def test_a_message_is_deleted_only_after_it_was_sent(office: Office) -> None:
    def deliver(bodies: Any) -> Delivery:
        return Delivery([0], {1: "InvalidMessageContents"}, list(range(2, len(bodies))), "the queue is gone")

    with office.looking() as letters:
        some = next(letters.letters())
        returned = send_back(some, letters, lambda _: deliver)

    assert ([*returned.sent], returned.in_both_queues, len(returned.unsent)) == ([some[0]], [], 3)
    assert returned.why == "the queue is gone"
    assert office.left(office.dlq) == sorted(set(ALL) - {office.names[some[0].message_id]})


def test_a_message_that_was_sent_and_cannot_be_deleted_is_named(office: Office) -> None:
    with office.looking() as letters:
        some = next(letters.letters())
        lost = [letter._replace(receipt="stale") for letter in some[:1]]
        returned = send_back(lost, letters, lambda _: lambda bodies: Delivery(list(range(len(bodies))), {}, []))

    assert (returned.sent, returned.in_both_queues) == (lost, lost)


def test_nothing_is_held_longer_than_the_queue_hides_it(office: Office) -> None:
    now = [0.0]
    with office.looking(most=2, clock=lambda: now[0]) as letters:
        held = letters.letters()
        next(held)
        now[0] += dead_letters.HOLD - 1

        assert list(held) == []
        assert not letters.complete


def test_a_message_about_several_objects_is_meant_if_one_of_them_is() -> None:
    letter = DeadLetter("m", factories.created("k"), "r", "loop", "", ("s3://b/in/a", "s3://b/out/b"), None)

    assert Wanted(pattern="out/*").includes(letter)
    assert not Wanted(pattern="b/*").includes(letter)
    assert not Wanted(reasons=frozenset({"missing_object"}), pattern="out/*").includes(letter)


def test_on_a_terminal_all_goes_back_only_when_somebody_says_yes(office: Office) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "aggregator", "redrive", "--dlq", office.dlq, "--all", "--send-back"]

    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as running:
        os.write(ours, b"n\n")
        running.wait()
    asked = os.read(ours, 65_536).decode()
    os.close(theirs)
    os.close(ours)

    assert running.returncode == 1
    assert "--all sends back messages too that cannot succeed" in asked
    assert "Send all messages back? [y/N]" in asked
    assert office.left(office.dlq) == ALL
