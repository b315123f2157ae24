"""Ray in deploy/: valid files, a token and no open port, the same folder on all nodes, the release that is tested."""

import re
import shutil
import subprocess
import tomllib
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_file import DEPLOY, raw_compose

ROOT = DEPLOY.parent
FOLDER = DEPLOY / "kubernetes" / "ray"
VERSION = "1.33"
KEYS = {
    "": "autoscalerOptions enableInTreeAutoscaling headGroupSpec rayVersion workerGroupSpecs",
    "autoscalerOptions": "idleTimeoutSeconds",
    "headGroupSpec": "rayStartParams template",
    "workerGroupSpecs": "groupName maxReplicas minReplicas rayStartParams replicas template",
}
"""Keys of the RayCluster. The file was valid by the definitions of KubeRay 1.5.0 to 1.7.0, no other key allowed."""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def cluster() -> dict[str, Any]:
    (found,) = documents("ray-cluster.yaml")
    return found["spec"]


def groups() -> list[dict[str, Any]]:
    return [cluster()["headGroupSpec"], *cluster()["workerGroupSpecs"]]


def ray_services() -> dict[str, dict[str, Any]]:
    return {name: one for name, one in raw_compose("compose.ray.yaml")["services"].items() if name != "daemon"}


def test_compose_opens_no_port_of_ray_and_asks_for_a_token() -> None:
    plain, ours = raw_compose(), raw_compose("compose.ray.yaml")["services"]
    token = "${RAY_AUTH_TOKEN:?set it in .env}"
    for service in ours.values():
        assert "ports" not in service
        given = service["environment"]
        assert (given["RAY_AUTH_MODE"], given["RAY_AUTH_TOKEN"]) == ("token", token)
        shown = {key: value for key, value in service.items() if key != "environment"}
        assert "TOKEN" not in yaml.safe_dump(shown)
    for name, service in ray_services().items():
        assert set(service["networks"]) <= plain["networks"].keys()
        assert service["depends_on"].keys() <= plain["services"].keys() | ours.keys(), name
        # The folder in which the loop trains is at the same place for runs and ranks.
        assert service["volumes"] == plain["services"]["daemon"]["volumes"] == ["loops:/var/lib/rlhf"]
    address = ours["daemon"]["environment"]["RAY_API_SERVER_ADDRESS"]
    assert address == "http://ray-head:8265"
    assert "--dashboard-port=8265" in ours["ray-head"]["command"]
    assert "--address=ray-head:6379" in ours["ray-worker"]["command"]
    bucket = plain["services"]["bucket"]["environment"].keys() - {"RLHF_BUCKET"}
    assert all(bucket <= service["environment"].keys() for service in ray_services().values())


def test_ray_knows_the_options_of_its_commands() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="These tests need Ray.")
    for service in ray_services().values():
        command, start, *options = service["command"]
        assert (command, start) == ("ray", "start")
        known = scripts.start.make_context("start", options).params
        assert known["block"] is True
    head = scripts.start.make_context("start", ray_services()["ray-head"]["command"][2:]).params
    assert (head["port"], head["dashboard_port"], head["num_cpus"]) == (6379, 8265, 0)


def test_the_release_is_the_one_that_is_tested() -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    assert cluster()["rayVersion"] == pinned[1]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras["ray"] == [f"ray[default,train]>={pinned[1].removesuffix('.0')},<2.61"]
    assert "ray" in re.findall(r"EXTRAS=(.*)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))[0].split(",")


def test_the_cluster_has_known_keys_and_its_pods_are_valid() -> None:
    for path, names in KEYS.items():
        found = cluster()[path] if path else cluster()
        for one in found if isinstance(found, list) else [found]:
            assert one.keys() == set(names.split()), path
    for group in groups():
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)


def test_its_pods_have_the_token_and_the_folder_of_the_trainings() -> None:
    values = yaml.safe_load((DEPLOY / "kubernetes" / "dagster-values.yaml").read_text(encoding="utf-8"))
    (runs,) = values["dagster-user-deployments"]["deployments"]
    for group in groups():
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
        assert container["envFrom"] == [{"secretRef": {"name": "ray"}}, {"secretRef": {"name": "rlhf"}}]
        assert runs["volumeMounts"][0] in container["volumeMounts"]
        assert runs["volumes"][0] in spec["volumes"]
        assert spec["securityContext"]["runAsUser"] == runs["podSecurityContext"]["runAsUser"]


def test_only_its_own_nodes_runs_and_the_operator_are_heard() -> None:
    policies = {one["metadata"]["name"]: one for one in documents("network-policy.yaml")}
    for policy in policies.values():
        kubernetes_validate.validate(policy, VERSION, strict=True)
        assert policy["spec"]["podSelector"]["matchLabels"]["ray.io/cluster"] == "ray"
        assert all(rule["from"] for rule in policy["spec"]["ingress"])
    (jobs,) = policies["ray-jobs"]["spec"]["ingress"]
    (head,) = (group["template"]["spec"]["containers"][0] for group in groups()[:1])
    assert jobs["ports"][0]["port"] in {port["containerPort"] for port in head["ports"]}
    assert jobs["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/component": "run_worker"}}}]


def test_the_kustomization_names_what_is_there() -> None:
    (kustomization,) = documents("kustomization.yaml")
    assert {*kustomization["resources"], "kustomization.yaml"} == {path.name for path in FOLDER.glob("*")}
    assert kustomization["namespace"] == "rlhf"
    if not shutil.which("kubectl"):
        pytest.skip("`kubectl kustomize` builds these files, and there is no kubectl.")
    command = ["kubectl", "kustomize", str(FOLDER)]
    built = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    kinds = [one["kind"] for one in [*documents("ray-cluster.yaml"), *documents("network-policy.yaml")]]
    assert sorted(one["kind"] for one in built) == sorted(kinds)
    assert {one["metadata"]["namespace"] for one in built} == {"rlhf"}
