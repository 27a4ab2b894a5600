#!/bin/sh
# Writes the secrets of docker-compose.yml to a file that nobody else may read: sh deploy/docker/secrets.sh [FILE]
#
# By default the file is .env, which Compose reads by itself and git ignores. What is in it stays as it is; what is missing,
# at the first start or in a later version, is made. Keep a copy of it where the backups are, and not in them.
set -eu
umask 077
file=${1:-.env}
touch "$file"
chmod 600 "$file"

# Letters and digits alone: no program that reads them needs quotes. A letter first: NATS takes 12e3 for a number.
random() { printf 'k%s' "$(LC_ALL=C tr -dc A-Za-z0-9 </dev/urandom | head -c "$1")"; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1; }
has() { grep -q "^$1=" "$file"; }
value_of() { sed -n "s/^$1=//p" "$file" | tail -n 1; }
keep() { has "$1" || printf '%s=%s\n' "$1" "$2" >>"$file"; }

# A file that was written by hand may end without a line break.
[ ! -s "$file" ] || [ -z "$(tail -c 1 "$file")" ] || echo >>"$file"

for name in POSTGRES_PASSWORD POSTGRES_PASSWORD_AUTH POSTGRES_PASSWORD_METERING POSTGRES_PASSWORD_BILLING \
  POSTGRES_PASSWORD_NOTIFIER NATS_PASSWORD_OPERATOR NATS_PASSWORD_AUTH NATS_PASSWORD_METERING NATS_PASSWORD_BILLING \
  NATS_PASSWORD_NOTIFIER NATS_PASSWORD_PUBLISHER; do
  keep "$name" "$(random 31)"
done
for name in NATS_JETSTREAM_KEY ARAGORA_JWT_SECRET AUTH_SEALING_KEYS NOTIFIER_SEALING_KEYS; do
  keep "$name" "$(random 47)"
done
keep ARAGORA_OPERATOR_EMAIL operator@aragora.local
keep ARAGORA_OPERATOR_PASSWORD "$(random 23)"

# The operator's own programs: services are told the digest, and only this file has the key.
if ! has ARAGORA_SERVICE_KEYS; then
  keep ARAGORA_SERVICE_KEY "svc_$(random 42)"
  digest=$(printf %s "$(value_of ARAGORA_SERVICE_KEY)" | sha256)
  keep ARAGORA_SERVICE_KEYS "operator:$digest:usage.write+usage.read+operator"
fi
