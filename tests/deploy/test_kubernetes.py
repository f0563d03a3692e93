"""The manifests for the worker agree with each other, with the container, and with the settings."""

import copy
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from aggregator.pipeline.settings import Settings
from aggregator.runtimes.local.packages import install
from tests.support import ROOT

pytestmark = pytest.mark.once

MANIFESTS: dict[str, Any] = {
    each["kind"]: each for each in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))
}
POD = MANIFESTS["Deployment"]["spec"]["template"]
(WORKER,) = POD["spec"]["containers"]

VERSIONS = {
    "ServiceAccount": "v1",
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "ScaledObject": "keda.sh/v1alpha1",
}
"""The versions in which each kind is served (Kubernetes API reference 1.34; KEDA 2, "ScaledObject specification")."""


def test_each_kind_is_there_once_in_a_version_that_is_served() -> None:
    assert {kind: each["apiVersion"] for kind, each in MANIFESTS.items()} == VERSIONS
    assert {each["metadata"]["name"] for each in MANIFESTS.values()} == {"aggregator"}


def test_what_selects_pods_selects_the_workers() -> None:
    labels = POD["metadata"]["labels"]

    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert POD["spec"]["serviceAccountName"] == MANIFESTS["ServiceAccount"]["metadata"]["name"]
    assert WORKER["envFrom"] == [{"configMapRef": {"name": MANIFESTS["ConfigMap"]["metadata"]["name"]}}]
    assert MANIFESTS["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == MANIFESTS["Deployment"]["metadata"]["name"]


def test_the_environment_is_complete() -> None:
    given = MANIFESTS["ConfigMap"]["data"]

    filled = {name: value if name == "LOG_LEVEL" else value.lower() for name, value in given.items()}

    named = Settings.from_env(filled)

    assert named.idempotency_ttl_days == 30
    assert {name.lower() for name in given} - set(Settings.model_fields) == {"aws_region"}


def test_the_pod_runs_as_the_container_is_made() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    user = int(re.findall(r"^USER (\d+):", dockerfile, flags=re.MULTILINE)[0])
    port = int(re.findall(r"^EXPOSE (\d+)", dockerfile, flags=re.MULTILINE)[0])

    assert POD["spec"]["securityContext"]["runAsUser"] == user
    assert WORKER["ports"] == [{"name": "health", "containerPort": port}]
    assert {WORKER[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {"/health"}
    assert WORKER["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["mountPath"] for mount in WORKER["volumeMounts"]] == ["/tmp"]


def test_a_worker_has_the_time_to_drain() -> None:
    drain = int(re.findall(r"`--drain` \| (\d+)", (ROOT / "docs" / "worker.md").read_text(encoding="utf-8"))[0])

    assert POD["spec"]["terminationGracePeriodSeconds"] > drain


def test_only_the_queue_that_is_read_scales_the_workers() -> None:
    (trigger,) = MANIFESTS["ScaledObject"]["spec"]["triggers"]

    assert trigger["type"] == "aws-sqs-queue"
    assert trigger["metadata"]["queueURL"] == WORKER["args"][1]


PROGRAM = """
import json, sys, kubernetes_validate
for manifest in json.load(sys.stdin):
    kubernetes_validate.validate(manifest, "1.34", strict=True)
"""


def _judged(*manifests: Any) -> str:
    """What the schemas that Kubernetes publishes find wrong, in its last line."""
    schemas = install(ROOT / "deploy" / "kubernetes.lock", "kubernetes-validate", called="the schemas of Kubernetes")
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        input=json.dumps(manifests),
        env={**os.environ, "PYTHONPATH": str(schemas)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.mark.chaos
def test_the_published_schemas_accept_each_manifest_of_kubernetes_itself() -> None:
    ours = [each for kind, each in MANIFESTS.items() if kind != "ScaledObject"]  # whose schema KEDA has

    assert _judged(*ours) == ""


@pytest.mark.chaos
@pytest.mark.parametrize("wrong", [{"replicaz": 2}, {"replicas": "two"}, {"template": "one"}])
def test_the_published_schemas_find_what_is_wrong(wrong: dict[str, Any]) -> None:
    manifest = copy.deepcopy(MANIFESTS["Deployment"])
    manifest["spec"] |= wrong

    assert "ValidationError" in _judged(manifest)
