"""deploy/kubernetes: valid objects that fit each other, the image, and what Dagster's launcher makes."""

import copy
import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_file import DEPLOY, services

from rlhf_dagster.labeling.label_studio.server import SETTINGS

FOLDER = DEPLOY / "kubernetes"
VERSION = "1.33"
SECRETS = {
    "rlhf": {"PGPASSWORD", "LABEL_STUDIO_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "label-studio": {
        *("POSTGRE_PASSWORD", "SECRET_KEY", "LABEL_STUDIO_USERNAME", "LABEL_STUDIO_PASSWORD"),
        "LABEL_STUDIO_USER_TOKEN",
    },
}
"""What the files say that each secret holds."""
VALUES = {
    "": "computeLogManager concurrency dagster-user-deployments dagsterDaemon dagsterWebserver "
    "generatePostgresqlPasswordSecret global postgresql runLauncher telemetry",
    "postgresql": "enabled postgresqlDatabase postgresqlHost postgresqlScheme postgresqlUsername",
    "global": "dagsterHome postgresqlSecretName",
    "concurrency": "enabled pools",
    "concurrency.pools": "defaultLimit granularity",
    "dagsterDaemon": "envSecrets image runMonitoring runRetries",
    "dagsterWebserver": "envSecrets image service",
    "runLauncher.config.k8sRunLauncher": "envSecrets failPodOnRunFailure imagePullPolicy runK8sConfig",
    "dagster-user-deployments": "deployments enabled",
}
"""Keys of the values, as the schema of the chart has them (compared by hand with that of 1.13)."""


def resources() -> list[dict[str, Any]]:
    """The objects of the files that the kustomization names."""
    named = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    return [one for name in named for one in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))]


def values() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "dagster-values.yaml").read_text(encoding="utf-8"))


def at(path: str) -> dict[str, Any]:
    found: Any = values()
    for part in path.split(".") if path else ():
        found = found[part]
    return found


def deployment() -> dict[str, Any]:
    (found,) = at("dagster-user-deployments")["deployments"]
    return found


def launched_job(tags: dict[str, str]) -> dict[str, Any]:
    """The Kubernetes job that Dagster's launcher makes of a run with these tags, with the values' settings."""
    import kubernetes
    from dagster_k8s.job import (
        DagsterK8sJobConfig,
        UserDefinedDagsterK8sConfig,
        construct_dagster_k8s_job,
        get_user_defined_k8s_config,
    )

    given = at("runLauncher.config.k8sRunLauncher.runK8sConfig.podSpecConfig")
    pod = {re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name): value for name, value in given.items()}
    of_run = get_user_defined_k8s_config(tags)
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig("rlhf-dagster:1", dagster_home=at("global")["dagsterHome"]),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        component="run_worker",
        user_defined_k8s_config=UserDefinedDagsterK8sConfig(
            container_config=of_run.container_config, pod_spec_config=pod
        ),
    )
    return kubernetes.client.ApiClient().sanitize_for_serialization(job)


