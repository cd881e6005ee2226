#!/usr/bin/env bash
# Removes Sotto, but not while a pod still has a volume of it: without the driver kubelet can't unmount, and
# such a pod would never finish terminating. CRDs, and so everybody's SecretProviderClasses, stay.
#
#   deploy/uninstall.sh [KUSTOMIZATION]     the one that was applied; deploy/base by default
set -euo pipefail
kustomization=${1:-$(dirname "$0")/base}
manifests=$(kubectl kustomize "$kustomization")

if grep -q '^kind: CustomResourceDefinition$' <<<"$manifests"; then
  echo "uninstall: $kustomization contains CRDs; deleting them would delete every SecretProviderClass of the cluster." >&2
  echo "Take them out of it first." >&2
  exit 1
fi
csidrivers=$(awk -v RS='---\n' '/(^|\n)kind: CSIDriver\n/ { print "---\n" $0 }' <<<"$manifests")
drivers=$(awk '/^[a-z]/ { inside = /^metadata:/ } inside && /^  name: / { print $2 }' <<<"$csidrivers")
[ -n "$drivers" ] || { echo "uninstall: $kustomization has no CSIDriver: is it Sotto's?" >&2; exit 1; }

# Finished pods count, too: kubelet may still have their volume to unmount.
users() {
  local driver
  # Injected pods also where the kustomization no longer has the component.
  for driver in $drivers sidecar.csi.sotto.dev; do
    kubectl get pods --all-namespaces -o go-template="{{range .items}}{{\$pod := .}}{{range .spec.volumes}}\
{{with .csi}}{{if eq .driver \"$driver\"}}  {{\$pod.metadata.namespace}}/{{\$pod.metadata.name}} \
{{\$pod.status.phase}}{{\"\\n\"}}{{end}}{{end}}{{end}}{{end}}" || return 1
  done | sort -u
}
refuse() {
  echo "uninstall: refused. These pods use volumes of" $drivers: >&2
  echo "$1" >&2
  echo "Delete them (or scale their owners down), wait until they are gone, and try again." >&2
  exit 1
}

pods=$(users)
[ -z "$pods" ] || refuse "$pods"

# Without its CSIDriver object kubelet mounts no new inline volume, so the second look is final.
kubectl delete csidriver --ignore-not-found $drivers
pods=$(users)
if [ -n "$pods" ]; then
  kubectl apply -f - <<<"$csidrivers"
  refuse "$pods"
fi
kubectl delete --ignore-not-found -f - <<<"$manifests"
echo "Sotto is removed. What stays: the CRDs, and on each node the empty /run/sotto (until it restarts) and"
echo "plugins/<driver's name> beneath the kubelet's directory."
