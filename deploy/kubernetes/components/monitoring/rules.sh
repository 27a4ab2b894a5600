#!/bin/sh
# Writes rules.yaml: the alert rules of deploy/observability as Prometheus' operator reads them. `make prometheus-rule`
set -eu
cd "$(dirname "$0")"
{
  cat <<'HEAD'
# Made by rules.sh from deploy/observability/rules/aragora.yml: change that file, and run `make prometheus-rule`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: aragora
  labels: {aragora.ai/step: ground}
spec:
HEAD
  sed 's/^./  &/' ../../../observability/rules/aragora.yml
} > rules.yaml
