"""The SAM transform runs here, for tools that include a template and do not run it."""

import json
from pathlib import Path

import pytest

from deploy.transform import main

pytestmark = pytest.mark.once

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Function:
    Type: AWS::Serverless::Function
    Properties: {Runtime: python3.13, Handler: app.handler, CodeUri: "CODE"}
"""


def test_a_packaged_template_is_printed_as_cloudformation_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "packaged.yaml").write_text(TEMPLATE.replace("CODE", "s3://packages/lambda.zip"), encoding="utf-8")

    status = main([str(tmp_path / "packaged.yaml")])

    resources = json.loads(capsys.readouterr().out)["Resources"]
    assert status == 0
    assert {name: each["Type"] for name, each in resources.items()} == {
        "Function": "AWS::Lambda::Function",
        "FunctionRole": "AWS::IAM::Role",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEMPLATE.replace("CODE", "."), "'CodeUri' is not a valid S3 Uri"),
        ("Resources: [", "is not YAML"),
        (None, "No such file"),
    ],
)
def test_what_cannot_be_transformed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = tmp_path / "template.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    status = main([str(path)])

    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1)
    assert said in error


def test_without_a_template_it_says_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err == "usage: python -m deploy.transform TEMPLATE\n"