@pytest.mark.parametrize("document", resources(), ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_an_object_is_valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)
    wrong = copy.deepcopy(document)
    wrong["metadata"]["lables"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_kustomize_builds_all_of_them() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("`kubectl kustomize` builds these files, and there is no kubectl.")
    command = ["kubectl", "kustomize", str(FOLDER)]
    built = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    names = lambda documents: sorted((one["kind"], one["metadata"]["name"]) for one in documents)  # noqa: E731
    assert names(built) == names(resources())
    for document in built:
        kubernetes_validate.validate(document, VERSION, strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "rlhf"


def test_no_secret_is_written_down() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yaml")]
    plain = "\n".join(line.split("#")[0] for text in texts for line in text.splitlines())
    for name in (name for names in SECRETS.values() for name in names):
        assert name not in plain
    named = set(re.findall(r"secretRef: \{name: ([\w-]+)\}", plain))
    named |= set(re.findall(r"envSecrets: \[\{name: ([\w-]+)\}\]", plain))
    assert named == SECRETS.keys()
    comments = "\n".join(texts)
    assert all(name in comments for names in SECRETS.values() for name in names)


def test_label_studio_is_given_what_compose_gives_it() -> None:
    every = {"DAGSTER_PG_HOST": "here", "AWS_ACCESS_KEY_ID": "here", "AWS_SECRET_ACCESS_KEY": "here"}
    other = services(dict.fromkeys(_asked_by_compose(), "here") | every)["label-studio"]
    (settings,) = (one["data"] for one in resources() if one["kind"] == "ConfigMap")
    assert settings.keys() | SECRETS["label-studio"] == other["environment"].keys()
    assert settings.items() >= SETTINGS.items()
    container = _pod("label-studio")["spec"]["containers"][0]
    assert container["image"] == other["image"]
    assert f"{container['volumeMounts'][0]['mountPath']}" == other["volumes"][0].split(":")[1]


def test_the_values_have_keys_of_the_chart_alone() -> None:
    for path, names in VALUES.items():
        assert at(path).keys() == set(names.split()), path
    launcher, logs = at("runLauncher"), at("computeLogManager")
    assert (launcher["type"], launcher["config"].keys()) == ("K8sRunLauncher", {"k8sRunLauncher"})
    assert (logs["type"], logs["config"].keys()) == ("S3ComputeLogManager", {"s3ComputeLogManager"})


def test_the_values_fit_the_image_and_the_loops() -> None:
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert f"DAGSTER_HOME={at('global')['dagsterHome']} " in image
    (mount,), (volume,) = deployment()["volumeMounts"], deployment()["volumes"]
    assert f"RLHF_ROOT={mount['mountPath']} " in image
    assert mount["name"] == volume["name"]
    (claim,) = (one for one in resources() if one["metadata"]["name"] == volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert deployment()["codeServerArgs"][:2] == ["-m", "team_rlhf.definitions"]
    assert at("postgresql")["postgresqlScheme"] == "postgresql+psycopg2"
    loops = (DEPLOY / "project" / "team_rlhf" / "defs" / "sentiment" / "defs.yaml").read_text(encoding="utf-8")
    wanted = {one or other for one, other in re.findall(r"env\.(\w+)|\$\{(\w+)\}", loops)}
    given = {variable["name"] for variable in deployment()["env"]} | SECRETS["rlhf"]
    assert wanted | {"PGPASSWORD", "LABEL_STUDIO_API_KEY"} <= given
    assert {secret["name"] for secret in deployment()["envSecrets"]} == {"rlhf"}


def test_the_code_server_s_pod_is_valid() -> None:
    given = deployment()
    names = ("env", "securityContext", "volumeMounts", "resources")
    container = {"name": "code", "image": "rlhf-dagster:1", **{name: given[name] for name in names}}
    spec = {"containers": [container], "volumes": given["volumes"], "securityContext": given["podSecurityContext"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "code"}, "spec": spec}
    kubernetes_validate.validate(pod, VERSION, strict=True)


def test_a_run_s_job_is_valid_and_has_the_gpu_of_its_tags() -> None:
    from dagster._utils.tags import normalize_tags

    gpu = {"container_config": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}
    job = launched_job(dict(normalize_tags({"dagster-k8s/config": gpu})))
    kubernetes_validate.validate(job, VERSION, strict=True)
    pod = job["spec"]["template"]
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 120
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_policies_let_in_who_is_named_and_nobody_else() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in resources() if one["kind"] == "NetworkPolicy"}
    nobody = policies.pop("nobody-by-default")
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert all(rule["from"] and rule["ports"] for policy in policies.values() for rule in policy["ingress"])
    ports = {name: policy["ingress"][0]["ports"][0]["port"] for name, policy in policies.items()}
    assert ports["code-servers"] == deployment()["port"]
    assert ports["dagster-pages"] == at("dagsterWebserver")["service"]["port"]
    label_studio = _pod("label-studio")
    assert ports["label-studio"] == label_studio["spec"]["containers"][0]["ports"][0]["name"]
    assert policies["label-studio"]["podSelector"]["matchLabels"] == label_studio["metadata"]["labels"]
    named = [peer["podSelector"]["matchLabels"] for peer in policies["label-studio"]["ingress"][0]["from"][1:]]
    labels = launched_job({})["spec"]["template"]["metadata"]["labels"]
    assert [wanted for wanted in named if wanted.items() <= labels.items()] == [
        {"app.kubernetes.io/component": "run_worker"}
    ]


def _asked_by_compose() -> set[str]:
    return set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")))


def _pod(name: str) -> dict[str, Any]:
    (found,) = (one for one in resources() if one["kind"] == "Deployment" and one["metadata"]["name"] == name)
    return found["spec"]["template"]
