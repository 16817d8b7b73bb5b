"""What the manifest of experiments/clusters.md tells processes is what JAX would find out."""

import pathlib
import re
import socket
import sys
import types

import pytest
import yaml
from jax._src.clusters.k8s_cluster import K8sCluster

ROOT = pathlib.Path(__file__).parents[3]
DOCUMENT = ROOT / "experiments" / "clusters.md"
MANIFESTS = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def dotted(tree):
    """A tree of YAML as Kubernetes' own client gives it: attributes, in snake case."""
    if isinstance(tree, list):
        return [dotted(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    snake = {re.sub("[A-Z]", lambda m: "_" + m[0].lower(), key): tree[key] for key in tree}
    snake = {key.replace("cluster_i_p", "cluster_ip"): value for key, value in snake.items()}
    leave = ("labels", "selector")  # their keys are the user's
    return types.SimpleNamespace(
        **{key: value if key in leave else dotted(value) for key, value in snake.items()}
    )


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_manifest_says_what_jax_finds_out(manifest, monkeypatch):
    by_kind = {part["kind"]: part for part in yaml.safe_load_all(manifest)}
    job, service = by_kind["Job"], by_kind["Service"]
    name, spec = job["metadata"]["name"], job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    # What the job's controller adds.
    job["metadata"].setdefault("labels", {})
    owner = {"kind": "Job", "controller": True}
    labels = {"job-name": name}
    pod = spec["template"] | {
        "metadata": {"name": f"{name}-3-x", "labels": labels, "ownerReferences": [owner]}
    }
    assert service["spec"]["selector"] == labels
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["metadata"]["name"] == spec["template"]["spec"]["subdomain"]

    core = types.SimpleNamespace(
        list_namespaced_pod=lambda **_: types.SimpleNamespace(items=[dotted(pod)]),
        list_namespaced_service=lambda _: types.SimpleNamespace(items=[dotted(service)]),
    )
    batch = types.SimpleNamespace(read_namespaced_job=lambda **_: dotted(job))
    module = types.ModuleType("kubernetes")
    module.config = types.SimpleNamespace(load_incluster_config=lambda: None)
    module.client = types.SimpleNamespace(
        CoreV1Api=lambda: core,
        BatchV1Api=lambda: batch,
        exceptions=types.SimpleNamespace(ApiException=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "kubernetes", module)
    for variable, value in (
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("JOB_COMPLETION_INDEX", "3"),
        ("HOSTNAME", f"{name}-3"),
    ):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "10.1.0.3")
    monkeypatch.setattr(K8sCluster, "_namespace", lambda: "default")
    for found in (K8sCluster._pod, K8sCluster._job, K8sCluster._headless_svc):
        found.__func__.cache_clear()
    K8sCluster._controller.__func__.cache_clear()

    assert K8sCluster.is_env_present()
    host, _, _ = K8sCluster.get_coordinator_address(None, None).partition(":")
    (container,) = spec["template"]["spec"]["containers"]
    shell = " ".join([*container["command"], *container.get("args", [])])
    assert f"--coordinator {host}:" in shell
    assert f"--num-processes {K8sCluster.get_process_count()} " in shell
    assert "--process-id $JOB_COMPLETION_INDEX" in shell
    assert K8sCluster.get_process_id() == 3
