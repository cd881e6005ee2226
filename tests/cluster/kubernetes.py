"""A real Kubernetes on this machine: etcd, API server, controller manager, scheduler, containerd and kubelet.

Kubernetes is built from its Go module, since nobody publishes binaries where there is only a module proxy; the rest are
Debian's packages. Everything runs in namespaces of its own (see run): there is no address but loopback and a bridge.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from places import ROOT, STATE, TOOLS, CACHE, need, run, write

VERSION = "v1.36.3"
STAGING = VERSION.replace("v1.", "v0.", 1)
BINARIES = ["kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
PACKAGES = {"containerd": "containerd", "runc": "runc", "etcd": "etcd-server", "busybox": "busybox-static", "kubectl": "kubernetes-client",
            "openssl": "openssl", "jq": "jq", "ip": "iproute2", "iptables": "iptables", "gcc": "gcc", "go": "golang"}
CNI = pathlib.Path("/usr/lib/cni")
# The API server answers at its service's address itself, so that nobody has to translate it.
SERVICE, NODE = "10.96.0.1", "10.88.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"
CONTAINERD = "/run/sotto-cluster/containerd.sock"
BIN = CACHE / "kubernetes" / VERSION


def build():
    """Builds what isn't there yet: 20 minutes on two cores."""
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing or not (CNI / "bridge").exists():
        need(f"apt-get install --no-install-recommends {' '.join(missing)} containernetworking-plugins")
    if all((BIN / binary).exists() for binary in BINARIES):
        return
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOSUMDB": "off", "GOBIN": str(BIN)}
    found = json.loads(run("go", "mod", "download", "-json", f"k8s.io/kubernetes@{VERSION}", cwd="/", env=environment))
    source = CACHE / "kubernetes" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(found["Dir"], source)
    run("chmod", "-R", "u+w", str(source))
    for path in ("go.work", "go.work.sum", "vendor"):
        remove = shutil.rmtree if (source / path).is_dir() else lambda it: it.unlink(missing_ok=True)
        remove(source / path)
    # The module names its parts by directories that aren't in it; they are modules of the same version.
    lines = (source / "go.mod").read_text().splitlines()
    published = [line.split(" => ")[0] + f" => {line.split()[0]} {STAGING}" if "=> ./staging/" in line else line for line in lines]
    write(source / "go.mod", "\n".join(published) + "\n")
    version = "k8s.io/component-base/version"
    flags = f"-s -w -X {version}.gitVersion={VERSION} -X {version}.gitMajor=1 -X {version}.gitMinor={VERSION.split('.')[1]}"
    for binary in BINARIES:
        print(f"building {binary} {VERSION}", flush=True)
        run("go", "build", "-trimpath", "-ldflags", flags, "-o", f"{BIN}/", f"./cmd/{binary}", cwd=source, env=environment)
    shutil.rmtree(source)


