#!/bin/sh
# Makes a cluster what an overlay says, at the first time and at every upgrade:
#
#   sh deploy/kubernetes/apply.sh deploy/kubernetes/overlays/production
#
# In three steps, because new code needs the new schema, and old code runs on it: what everything stands on; the jobs
# that migrate and declare streams; the processes. Whatever fails stops it, and what ran before runs on. Repeating is harmless.
set -eu
overlay=${1:?which overlay? For example deploy/kubernetes/overlays/production}
objects=$(mktemp)
trap 'rm -f "$objects"' EXIT
kubectl kustomize "$overlay" > "$objects"

kubectl apply -f "$objects" -l aragora.ai/step=ground
kubectl -n aragora rollout status statefulset/nats --timeout=15m

# A finished job cannot be changed: those of the version before go.
kubectl -n aragora delete job -l aragora.ai/step=jobs --ignore-not-found
kubectl apply -f "$objects" -l aragora.ai/step=jobs
if ! kubectl -n aragora wait job -l aragora.ai/step=jobs --for=condition=complete --timeout=15m; then
  echo "A job did not complete; nothing else was changed. Its log: kubectl -n aragora logs job/NAME" >&2
  exit 1
fi

kubectl apply -f "$objects" -l aragora.ai/step=processes
kubectl -n aragora get deployment -l aragora.ai/step=processes -o name | while read -r deployment; do
  kubectl -n aragora rollout status "$deployment" --timeout=15m
done
