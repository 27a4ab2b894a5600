#!/bin/sh
# Backs up the running platform into a new folder, while everybody goes on working: sh deploy/docker/backup.sh DIRECTORY
#
# The bus first, then Postgres. What was accepted before is then in one of them at least: either it still waits on the bus,
# or it is recorded. Usage that is in both is known by its id when it comes again. The other way round, what is recorded and
# taken off the bus between the two would be in neither.
#
# Postgres as a base backup, not as four dumps: all four databases are of one instant, the roles and their passwords are
# there, and a restore is as fast as the disk. It wants the same major version. A database whose write-ahead log grows by
# more than wal_keep_size (1 GB here) during the copy wants continuous archiving instead: the copy says so, and fails.
#
# The secrets (.env) are not in it: keep a copy of them elsewhere. What was sealed cannot be opened without.
set -eu
umask 077
[ $# -eq 1 ] || { sed -n 's/^# Backs/Backs/p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
[ -z "$(ls -A "$folder")" ] || { echo "$folder is not empty: give each backup a folder of its own." >&2; exit 1; }

mkdir "$folder/nats"
docker compose run --rm --no-deps -T --user "$(id -u):$(id -g)" --volume "$folder/nats:/backup" \
  nats-topology backup /backup </dev/null

docker compose exec -T postgres pg_basebackup --username postgres --pgdata - --format tar --wal-method fetch \
  --checkpoint fast --compress client-gzip:3 </dev/null >"$folder/postgres.tar.gz.unfinished"
# Last, and whole or not at all: a folder without it is no backup.
mv "$folder/postgres.tar.gz.unfinished" "$folder/postgres.tar.gz"
echo "Postgres: $(wc -c <"$folder/postgres.tar.gz") bytes"
