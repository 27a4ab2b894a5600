#!/bin/sh
# Builds every image of this version of the platform: ARAGORA_VERSION=1.2.3 sh deploy/docker/images.sh [SERVICE ...]
set -eu
cd "$(dirname "$0")/../.."
version=${ARAGORA_VERSION:-latest}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)

[ $# -gt 0 ] || set -- auth metering billing notifier nats stripe-simulator
for service; do
  case $service in nats) image=aragora/nats-operator ;; *) image=aragora/$service ;; esac
  docker build --quiet --network "${ARAGORA_BUILD_NETWORK:-default}" --file deploy/docker/Dockerfile \
    --build-arg SERVICE="$service" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    --tag "$image:$version" .
done
