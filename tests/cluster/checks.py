"""What must hold on a real cluster, each a function whose name says it. They run in this order, on one cluster.

A reader is a pod that reads its password some 200 times a second, and says how often and how often in vain.
"""
import json
import os
import pathlib
import re
import subprocess
import time

from installation import drivers, install, install_injection, ready, uninstall
from kubernetes import kubectl, until
from places import ROOT, STATE

EXAMPLES = ROOT / "deploy/examples"
READ = """n=0; f=0; trap 'exit 0' TERM; while :; do m=$(cat /mnt/secrets/db-password 2>&1 >/dev/null) || { f=$((f+1)); echo "FAILED $m"; }
n=$((n+1)); [ $((n % 50)) = 0 ] && echo "reads $n failed $f"; usleep 3000; done"""
RESTRICTED = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}}
FILES = "/mnt/secrets/"


def it_is_installed_as_the_readme_says(cluster, store):
    store.set_up_for_the_examples()
    kubectl("create", "namespace", "payments")
    install(store)


def the_quick_start_ends_with_a_pod_that_reads(cluster, store):
    apply("payments")
    wait_ready("pod/checkout-0")
    assert shown("checkout-0") == store.password("checkout")
    assert "-r--r-----" in kubectl("-n", "payments", "exec", "checkout-0", "--", "ls", "-lL", FILES)


def every_example_of_node_mode_becomes_ready(cluster, store):
    for example in ("init-container", "nonroot-fsgroup", "subpath"):
        apply(example)
    wait_ready("pod/migrate", "pod/legacy")
    kubectl("-n", "payments", "rollout", "status", "deployment/worker", "--timeout=60s")


def a_change_in_the_store_reaches_the_pod(cluster, store):
    create_reader("reader", [{"name": "secrets", "csi": {"driver": "csi.sotto.dev", "readOnly": True, "volumeAttributes": {
        "secretProviderClass": "payments-db", "sotto.dev/refresh": "2s"}}}])
    store.put("checkout", "changed-in-node-mode")
    until("the new value", lambda: shown("reader") == "changed-in-node-mode", 10)


def both_daemonsets_are_rolled_and_no_read_fails(cluster, store):
    with_reads("reader", roll)


def both_daemonsets_are_lost_at_once_and_the_mount_heals(cluster, store):
    # Nobody is left who holds the connection: kubelet's next republish brings a token, and the volume is mounted anew, which a
    # HostToContainer mount sees.
    kubectl("-n", "sotto-system", "delete", "pods", "--all", "--grace-period=0", "--force")
    ready()
    until("a read", lambda: shown("reader") == store.password("checkout"), 180)


def a_killed_agent_is_followed_by_another_and_no_read_fails(cluster, store):
    with_reads("reader", lambda: kill("/sotto-node"))


def kubelet_is_restarted_and_no_read_fails(cluster, store):
    def restart():
        cluster.stop("kubelet")
        cluster.start_kubelet()
        until("the registration", lambda: "csi.sotto.dev" in drivers(), 60)
    with_reads("reader", restart)


def the_sidecars_pods_are_injected_and_read(cluster, store):
    install_injection(store)
    kubectl("-n", "payments", "delete", "pod", "checkout-0", "reader", "--wait")
    apply("sidecar", "sidecar-init-container")
    kubectl("-n", "payments", "rollout", "status", "deployment/checkout", "--timeout=90s")
    wait_ready("pod/migrate-sidecar")


def a_job_with_a_sidecar_completes(cluster, store):
    apply("sidecar-job")
    kubectl("-n", "payments", "wait", "--for=condition=Complete", "job/ledger", "--timeout=60s")


def a_sidecar_follows_the_store(cluster, store):
    labels = {"sotto.dev/inject": "true"}
    create_reader("reader", [], labels, {"sotto.dev/secret-provider-class": "payments-db", "sotto.dev/refresh": "2s"})
    store.put("checkout", "changed-in-sidecar-mode")
    until("the new value", lambda: shown("reader") == "changed-in-sidecar-mode", 10)


def a_killed_sidecar_is_started_again_and_no_read_fails(cluster, store):
    with_reads("reader", lambda: kill("/sotto-agent"))


def the_node_is_rolled_under_sidecars_and_no_read_fails(cluster, store):
    with_reads("reader", roll)


