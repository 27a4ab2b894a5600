#!/bin/sh
# Makes what is secret of a development cluster: a file for each Secret in the folder `secrets`, which git ignores.
# Files that are there stay. Passwords are hexadecimal after a letter: so they need no quoting in a URL, and NATS, which
# reads its configuration's variables as values, takes none for a number.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets

random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
password() { echo "p$(random)"; }
write() { if [ -e "$1" ]; then cat > /dev/null; else cat > "$1"; fi; }

if ! [ -e platform.env ]; then
  key="svc_$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')"
  echo "$key" > operator-key
  write platform.env <<EOF
jwt-secret=$(random)
service-keys=operator:$(printf %s "$key" | sha256sum | cut -d' ' -f1):usage.write+usage.read+operator
EOF
fi
write auth.env <<EOF
nats-password=$(password)
sealing-keys=$(random)
operator-email=operator@aragora.local
operator-password=$(password)
EOF
for service in metering billing; do
  echo "nats-password=$(password)" | write $service.env
done
write notifier.env <<EOF
nats-password=$(password)
sealing-keys=$(random)
EOF
write nats.env <<EOF
operator-password=$(password)
publisher-password=$(password)
cluster-password=$(password)
jetstream-key=$(password)
EOF
echo "password=$(password)" | write postgres.env
for service in auth metering billing notifier; do
  password=$(password)
  write $service-database.env <<EOF
username=aragora_$service
password=$password
url=postgresql://aragora_$service:$password@postgres-rw:5432/aragora_$service
EOF
done
echo "Secrets are in $(pwd). The operator's service key: operator-key; the operator's password: auth.env."
