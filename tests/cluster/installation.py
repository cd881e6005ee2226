"""What deploy/README.md has its reader do, on this cluster."""
import os
import re
import shutil

from kubernetes import ISSUER, kubectl, until
from places import ROOT, STATE, run, write
from store import ADDRESS

REGISTRY = "registry.invalid/sotto"
MINE = STATE / "my-sotto"


def block(step):
    """The shell block of a step, without what is for the administrator's eyes."""
    text = (ROOT / "deploy/README.md").read_text()
    lines = re.search(r"```sh\n(.*?)```", text[text.index(step):], re.DOTALL)[1].splitlines(keepends=True)
    lines = (re.sub(r"^REGISTRY=.*", f"REGISTRY={REGISTRY}", line) for line in lines)
    return "".join(line for line in lines if not line.startswith("kubectl get"))


def steps(step):
    run("bash", "-euc", block(step), cwd=STATE, env={**os.environ, "REGISTRY": REGISTRY})


def install(store):
    shutil.copytree(ROOT / "deploy", STATE / "deploy")
    steps("**2. Your installation**")
    config = (MINE / "config.yaml").read_text().replace("https://openbao.openbao.svc:8200", ADDRESS)
    assert f"issuer: {ISSUER}" in config
    write(MINE / "config.yaml", config)
    kubectl("create", "-k", STATE / "deploy/crds")
    kubectl("apply", "-k", MINE)
    at = store.folder
    kubectl("-n", "sotto-system", "create", "configmap", "sotto-store-ca", f"--from-file=ca.pem={at}/ca.crt")
    kubectl("-n", "sotto-system", "create", "secret", "tls", "sotto-store-client", f"--cert={at}/client.crt", f"--key={at}/client.key")
    write(STATE / "jwks.json", kubectl("get", "--raw", "/openid/v1/jwks"))
    kubectl("-n", "sotto-system", "create", "configmap", "sotto-jwks", f"--from-file=jwks.json={STATE}/jwks.json")
    ready()
    until("the driver's registration", lambda: "csi.sotto.dev" in drivers(), 30)


def install_injection(store):
    steps("**2. The component**")
    config = (MINE / "webhook-config.yaml").read_text()
    certificate = "  # clientCertificate:"
    assert certificate in config
    write(MINE / "webhook-config.yaml", config.replace(certificate, "  clientCertificate: { secret: { secretName: sotto-client } }\n    # before:", 1))
    kubectl("apply", "-k", MINE)
    tls = STATE / "webhook-tls"
    tls.mkdir()
    program = ROOT / "target/release/sotto-webhook"
    run(program, "certificate", "--out", tls, "--dns", "sotto-webhook.sotto-webhook.svc", "--days", "2")
    kubectl("-n", "sotto-webhook", "create", "secret", "tls", "sotto-webhook-tls", f"--cert={tls}/tls.crt", f"--key={tls}/tls.key")
    bundle = run("base64", "-w0", tls / "ca.pem")
    patch = f'[{{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "{bundle}"}}]'
    kubectl("patch", "mutatingwebhookconfiguration", "sotto-webhook", "--type=json", "-p", patch)
    at = store.folder
    kubectl("-n", "payments", "create", "secret", "tls", "sotto-client", f"--cert={at}/client.crt", f"--key={at}/client.key")
    kubectl("-n", "sotto-webhook", "rollout", "status", "deployment/sotto-webhook", "--timeout=90s")
    ready()
    until("the second driver's registration", lambda: "sidecar.csi.sotto.dev" in drivers(), 30)


def ready():
    for daemonset in ("sotto-csi", "sotto-node"):
        kubectl("-n", "sotto-system", "rollout", "status", f"daemonset/{daemonset}", "--timeout=120s")


def drivers():
    return kubectl("get", "csinode", "node-1", "-o", "jsonpath={.spec.drivers[*].name}", check=False).split()


def uninstall():
    environment = {**os.environ, "KUBECONFIG": f"{STATE}/pki/admin.conf"}
    return run("bash", STATE / "deploy/uninstall.sh", MINE, env=environment)
