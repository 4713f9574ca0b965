"""docs/operations/kubernetes is a system that Kubernetes takes, and the same one as in the Procfile."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from api.server import _DRAIN_S
from common.config import Settings
from common.devserver.procfile import find_procfile, read_procfile
from common.scrape import Scrape

_FOLDER = Path(__file__).resolve().parents[2] / "docs/operations/kubernetes"
_OLDEST, _NEWEST = "1.30", kubernetes_validate.latest_version().rpartition(".")[0]
_FILES = sorted(_FOLDER.glob("*/*.yaml"))
_SETTINGS = {name.upper() for name in Settings.__struct_fields__}


def _documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in _FILES:
        for document in yaml.safe_load_all(file.read_text("utf-8")):
            yield file.stem, document


_ALL = list(_documents())
_OBJECTS = {(found["kind"], found["metadata"]["name"]): found for _, found in _ALL if "metadata" in found}
_WORKLOADS = {
    name: found["spec"]["template"]["spec"] for (kind, name), found in _OBJECTS.items() if kind in ("Deployment", "Job")
}


@pytest.mark.parametrize("version", [_OLDEST, _NEWEST])
def test_manifests_are_what_kubernetes_takes(version: str) -> None:
    """Every field exists and has the type of its schema; nothing else is there."""
    checked = 0
    for file, found in _ALL:
        if not found["apiVersion"].startswith(("kustomize.config.k8s.io/", "keda.sh/")):
            kubernetes_validate.validate(found, version, strict=True)
            assert "namespace" not in found["metadata"], file
            checked += 1
    assert checked > 8


def test_kustomizations_name_what_is_there() -> None:
    """Each resource is a file beside it, and each file of base and migrate is a resource."""
    for folder in ("base", "migrate"):
        kustomization = yaml.safe_load((_FOLDER / folder / "kustomization.yaml").read_text("utf-8"))
        files = {file.name for file in (_FOLDER / folder).glob("*.yaml")}
        assert set(kustomization["resources"]) == files - {"kustomization.yaml"}


def test_workloads_run_the_commands_of_the_procfile() -> None:
    """There is no second way to run the system."""
    commands = read_procfile(find_procfile())
    assert {name: spec["containers"][0]["args"] for name, spec in _WORKLOADS.items()} == {
        "throughline-api": commands["web"],
        "throughline-migrate": commands["release"],
        **{name: commands["worker"] for name in _WORKLOADS if name.startswith("throughline-worker")},
    }


@pytest.mark.parametrize("name", _WORKLOADS)
def test_workload_has_no_rights(name: str) -> None:
    """Nobody in particular, who can write nothing and asks Kubernetes for nothing; what it may use is bounded."""
    spec = _WORKLOADS[name]
    [container] = spec["containers"]
    user = re.search(r"^USER (\d+):(\d+)$", (_FOLDER.parents[2] / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert user is not None
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], str(security["runAsUser"]), str(security["runAsGroup"])) == (True, *user.groups())
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


def test_settings_exist_and_secrets_come_by_reference() -> None:
    """Each variable is a setting; secrets stand in the example alone, and the owner's URL is the Job's."""
    named = {entry["name"]: name for name, spec in _WORKLOADS.items() for entry in spec["containers"][0].get("env", [])}
    literals = yaml.safe_load((_FOLDER / "base/kustomization.yaml").read_text("utf-8"))["configMapGenerator"][0]
    secrets = {key: name for (kind, name), found in _OBJECTS.items() if kind == "Secret" for key in found["stringData"]}
    assert {*named, *(literal.partition("=")[0] for literal in literals["literals"]), *secrets} <= _SETTINGS
    assert named["MIGRATION_DATABASE_URL"] == "throughline-migrate"
    assert {key for key, name in secrets.items() if name == "throughline-owner"} == {"MIGRATION_DATABASE_URL"}
    for name, spec in _WORKLOADS.items():
        [container] = spec["containers"]
        from_all = [source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source]
        assert from_all == ([] if name == "throughline-migrate" else ["throughline"])


def test_workers_have_time_to_drain() -> None:
    """The grace is longer than the drain and the hand-back after it."""
    literals = (_FOLDER / "base/kustomization.yaml").read_text("utf-8")
    drain_s = float(re.findall(r"WORKER_DRAIN_S=(\d+)", literals)[0])
    workers = [spec for name, spec in _WORKLOADS.items() if name.startswith("throughline-worker")]
    assert workers
    assert all(spec["terminationGracePeriodSeconds"] >= drain_s + 10 for spec in workers)


def test_api_leaves_its_balancers_first() -> None:
    """It goes on for a while once it is told to leave, and has time for what it has begun."""
    spec = _WORKLOADS["throughline-api"]
    sleep_s = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep_s >= 5
    assert spec["terminationGracePeriodSeconds"] >= sleep_s + 2 * _DRAIN_S + 5


def test_probes_ask_what_the_api_answers() -> None:
    """Restarted for no outage, out of service without Postgres; the check waits longer than the API asks its stores."""
    [container] = _WORKLOADS["throughline-api"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["readinessProbe"]["timeoutSeconds"] >= 5
    literals = (_FOLDER / "base/kustomization.yaml").read_text("utf-8")
    for name, spec in _WORKLOADS.items():
        if name.startswith("throughline-worker"):
            [container] = spec["containers"]
            assert "livenessProbe" not in container
            assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "metrics"}
            [port] = container["ports"]
            assert port["name"] == "metrics"
            assert f"WORKER_METRICS_PORT={port['containerPort']}\n" in literals
            assert "WORKER_HOST=0.0.0.0" in literals


def test_selectors_choose_the_pods_they_are_meant_for() -> None:
    """Services, budgets and spreads name the labels of one workload's pods."""
    labels = {
        name: found["spec"]["template"]["metadata"]["labels"]
        for (kind, name), found in _OBJECTS.items()
        if kind == "Deployment"
    }
    assert len({tuple(label.items()) for label in labels.values()}) == len(labels)
    for (kind, name), found in _OBJECTS.items():
        if kind == "Service":
            assert found["spec"]["selector"] == labels[name]
        elif kind == "PodDisruptionBudget":
            assert found["spec"]["selector"]["matchLabels"] == labels[name]
            assert found["spec"]["maxUnavailable"] == 1
        elif kind == "Deployment":
            [spread] = _WORKLOADS[name]["topologySpreadConstraints"]
            assert found["spec"]["selector"]["matchLabels"] == spread["labelSelector"]["matchLabels"] == labels[name]
    assert {name for kind, name in _OBJECTS if kind == "PodDisruptionBudget"} == set(labels)


