#!/bin/sh
# Run by the Postgres image once, on an empty disk: a database and a role of the same name for each service.
set -eu
for service in auth metering billing notifier; do
  psql --quiet --set ON_ERROR_STOP=1 --set name="aragora_$service" \
    --set password="$(printenv "PASSWORD_$service")" --username postgres <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
