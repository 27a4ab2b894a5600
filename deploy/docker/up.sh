#!/bin/sh
# Builds the platform, starts it and waits until it works: sh deploy/docker/up.sh [--simulate-stripe] [--mailbox] [--observability]
#
# The options are written to .env, and hold from then on. COMPOSE_ENV_FILES names another file.
set -eu
cd "$(dirname "$0")/../.."
file=${COMPOSE_ENV_FILES:-.env}

if ! docker compose version >/dev/null 2>&1; then
  echo "Docker with Compose v2 is needed, and \`docker compose version\` does not answer." >&2
  exit 1
fi
sh deploy/docker/secrets.sh "$file"
value_of() { sed -n "s/^$1=//p" "$file" | tail -n 1; }
set_to() { grep -q "^$1=" "$file" || printf '%s=%s\n' "$1" "$2" >>"$file"; }
with_profile() {
  profiles=$(value_of COMPOSE_PROFILES)
  case ",$profiles," in *",$1,"*) return ;; esac
  others=$(grep -v '^COMPOSE_PROFILES=' "$file")
  printf '%s\nCOMPOSE_PROFILES=%s\n' "$others" "${profiles:+$profiles,}$1" >"$file"
}
for option; do
  case $option in
    --simulate-stripe)
      if [ -n "$(value_of STRIPE_SECRET_KEY)" ] && ! grep -q '^STRIPE_API_BASE=http://stripe-simulator:8000$' "$file"; then
        echo "Stripe itself is set up in $file, so there is nothing to simulate." >&2
        exit 1
      fi
      with_profile stripe
      # Made up, and good for nothing but the stand-in.
      set_to STRIPE_SECRET_KEY sk_test_simulated_not_a_secret
      set_to STRIPE_WEBHOOK_SECRET whsec_simulated_not_a_secret
      set_to STRIPE_API_BASE http://stripe-simulator:8000
      for plan in starter professional enterprise; do
        set_to "STRIPE_PRICE_$(printf %s "$plan" | tr '[:lower:]' '[:upper:]')" "price_simulated_$plan"
      done ;;
    --mailbox)
      with_profile mail
      set_to ARAGORA_SMTP_HOST mailbox
      set_to ARAGORA_SMTP_PORT 1025
      set_to ARAGORA_SMTP_SECURITY none ;;
    --observability)
      with_profile observability
      set_to GRAFANA_PASSWORD "k$(LC_ALL=C tr -dc A-Za-z0-9 </dev/urandom | head -c 23)"
      set_to OTEL_EXPORTER_OTLP_ENDPOINT http://otel-collector:4318 ;;
    *)
      sed -n 's/^# Builds/Builds/p' "$0" >&2
      exit 2 ;;
  esac
done

# With ARAGORA_VERSION the images of that version are run. Otherwise they are built from what is here. Several containers
# share an image: one of each builds it, one after the other, so that they share layers too.
images='auth-migrate metering-migrate billing-migrate notifier-migrate nats-topology'
case ",$(value_of COMPOSE_PROFILES)," in *,stripe,*) images="$images stripe-simulator" ;; esac
if [ -z "${ARAGORA_VERSION:-$(value_of ARAGORA_VERSION)}" ]; then
  for image in $images; do
    docker compose build --quiet "$image"
  done
fi
docker compose up --detach --no-build --remove-orphans --wait --wait-timeout "${ARAGORA_WAIT_SECONDS:-300}" || {
  docker compose ps --all >&2
  echo "Not everything came up. \`docker compose logs SERVICE\` says why." >&2
  exit 1
}
# A later version may bring other users of the bus, or other routes: who runs already reads them now. (Not by `docker kill`,
# which Docker remembers as somebody's wish that the container should end.)
{
  docker compose exec -T nats nats-server --signal reload=1 </dev/null &&
    docker compose exec -T gateway caddy reload --config /etc/caddy/Caddyfile </dev/null
} >/dev/null 2>&1 || echo "NATS or the gateway could not read its configuration anew: docker compose restart nats gateway" >&2

bind=$(value_of ARAGORA_BIND)
case ${ARAGORA_BIND:-$bind} in '' | 0.0.0.0) host=127.0.0.1 ;; *) host=${ARAGORA_BIND:-$bind} ;; esac
port=$(value_of ARAGORA_PORT)
cat <<END

  The platform is up.

  APIs       http://$host:${ARAGORA_PORT:-${port:-8000}}         (/docs describes them)
  Operator   $(value_of ARAGORA_OPERATOR_EMAIL), with the password ARAGORA_OPERATOR_PASSWORD in $file
  Programs   with the key ARAGORA_SERVICE_KEY in $file
  Logs       make compose-logs             (ARGS=metering-worker for one)
  Stop       make compose-down             (the data stays, in volumes)
END
port_of() { value=$(value_of "$1"); echo "${value:-$2}"; }
case ",$(value_of COMPOSE_PROFILES)," in *,mail,*)
  echo "  Letters    http://127.0.0.1:$(port_of MAILBOX_PORT 8025)" ;;
esac
case ",$(value_of COMPOSE_PROFILES)," in *,observability,*)
  echo "  Grafana    http://127.0.0.1:$(port_of GRAFANA_PORT 3000), as admin, with the password GRAFANA_PASSWORD in $file" ;;
esac