def test_ingress_does_not_buffer_streams() -> None:
    """It leads to the API, and waits longer than the API is silent."""
    ingress = _OBJECTS["Ingress", "throughline"]
    annotations = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert annotations["proxy-buffering"] == "off"
    assert int(annotations["proxy-read-timeout"]) >= 30
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    service = _OBJECTS["Service", path["backend"]["service"]["name"]]
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


def test_autoscalers_lead_to_what_is_there() -> None:
    """The workers' one asks for a figure that the processes tell, in the form that KEDA's Prometheus trigger has."""
    scaled = _OBJECTS["ScaledObject", "throughline-worker"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert ("Deployment", scaled["spec"]["scaleTargetRef"]["name"]) in _OBJECTS
    assert set(scaled["spec"]) == {
        "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "advanced", "triggers",
    }  # fmt: skip
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["type"] == "prometheus"
    assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold", "activationThreshold"}
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    [figure] = re.findall(r"throughline_\w+", trigger["metadata"]["query"])
    assert figure in {metric.name for metric in Scrape().registry.collect()}
    assert 0 < float(trigger["metadata"]["threshold"]) <= Settings().worker_max_runs
    assert scaled["spec"]["minReplicaCount"] < scaled["spec"]["maxReplicaCount"]
    target = _OBJECTS["HorizontalPodAutoscaler", "throughline-api"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in _OBJECTS
