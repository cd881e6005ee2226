"""Images without a builder or a registry: one layer with a program and the libraries that it needs."""
import hashlib
import io
import json
import os
import subprocess
import tarfile

from places import ROOT, STATE, run, write

VERSION = "0.1.0"
USERS = {"sotto-csi": "0:0", "sotto-node": "65532:65532", "sotto-agent": "65532:65532", "sotto-webhook": "65532:65532"}
PAUSE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); signal(SIGCHLD, reap); for (;;) pause(); }
"""


def all_images():
    """Ours from target/release, the sandbox's, and the busybox of the examples."""
    folder = STATE / "images"
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "pause.c", PAUSE)
    run("gcc", "-static", "-Os", "-o", folder / "pause", folder / "pause.c")
    applets = run("busybox", "--list").split()
    links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
    yield image("registry.invalid/pause:1", "0", "/pause", {"pause": folder / "pause"})
    yield image("docker.io/library/busybox:1.36", "", "/bin/sh", {"bin/busybox": run("which", "busybox")}, links)
    for name, user in USERS.items():
        yield image(f"registry.invalid/sotto/{name}:{VERSION}", user, f"/{name}", {name: ROOT / "target" / "release" / name})


def libraries(program):
    words = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout.split()
    return {word.lstrip("/"): os.path.realpath(word) for word in words if word.startswith("/")}


def image(name, user, entrypoint, files, links=None):
    """An OCI archive for `ctr images import`."""
    for program in list(files.values()):
        files |= libraries(program)
    layer = layer_of(files, links or {})
    config = {"architecture": "amd64", "os": "linux", "config": {"User": user, "Entrypoint": [entrypoint], "Env": ["PATH=/bin"]},
              "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}
    kind = "application/vnd.oci.image"
    config = json.dumps(config).encode()
    blob = lambda media, data: {"mediaType": f"{kind}.{media}", "digest": digest(data), "size": len(data)}
    manifest = {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": blob("config.v1+json", config),
                "layers": [blob("layer.v1.tar", layer)]}
    manifest = json.dumps(manifest).encode()
    index = {"schemaVersion": 2, "manifests": [blob("manifest.v1+json", manifest) | {"annotations": {"io.containerd.image.name": name}}]}
    path = STATE / "images" / (name.split("/")[-1].split(":")[0] + ".tar")
    with tarfile.open(path, "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add(archive, "index.json", json.dumps(index).encode())
        for data in (layer, config, manifest):
            add(archive, "blobs/" + digest(data).replace(":", "/"), data)
    return path


def layer_of(files, links):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, source in sorted(files.items()):
            with open(source, "rb") as file:
                add(archive, name, file.read(), 0o755)
        for name, to in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            archive.addfile(entry)
    return buffer.getvalue()


def add(archive, name, data, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()