def a_pod_that_was_created_past_the_webhook_is_refused(cluster, store):
    manifest = pod("forged", [{"name": "secrets", "csi": {"driver": "sidecar.csi.sotto.dev", "readOnly": True}}])
    refused = subprocess.run(["kubectl", "apply", "-f", "-"], input=json.dumps(manifest), text=True, capture_output=True,
                             env={**os.environ, "KUBECONFIG": f"{STATE}/pki/admin.conf"})
    assert refused.returncode and "sotto-injection-guard" in refused.stderr, refused.stderr


def etcd_has_no_secret_and_the_search_would_find_one(cluster, store):
    kubectl("-n", "payments", "create", "secret", "generic", "planted", "--from-literal=password=planted-canary-value")
    until("the planted one in etcd", lambda: in_etcd("planted-canary-value"), 20)
    for secret in ("changed-in-node-mode", "changed-in-sidecar-mode", store.password("worker"), store.password("ledger")):
        assert not in_etcd(secret), "a value of the store is in etcd's files"


def pods_end_and_leave_nothing(cluster, store):
    kubectl("-n", "payments", "delete", "deployment,job,pod", "--all", "--wait", "--timeout=60s")
    until("the end of all pods", lambda: not kubectl("-n", "payments", "get", "pods", "-o", "name"), 60)
    mounts = [line for line in pathlib.Path("/proc/mounts").read_text().splitlines() if "/var/lib/kubelet" in line and "fuse.sotto" in line]
    assert not mounts, mounts
    assert not list(pathlib.Path("/run/sotto/volumes").iterdir())


def it_is_uninstalled(cluster, store):
    uninstall()
    until("the end of its pods", lambda: not kubectl("-n", "sotto-system", "get", "pods", "-o", "name"), 90)
    # Not by drivers(), which finds none where it can't ask either.
    until("its deregistration", lambda: "sotto" not in kubectl("get", "csinode", "node-1", "-o", "yaml"), 30)


CHECKS = [each for name, each in list(globals().items()) if getattr(each, "__code__", None) and each.__code__.co_varnames[:2] == ("cluster", "store")]


def apply(*examples):
    for example in examples:
        kubectl("apply", "-f", EXAMPLES / f"{example}.yaml")


def wait_ready(*names):
    kubectl("-n", "payments", "wait", "--for=condition=Ready", *names, "--timeout=90s")


def shown(name):
    """What its first container reads; nothing while it can't."""
    return kubectl("-n", "payments", "exec", name, "--", "cat", FILES + "db-password", check=False)


def pod(name, volumes, labels=None, annotations=None):
    mounts = [{"name": volume["name"], "mountPath": FILES, "readOnly": True, "mountPropagation": "HostToContainer"} for volume in volumes]
    container = {"name": "app", "image": "busybox:1.36", "command": ["sh", "-c", READ], "volumeMounts": mounts,
                 "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "payments", "labels": labels or {}, "annotations": annotations or {}},
            "spec": {"serviceAccountName": "checkout", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 5,
                     "securityContext": RESTRICTED, "containers": [container], "volumes": volumes}}


def create_reader(*arguments):
    kubectl("apply", "-f", "-", text=json.dumps(pod(*arguments)))
    wait_ready("pod/reader")


def reads(name):
    """How often it has read, and how often in vain."""
    found = re.findall(r"reads (\d+) failed (\d+)", kubectl("-n", "payments", "logs", name, "-c", "app", check=False))
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def with_reads(name, happening):
    (before, failed_before), began = reads(name), time.monotonic()
    happening()
    after = reads(name)[0]
    # Of a kubelet that isn't back yet there is no log.
    until("reads after it", lambda: reads(name)[0] >= max(after, before) + 200, 90)
    many, failed = reads(name)
    many, failed = many - before, failed - failed_before
    print(f"  {many} reads in {time.monotonic() - began:.0f} s, {failed} failed", flush=True)
    assert failed == 0, kubectl("-n", "payments", "logs", name, "-c", "app", "--tail=20")


def roll():
    kubectl("-n", "sotto-system", "rollout", "restart", "daemonset/sotto-csi", "daemonset/sotto-node")
    ready()


def kill(program):
    """Each process of this program, which a container runtime started."""
    pids = subprocess.run(["pgrep", "-f", f"^{program}"], capture_output=True, text=True).stdout.split()
    assert pids, f"no process {program}"
    subprocess.run(["kill", "-9", *pids], check=False, stderr=subprocess.DEVNULL)


def in_etcd(text):
    return subprocess.run(["grep", "-rqF", text, str(STATE / "etcd")], check=False).returncode == 0
