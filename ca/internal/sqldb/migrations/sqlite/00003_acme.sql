-- +goose Up
-- ACME (RFC 8555): what a client and its challenges are at. Every row here ends
-- by a sweep; the certificates themselves are in the record like all others.

-- Keys that all replicas share.
CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Nonces that were used; unused ones are nowhere, their MAC tells that they are ours.
CREATE TABLE acme_nonces (
    hash    BLOB    NOT NULL PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX acme_nonces_expires ON acme_nonces (expires);

CREATE TABLE acme_accounts (
    id          TEXT    NOT NULL PRIMARY KEY,
    key_id      TEXT    NOT NULL UNIQUE, -- thumbprint of the key (RFC 7638)
    jwk         TEXT    NOT NULL,        -- public key, JSON
    contact     TEXT    NOT NULL,        -- JSON array
    status      TEXT    NOT NULL,
    location    TEXT    NOT NULL,        -- address of the account, without its id
    provisioner TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    proven_at   INTEGER NOT NULL         -- last certificate; 0: never had one, a stranger still
) STRICT;
CREATE INDEX acme_accounts_age ON acme_accounts (proven_at, created_at);

CREATE TABLE acme_orders (
    id          TEXT    NOT NULL PRIMARY KEY,
    account     TEXT    NOT NULL REFERENCES acme_accounts (id) ON DELETE CASCADE,
    provisioner TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    identifiers TEXT    NOT NULL, -- JSON array
    asked       INTEGER NOT NULL, -- 1: the client named not_after
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    sweep_at    INTEGER NOT NULL, -- with a certificate, its end
    problem     TEXT    NOT NULL, -- JSON, or empty
    certificate TEXT    NOT NULL  -- serial, or empty
) STRICT;
CREATE INDEX acme_orders_account     ON acme_orders (account, created_at);
CREATE INDEX acme_orders_certificate ON acme_orders (certificate);
CREATE INDEX acme_orders_sweep       ON acme_orders (sweep_at);

CREATE TABLE acme_authorizations (
    id        TEXT    NOT NULL PRIMARY KEY,
    order_id  TEXT    NOT NULL REFERENCES acme_orders (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    account   TEXT    NOT NULL,
    kind      TEXT    NOT NULL, -- dns or ip
    value     TEXT    NOT NULL,
    token     TEXT    NOT NULL,
    status    TEXT    NOT NULL,
    expires   INTEGER NOT NULL,
    problem   TEXT    NOT NULL
) STRICT;
CREATE INDEX acme_authorizations_order ON acme_authorizations (order_id, position);

CREATE TABLE acme_challenges (
    id               TEXT    NOT NULL PRIMARY KEY,
    authorization_id TEXT    NOT NULL REFERENCES acme_authorizations (id) ON DELETE CASCADE,
    position         INTEGER NOT NULL,
    kind             TEXT    NOT NULL, -- http-01, dns-01 or tls-alpn-01
    status           TEXT    NOT NULL,
    validated_at     TEXT    NOT NULL, -- RFC 3339, or empty
    problem          TEXT    NOT NULL
) STRICT;
CREATE INDEX acme_challenges_authorization ON acme_challenges (authorization_id, position);
