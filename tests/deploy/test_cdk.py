"""The CDK app includes the transformed template: it synthesises, and has the same resources."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.stack import transformed

pytestmark = [pytest.mark.once, pytest.mark.chaos]


@pytest.fixture(scope="module")
def synthesised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the app makes of the template."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    app = tmp_path_factory.mktemp("cdk") / "app"
    shutil.copytree(ROOT / "deploy" / "cdk", app, ignore=shutil.ignore_patterns("node_modules", "cdk.out"))
    (app / "template.json").write_text(json.dumps(transformed()), encoding="utf-8")
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=app, check=True, timeout=300)
    given = {"TEMPLATE": "template.json", "OUT": "out", "STACK": "mine", "SOURCE_BUCKET_NAME": "objects"}
    done = subprocess.run(
        ["node", "app.mjs"], cwd=app, env={**os.environ, **given}, check=False, timeout=300, capture_output=True
    )
    assert Path(app, "out", "mine.template.json").exists(), done.stderr.decode()
    return json.loads((app / "out" / "mine.template.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_app_has_the_resources_of_the_template(synthesised: dict[str, Any]) -> None:
    ours = {name: each["Type"] for name, each in transformed()["Resources"].items()}

    theirs = {
        name: each["Type"] for name, each in synthesised["Resources"].items() if each["Type"] != "AWS::CDK::Metadata"
    }

    assert theirs == ours


def test_what_is_kept_and_denied_stays_so(synthesised: dict[str, Any]) -> None:
    ours, theirs = transformed()["Resources"], synthesised["Resources"]

    for name in ("Distribution", "DistributionPolicy", "ArchivePolicy", "Ledger", "Queue"):
        assert theirs[name]["DeletionPolicy"] == ours[name]["DeletionPolicy"]
        assert theirs[name]["Properties"] == ours[name]["Properties"]


def test_a_parameter_that_is_given_is_none_any_more(synthesised: dict[str, Any]) -> None:
    assert set(transformed()["Parameters"]) - set(synthesised["Parameters"]) == {"SourceBucketName"}
