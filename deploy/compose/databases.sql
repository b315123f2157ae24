-- Read once, by a new Postgres server: three roles, each with a database of its own.
-- The passwords come from the server's environment (\getenv needs psql 15).
\set ON_ERROR_STOP on
\getenv dagster_password DAGSTER_PG_PASSWORD
\getenv ledger_password LEDGER_PG_PASSWORD
\getenv label_studio_password LABEL_STUDIO_PG_PASSWORD

CREATE ROLE dagster LOGIN PASSWORD :'dagster_password';
CREATE ROLE ledger LOGIN PASSWORD :'ledger_password';
CREATE ROLE label_studio LOGIN PASSWORD :'label_studio_password';
CREATE DATABASE dagster OWNER dagster;
CREATE DATABASE ledger OWNER ledger;
CREATE DATABASE label_studio OWNER label_studio;