class Cluster:
    """The processes. To be used in the namespaces that run has made."""

    def __init__(self):
        self.processes = {}
        for folder in ("log", "pki", "etc/cni"):
            (STATE / folder).mkdir(parents=True, exist_ok=True)

    def up(self, images):
        prepare_machine()
        certificates()
        configuration()
        self.start("etcd", "etcd", f"--data-dir={STATE}/etcd", "--unsafe-no-fsync", "--listen-peer-urls=http://127.0.0.1:2380",
                   "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379")
        self.start("containerd", "containerd", f"--config={STATE}/etc/containerd.toml")
        self.start("kube-apiserver", BIN / "kube-apiserver", *apiserver_arguments())
        until("the API server", lambda: kubectl("get", "--raw", "/readyz", check=False) == "ok", 120)
        pki = STATE / "pki"
        self.start("kube-controller-manager", BIN / "kube-controller-manager", f"--service-account-private-key-file={pki}/sa.key",
                   f"--root-ca-file={pki}/ca.crt", "--use-service-account-credentials", *client_arguments("controller-manager"))
        self.start("kube-scheduler", BIN / "kube-scheduler", *client_arguments("scheduler"))
        for image in images:
            until("containerd", lambda: pathlib.Path(CONTAINERD).exists(), 30)
            run("ctr", f"--address={CONTAINERD}", "--namespace=k8s.io", "images", "import", str(image))
        self.start_kubelet()
        until("the node", lambda: " Ready" in kubectl("get", "nodes", check=False), 60)

    def start_kubelet(self):
        self.start("kubelet", BIN / "kubelet", f"--config={STATE}/etc/kubelet.yaml", f"--kubeconfig={STATE}/pki/kubelet.conf",
                   "--hostname-override=node-1", f"--node-ip={NODE}", "-v=2")

    def start(self, name, program, *arguments):
        log = open(STATE / "log" / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen([program, *arguments], stdout=log, stderr=log, cwd=STATE)

    def stop(self, name):
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def prepare_machine():
    run("mount", "--make-rshared", "/")
    for path, mode in (("/run/sotto", "755"), ("/var/lib/kubelet", "750"), ("/run/sotto-cluster", "700")):
        os.makedirs(path, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", path)
        run("mount", "--make-rshared", path)
    for line in ("link set lo up", f"addr add {SERVICE}/32 dev lo", "link add cni0 type bridge", f"addr add {NODE}/16 dev cni0", "link set cni0 up"):
        run("ip", *line.split())
    write("/proc/sys/net/ipv4/ip_forward", "1")


def certificates():
    pki = STATE / "pki"
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=kubernetes", cwd=pki)
    run("openssl", "genrsa", "-out", "sa.key", "2048", cwd=pki)
    run("openssl", "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub", cwd=pki)
    names = ",".join(f"DNS:kubernetes.default.svc{end}" for end in ("", ".cluster.local")) + f",IP:{SERVICE},IP:{NODE},IP:127.0.0.1"
    for name, subject, alternatives in [
        ("apiserver", "/CN=kube-apiserver", names), ("admin", "/O=system:masters/CN=admin", ""),
        ("kubelet", "/O=system:nodes/CN=system:node:node-1", f"IP:{NODE},DNS:node-1"),
        ("controller-manager", "/CN=system:kube-controller-manager", ""), ("scheduler", "/CN=system:kube-scheduler", ""),
    ]:
        signed(pki, name, subject, "serverAuth,clientAuth", alternatives)
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "here",
                  "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:443", "certificate-authority": f"{pki}/ca.crt"}}],
                  "users": [{"name": name, "user": {"client-certificate": f"{pki}/{name}.crt", "client-key": f"{pki}/{name}.key"}}],
                  "contexts": [{"name": "here", "context": {"cluster": "here", "user": name}}]}
        write(pki / f"{name}.conf", json.dumps(config))


def signed(folder, name, subject, usage, alternatives=""):
    """A key and a certificate of the folder's CA."""
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        "-subj", subject, cwd=folder)
    write(folder / "extensions", f"extendedKeyUsage={usage}\n" + (f"subjectAltName={alternatives}\n" if alternatives else ""))
    run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "extensions", "-out", f"{name}.crt", cwd=folder)


def client_arguments(name):
    config = f"{STATE}/pki/{name}.conf"
    return ["--leader-elect=false", f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}"]


def apiserver_arguments():
    pki = STATE / "pki"
    return [
        "--etcd-servers=http://127.0.0.1:2379", "--secure-port=443", "--bind-address=0.0.0.0", f"--advertise-address={NODE}",
        "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC", "--allow-privileged",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key", f"--client-ca-file={pki}/ca.crt",
        f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key", f"--service-account-issuer={ISSUER}",
        f"--kubelet-client-certificate={pki}/admin.crt", f"--kubelet-client-key={pki}/admin.key", f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        # Webhooks are called at their pods' addresses: there is no kube-proxy. It wants the settings of an aggregator.
        "--enable-aggregator-routing", f"--requestheader-client-ca-file={pki}/ca.crt", "--requestheader-allowed-names=nobody",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-", f"--proxy-client-cert-file={pki}/admin.crt", f"--proxy-client-key-file={pki}/admin.key",
    ]


def configuration():
    etc = STATE / "etc"
    write(etc / "containerd.toml", f"""version = 2
root = "{STATE}/containerd"
state = "/run/sotto-cluster/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.invalid/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{etc}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "{STATE}/containerd/opt"
""")
    addresses = {"type": "host-local", "dataDir": "/run/sotto-cluster/cni", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    write(etc / "cni" / "10-bridge.conflist", json.dumps({"cniVersion": "0.4.0", "name": "sotto-cluster", "plugins": [bridge]}))
    pki = STATE / "pki"
    write(etc / "kubelet.yaml", json.dumps({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{pki}/ca.crt"}},
        "authorization": {"mode": "Webhook"}, "cgroupDriver": "cgroupfs", "failCgroupV1": False, "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}", "tlsCertFile": f"{pki}/kubelet.crt", "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100, "localStorageCapacityIsolation": False, "registerNode": True,
    }))


def kubectl(*arguments, check=True, text=None):
    environment = {**os.environ, "KUBECONFIG": f"{STATE}/pki/admin.conf"}
    return run("kubectl", *arguments, check=check, text=text, env=environment, cwd=ROOT)


def until(what, condition, seconds):
    """Waits for a condition that nobody announces."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {seconds} s")
        time.sleep(0.2)
