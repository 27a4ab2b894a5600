#!/bin/sh
# Restores a backup to a platform that has no data, and starts it: sh deploy/docker/restore.sh [--silent] DIRECTORY
#
# It needs the secrets (.env) of the platform that was backed up: sealed data cannot be opened with others. With --silent
# the workers of billing and the notifier are not started: a copy that is only looked at writes to nobody, and not to Stripe.
set -eu
silent=
[ "${1:-}" != --silent ] || { silent=yes; shift; }
[ $# -eq 1 ] || { sed -n 's/^# Restores/Restores/p' "$0" >&2; exit 2; }
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
[ -f "$folder/postgres.tar.gz" ] || { echo "$folder has no postgres.tar.gz: it is no backup, or none that ended." >&2; exit 1; }
project=$(docker compose config | sed -n 's/^name: //p')
for volume in postgres nats; do
  if docker volume inspect "${project}_$volume" >/dev/null 2>&1; then
    echo "${project}_$volume is there already, and is not overwritten. Delete it if what it holds may be lost" >&2
    echo "(make compose-down ARGS=--volumes), or restore beside it: COMPOSE_PROJECT_NAME=another." >&2
    exit 1
  fi
done

# The container knows where its data are.
# shellcheck disable=SC2016
docker compose run --rm --no-deps -T --entrypoint sh postgres -c \
  'mkdir -p "$PGDATA" && chmod 700 "$PGDATA" && tar -xz -C "$PGDATA"' <"$folder/postgres.tar.gz"
docker compose up --detach --no-build --wait postgres nats
# The passwords of .env, if they are newer than the backup.
docker compose exec -T postgres sh /docker-entrypoint-initdb.d/databases.sh </dev/null
docker compose run --rm --no-deps -T --user "$(id -u):$(id -g)" --volume "$folder/nats:/backup:ro" \
  nats-topology restore /backup </dev/null

# Before anybody comes in, services hear what the bus was told after its copy was made: who was revoked, who may do what.
first='auth-api auth-worker metering-api metering-worker billing-api notifier-api'
[ -n "$silent" ] || first="$first billing-worker notifier-worker"
# shellcheck disable=SC2086  # names, one by one
docker compose up --detach --no-build --wait $first
docker compose exec -T auth-api auth announce </dev/null
docker compose exec -T billing-api billing announce </dev/null
docker compose exec -T metering-worker metering verify </dev/null
if [ -n "$silent" ]; then
  docker compose up --detach --no-build --wait gateway
else
  docker compose up --detach --no-build --wait
  echo "The platform is up, as it was when it was backed up. Erase again who was erased since (docs/operations.md)."
fi
