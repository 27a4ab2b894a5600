#!/bin/sh
# `make check-deploy`: renders every overlay and checks what comes out, the Dockerfile, and the alert rules with their tests.
# Needs kubectl and promtool (from prometheus) on the PATH; the rest is in .venv-deploy.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv-deploy/bin
for tool in kubectl promtool; do
  command -v "$tool" > /dev/null || { echo "$tool is not installed, and this check needs it." >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A copy, so that the secrets that development needs are thrown away with it.
cp -R deploy "$work/deploy"
rm -rf "$work/deploy/kubernetes/overlays/dev/secrets"
sh "$work/deploy/kubernetes/overlays/dev/secrets.sh" > /dev/null

for overlay in dev production; do
  echo "== $overlay: kubernetes-validate, checkov"
  mkdir "$work/$overlay" "$work/$overlay-operators"
  kubectl kustomize "$work/deploy/kubernetes/overlays/$overlay" -o "$work/$overlay"
  # Kinds of operators are not in Kubernetes' schemas: tests/deploy looks at their fields.
  find "$work/$overlay" \( -name '*cnpg.io*' -o -name '*keda.sh*' -o -name '*coreos.com*' \) \
    -exec mv {} "$work/$overlay-operators" \;
  for version in 1.31 1.37; do
    "$bin/kubernetes-validate" --strict --quiet --kubernetes-version "$version" "$work/$overlay"/*.yaml
  done
  "$bin/checkov" --config-file deploy/checkov.yaml --framework kubernetes -d "$work/$overlay"
done

echo "== deploy/docker/Dockerfile: hadolint, checkov"
"$bin/hadolint" deploy/docker/Dockerfile
"$bin/checkov" --config-file deploy/checkov.yaml --framework dockerfile -f deploy/docker/Dockerfile

echo "== deploy/observability: promtool"
promtool check rules deploy/observability/rules/*.yml
promtool test rules deploy/observability/rules/tests/*.yml
