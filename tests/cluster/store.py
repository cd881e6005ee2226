"""A real OpenBao for the cluster, over mutual TLS, set up as deploy/README.md says."""
import os
import subprocess

from kubernetes import NODE, signed, until
from places import ROOT, STATE, TOOLS, run, write

ADDRESS = f"https://{NODE}:8200"


class Store:
    def __init__(self):
        self.folder = STATE / "store"
        self.folder.mkdir(parents=True, exist_ok=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.crt",
            "-days", "2", "-subj", "/CN=store", cwd=self.folder)
        signed(self.folder, "server", "/CN=store", "serverAuth", f"IP:{NODE}")
        signed(self.folder, "client", "/CN=sotto", "clientAuth")
        (self.folder / "unseal.key").write_bytes(os.urandom(32))
        write(self.folder / "bao.hcl", self.configuration())

    def configuration(self):
        at = self.folder
        return f"""storage "inmem" {{}}
seal "static" {{
  current_key_id = "k1"
  current_key = "file://{at}/unseal.key"
}}
listener "tcp" {{
  address = "{NODE}:8200"
  tls_cert_file = "{at}/server.crt"
  tls_key_file = "{at}/server.key"
  tls_client_ca_file = "{at}/ca.crt"
  tls_require_and_verify_client_cert = true
  tls_min_version = "tls13"
}}
api_addr = "{ADDRESS}"
initialize "boot" {{
  request "policy" {{
    operation = "update"
    path = "sys/policies/acl/administrator"
    data = {{
      policy = "path \\"*\\" {{ capabilities = [\\"create\\", \\"read\\", \\"update\\", \\"delete\\", \\"list\\", \\"sudo\\"] }}"
    }}
  }}
  request "token" {{
    operation = "update"
    path = "auth/token/create"
    data = {{
      id = "administrator"
      policies = ["administrator"]
      no_parent = true
    }}
  }}
}}
"""

    def up(self):
        log = open(STATE / "log" / "bao.log", "ab")
        subprocess.Popen([TOOLS / "bao", "server", f"-config={self.folder}/bao.hcl"], stdout=log, stderr=log)
        until("the store", lambda: '"sealed": false' in self.bao("status", "-format=json", check=False), 30)

    def bao(self, *arguments, check=True):
        return run(TOOLS / "bao", *arguments, check=check, env=self.environment())

    def environment(self):
        at = self.folder
        return {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "KUBECONFIG": f"{STATE}/pki/admin.conf", "BAO_ADDR": ADDRESS, "BAO_TOKEN": "administrator",
                "BAO_CACERT": f"{at}/ca.crt", "BAO_CLIENT_CERT": f"{at}/client.crt", "BAO_CLIENT_KEY": f"{at}/client.key"}

    def set_up_for_the_examples(self):
        run("bash", ROOT / "deploy/examples/openbao-setup.sh", "--examples", env=self.environment())

    def put(self, account, password):
        self.bao("kv", "put", "-mount=secret", f"payments/{account}/db", f"username={account}", f"password={password}")

    def password(self, account):
        return self.bao("kv", "get", "-mount=secret", "-field=password", f"payments/{account}/db")
