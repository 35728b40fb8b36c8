-- +goose Up
-- Name of the certificate that an ACME order replaces (RFC 9773 §4.1 and §5), or empty.
ALTER TABLE acme_orders ADD COLUMN replaces TEXT NOT NULL DEFAULT '';
CREATE INDEX acme_orders_replaces ON acme_orders (replaces) WHERE replaces <> '';
