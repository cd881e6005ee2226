#!/usr/bin/env bash
# Sets an OpenBao (or Vault: the commands are the same) up for the manifests in this folder: an auth method
# that believes the cluster's pod tokens, one policy under which each service account reads its own paths
# only, a role, and values for the examples. Run it again after a change: it repeats what is there.
#
#   export BAO_ADDR=https://... BAO_TOKEN=... BAO_CACERT=ca.pem BAO_CLIENT_CERT=... BAO_CLIENT_KEY=...
#   deploy/examples/openbao-setup.sh [--examples]
#
# BAO_NAMESPACE is honoured, as by every bao command. These may be set, too:
#   NAMESPACES="payments shop"   the cluster's namespaces that may log in (payments)
#   AUDIENCE=bao                 as in the CSIDriver's tokenRequests and in sotto-node's configuration
#   MOUNT=jwt                    `auth.mount` of that configuration
#   ROLE=payments                `roleName` of the classes
#   TOKEN_TTL=10m TOKEN_MAX_TTL=1h   how long a login's token lives; a dynamic credential dies with it
#   JWKS_URL=https://...         let the store fetch the signing keys. Without it the keys are read by kubectl,
#                                now, and the script must be run again before the cluster signs with a new one.
#   ISSUER=..., JWKS_FILE=...    instead of asking kubectl
set -euo pipefail
: "${NAMESPACES:=payments}" "${AUDIENCE:=bao}" "${MOUNT:=jwt}" "${ROLE:=payments}"
: "${TOKEN_TTL:=10m}" "${TOKEN_MAX_TTL:=1h}"
for tool in bao jq openssl; do
  command -v "$tool" >/dev/null || { echo "openbao-setup: $tool is needed" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Base64url on standard input -> hexadecimal digits.
hex() {
  local text
  text=$(tr '_-' '/+' | tr -d '\n')
  while [ $((${#text} % 4)) -ne 0 ]; do text+='='; done
  printf '%s' "$text" | base64 -d | od -An -v -tx1 | tr -d ' \n'
}

# One public key of a JSON web key set -> PEM.
to_pem() {
  local key=$1
  case $(jq -r .kty <<<"$key") in
    RSA)
      cat >"$work/rsa" <<EOF
asn1 = SEQUENCE:info
[info]
algorithm = SEQUENCE:algorithm
key = BITWRAP,SEQUENCE:key
[algorithm]
oid = OID:rsaEncryption
parameters = NULL
[key]
n = INTEGER:0x$(jq -r .n <<<"$key" | hex)
e = INTEGER:0x$(jq -r .e <<<"$key" | hex)
EOF
      openssl asn1parse -genconf "$work/rsa" -noout -out "$work/der" ;;
    EC)
      [ "$(jq -r .crv <<<"$key")" = P-256 ] || { echo "openbao-setup: only P-256 keys are known here" >&2; return 1; }
      cat >"$work/ec" <<EOF
asn1 = SEQUENCE:info
[info]
algorithm = SEQUENCE:algorithm
key = FORMAT:HEX,BITSTRING:04$(jq -r .x <<<"$key" | hex)$(jq -r .y <<<"$key" | hex)
[algorithm]
oid = OID:id-ecPublicKey
curve = OID:prime256v1
EOF
      openssl asn1parse -genconf "$work/ec" -noout -out "$work/der" ;;
    *) echo "openbao-setup: a key of type $(jq -r .kty <<<"$key") is not known here" >&2; return 1 ;;
  esac
  openssl pkey -pubin -inform DER -in "$work/der"
}

# 1. Believe tokens that this cluster signed, and no others.
issuer=${ISSUER:-$(kubectl get --raw /.well-known/openid-configuration | jq -r .issuer)}
bao auth list -format=json | jq -e --arg path "$MOUNT/" 'has($path)' >/dev/null || bao auth enable -path="$MOUNT" jwt
if [ -n "${JWKS_URL:-}" ]; then
  jq -n --arg url "$JWKS_URL" --arg issuer "$issuer" '{jwks_url: $url, bound_issuer: $issuer}' >"$work/config"
else
  keys=$(if [ -n "${JWKS_FILE:-}" ]; then cat "$JWKS_FILE"; else kubectl get --raw /openid/v1/jwks; fi)
  count=0
  while read -r key; do
    count=$((count + 1))
    to_pem "$key" >"$work/key-$count.pem"
  done < <(jq -c '.keys[]' <<<"$keys")
  for pem in "$work"/key-*.pem; do jq -Rs . "$pem"; done |
    jq -s --arg issuer "$issuer" '{jwt_validation_pubkeys: ., bound_issuer: $issuer}' >"$work/config"
fi
bao write "auth/$MOUNT/config" - <"$work/config" >/dev/null

# 2. One policy for all pods. It names the login's own namespace and service account, so that no pod reads
#    another's paths. Both are constant for one `sub`; a pod's uid would not be: the store keeps one set of
#    metadata for a subject, and the last login wins.
accessor=$(bao auth list -format=json | jq -r --arg path "$MOUNT/" '.[$path].accessor')
pod="identity.entity.aliases.$accessor.metadata"
bao policy write sotto-pod - >/dev/null <<EOF
path "secret/data/{{$pod.ns}}/{{$pod.sa}}/*" { capabilities = ["read"] }
path "pki/issue/{{$pod.ns}}-{{$pod.sa}}" { capabilities = ["update"] }
path "database/creds/{{$pod.ns}}-{{$pod.sa}}" { capabilities = ["read"] }
EOF

# 3. The role. Without token_ttl the store would give 768 hours.
jq -n --arg audience "$AUDIENCE" --arg namespaces "$NAMESPACES" --arg ttl "$TOKEN_TTL" --arg max "$TOKEN_MAX_TTL" '{
  role_type: "jwt",
  bound_audiences: [$audience],
  user_claim: "sub",
  bound_claims_type: "glob",
  bound_claims: {"/kubernetes.io/namespace": ($namespaces | split(" "))},
  claim_mappings: {"/kubernetes.io/namespace": "ns", "/kubernetes.io/serviceaccount/name": "sa"},
  token_policies: ["sotto-pod"],
  token_ttl: $ttl,
  token_max_ttl: $max
}' | bao write "auth/$MOUNT/role/$ROLE" - >/dev/null
echo "auth/$MOUNT, policy sotto-pod and role $ROLE are set up for: $NAMESPACES (issuer $issuer)"
[ "${1:-}" = --examples ] || exit 0

# 4. What the examples read. Not for production: the values are made up here.
has_mount() { bao secrets list -format=json | jq -e --arg path "$1/" 'has($path)' >/dev/null; }
has_mount secret || bao secrets enable -path=secret -version=2 kv
put() { bao kv put -mount=secret "$@" >/dev/null; }
for account in checkout worker legacy migrate isolated ledger; do
  put "payments/$account/db" username="$account" password="$(openssl rand -hex 16)"
done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=checkout.payments \
  -keyout "$work/tls.key" -out "$work/tls.crt" 2>/dev/null
put payments/checkout/tls certificate=@"$work/tls.crt" key=@"$work/tls.key"
has_mount pki || {
  bao secrets enable -max-lease-ttl=8760h pki
  bao write pki/root/generate/internal common_name="payments example CA" ttl=8760h >/dev/null
}
bao write pki/roles/payments-web allowed_domains=payments.svc allow_subdomains=true allow_bare_domains=false \
  key_type=ec key_bits=256 max_ttl=720h >/dev/null
echo "example values are under secret/payments/, the certificate role is pki/roles/payments-web"
