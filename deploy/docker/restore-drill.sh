#!/bin/sh
# Shows that a backup can be restored: sh deploy/docker/restore-drill.sh [--keep]
#
# Backs up the running platform, whoever works with it, restores that beside it as a project of its own, and compares what
# was recorded before the backup began. The copy writes to nobody; it is removed, with --keep it goes on running.
set -eu
keep=
[ "${1:-}" != --keep ] || keep=yes
cd "$(dirname "$0")/../.."
project=$(docker compose config | sed -n 's/^name: //p')
copy=$project-drill
folder=$(mktemp -d)

in_copy() { (
  export COMPOSE_PROJECT_NAME="$copy" COMPOSE_PROFILES='' ARAGORA_PORT=0
  "$@"
) }
end() {
  rm -rf "$folder"
  [ -n "$keep" ] || in_copy docker compose down --volumes >/dev/null 2>&1
}
trap end EXIT
# Of each event store, and of the log of usage, how many rows were there at that moment.
counts() {
  for service in auth metering billing notifier; do
    for table in events $([ $service != metering ] || echo usage_events); do
      docker compose exec -T postgres psql --username postgres --dbname "aragora_$service" --no-psqlrc -At -c \
        "SELECT '$service $table ' || count(*) FROM $table WHERE recorded_at < '$1'" </dev/null
    done
  done
}

begun=$(docker compose exec -T postgres psql --username postgres --no-psqlrc -At -c 'SELECT now()' </dev/null)
start=$(date +%s)
sh deploy/docker/backup.sh "$folder"
backed_up=$(date +%s)
in_copy sh deploy/docker/restore.sh --silent "$folder"
restored=$(date +%s)
counts "$begun" >"$folder/before"
in_copy counts "$begun" >"$folder/after"

echo "Rows recorded before $begun, in the restored databases:"
sed 's/^/  /' "$folder/after"
if ! diff "$folder/before" "$folder/after" >&2; then
  echo "The copy differs from what was backed up." >&2
  exit 1
fi
echo "As many as in the running platform. Projections are what the log says."
echo "Backup $((backed_up - start)) s ($(du -sk "$folder" | cut -f 1) KiB), restore and verification $((restored - backed_up)) s."
[ -z "$keep" ] || echo "The copy runs as the project $copy, at $(in_copy docker compose port gateway 8080)."
