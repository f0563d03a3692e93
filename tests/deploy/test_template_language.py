"""The part of CloudFormation's language that our template speaks, on a template of a few lines."""

from pathlib import Path
from typing import Any

import pytest

from aggregator.operations.doctor.template import Resource, Template, TemplateError, read

pytestmark = pytest.mark.once

TEXT = """
Parameters:
  Name: {Type: String, Default: ""}
  Size: {Type: Number, Default: 2, MinValue: 1, MaxValue: 3}
Mappings:
  Sizes:
    "1": {Word: small}
    "2": {Word: large}
Conditions:
  Named: !Not [!Equals [!Ref Name, ""]]
  Large: !Equals [!Ref Size, 2]
  Both: !And [!Condition Named, !Condition Large]
  Either: !Or [!Condition Named, !Condition Large]
Resources:
  Queue:
    Type: AWS::SQS::Queue
    Properties:
      Named: !If [Named, !Ref Name, !Ref AWS::NoValue]
      Word: !FindInMap [Sizes, !Ref Size, Word]
      Both: !If [Both, both, not both]
      Either: !If [Either, either, neither]
      Listed: [a, !If [Named, b, !Ref AWS::NoValue]]
      Policy: {Condition: {Bool: {tls: "true"}}}
      Text: !Sub ["${AWS::StackName} ${Queue.Arn} ${Name} ${!kept} ${Other}", {Other: !Ref Size}]
      Joined: !Join [_, !Split ["-", !Ref AWS::StackName]]
      Url: !Ref Queue
      Name: !GetAtt Queue.QueueName
  Bucket:
    Type: AWS::S3::Bucket
    Condition: Named
    Properties: {BucketName: !Sub "${Name}-1"}
Outputs:
  Bucket: {Condition: Named, Value: !GetAtt Bucket.Arn}
  Queue: {Value: !GetAtt Queue.Arn}
"""

ARN = "arn:aws:sqs:us-east-1:123456789012:my-stack-queue"


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """The template, read from a file."""
    (tmp_path / "template.yaml").write_text(TEXT)
    return read(tmp_path / "template.yaml")


def test_defaults_stand_where_nothing_is_given(document: dict[str, Any]) -> None:
    template = Template(document, {}, stack="my-stack")

    assert template.resources == {
        "Queue": Resource(
            "AWS::SQS::Queue",
            {
                "Word": "large",
                "Both": "not both",
                "Either": "either",
                "Listed": ["a"],
                "Policy": {"Condition": {"Bool": {"tls": "true"}}},
                "Text": f"my-stack {ARN}  ${{kept}} 2",
                "Joined": "my_stack",
                "Url": "https://sqs.us-east-1.amazonaws.com/123456789012/my-stack-queue",
                "Name": "my-stack-queue",
            },
        )
    }
    assert template.outputs == {"Queue": ARN}


def test_what_is_given_is_followed_everywhere(document: dict[str, Any]) -> None:
    template = Template(document, {"Name": "mine", "Size": "1"}, stack="my-stack")

    queue = template.resources["Queue"].properties

    assert (queue["Named"], queue["Word"], queue["Listed"]) == ("mine", "small", ["a", "b"])
    assert template.resources["Bucket"] == Resource("AWS::S3::Bucket", {"BucketName": "mine-1"})
    assert template.outputs == {"Bucket": "arn:aws:s3:::mine-1", "Queue": ARN}


@pytest.mark.parametrize(
    ("size", "says"), [("0", "MinValue 1, MaxValue 3"), ("4", "MinValue 1"), ("1.5", "MinValue 1"), ("", "MinValue 1")]
)
def test_a_number_out_of_bounds_is_refused(document: dict[str, Any], size: str, says: str) -> None:
    with pytest.raises(TemplateError, match=f"Size is '{size}': {says}"):
        Template(document, {"Size": size})


def test_what_is_referred_to_must_be_there(document: dict[str, Any]) -> None:
    template = Template(document, {"Size": "3"})

    with pytest.raises(TemplateError, match="the mapping Sizes has no '3'"):
        template.resolved({"Fn::FindInMap": ["Sizes", {"Ref": "Size"}, "Word"]})
    with pytest.raises(TemplateError, match="the template refers to Nothing, which it does not have"):
        template.resolved({"Ref": "Nothing"})


@pytest.mark.parametrize("text", ["a: b", "- a", "a: [", "a: !Ref [", "\xff", "Resources: []"])
def test_what_is_no_template_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "template.yaml"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(TemplateError, match="is no"):
        read(path)
