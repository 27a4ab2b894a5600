#!/bin/sh
# A database and a role for each service, which alone may connect to it. Postgres runs this when its volume is new. Run it
# again (docker compose exec postgres sh /docker-entrypoint-initdb.d/databases.sh) for a new service, or a new password.
set -eu

for service in auth metering billing notifier; do
  variable=POSTGRES_PASSWORD_$(printf %s "$service" | tr '[:lower:]' '[:upper:]')
  # By standard input and psql's own quoting, so that no password is in a list of processes, or read as SQL.
  psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 --username postgres --dbname postgres <<SQL
\set name aragora_$service
\getenv password $variable
SELECT format('CREATE ROLE %I LOGIN', :'name')
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
