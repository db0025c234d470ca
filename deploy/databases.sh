#!/bin/sh
# Makes the two databases, each with an owner of its name; run once, by PostgreSQL's image or by hand.
set -eu
for name in prefect mlflow; do
    psql --username "${POSTGRES_USER:-postgres}" --set ON_ERROR_STOP=1 --set "password=$POSTGRES_PASSWORD" <<SQL
CREATE ROLE $name LOGIN PASSWORD :'password';
CREATE DATABASE $name OWNER $name;
SQL
done
