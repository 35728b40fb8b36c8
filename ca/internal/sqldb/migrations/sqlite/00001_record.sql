-- +goose Up
-- The record. Times are milliseconds since 1970 (UTC), serials are decimal,
-- because that is what the step API and the revocation tokens carry. What repeats
-- in every row is kept once and referred to by a small number; without foreign
-- keys, which in PostgreSQL would have all writers lock that one row.
CREATE TABLE issuers (
    id     INTEGER PRIMARY KEY,
    key_id TEXT    NOT NULL UNIQUE -- subject key id of the issuing intermediate, hex
) STRICT;

CREATE TABLE chains (
    id   INTEGER PRIMARY KEY,
    hash BLOB    NOT NULL UNIQUE, -- SHA-256 of der
    der  BLOB    NOT NULL         -- issuers, concatenated DER
) STRICT;

CREATE TABLE certificates (
    id          INTEGER PRIMARY KEY,
    serial      TEXT    NOT NULL UNIQUE,
    service     TEXT    NOT NULL,
    kind        TEXT    NOT NULL, -- issued, renewed, rekeyed, own
    provisioner TEXT    NOT NULL,
    caller      TEXT    NOT NULL,
    lineage     TEXT    NOT NULL, -- serial of the first certificate of a chain of renewals
    previous    TEXT    NOT NULL, -- serial that was renewed, or empty
    issuer      INTEGER NOT NULL, -- issuers.id
    chain       INTEGER NOT NULL, -- chains.id
    key_hash    BLOB    NOT NULL, -- SHA-256 of the SubjectPublicKeyInfo
    names       TEXT    NOT NULL, -- JSON array
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    issued_at   INTEGER NOT NULL,
    der         BLOB    NOT NULL
) STRICT;

-- Every list is ordered by (not_after, id): each index below ends with them, so
-- that a page is a range scan whatever the filter is. SQLite adds the id itself.
CREATE INDEX certificates_expiry  ON certificates (not_after);
CREATE INDEX certificates_service ON certificates (service, not_after);
CREATE INDEX certificates_issuer  ON certificates (issuer, not_after);
-- To revoke a whole lineage; most certificates are the first of theirs until they renew.
CREATE INDEX certificates_lineage ON certificates (lineage);

CREATE TABLE certificate_names (
    name      TEXT    NOT NULL,
    not_after INTEGER NOT NULL,
    id        INTEGER NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    PRIMARY KEY (name, not_after, id)
) STRICT, WITHOUT ROWID;

-- A spent token is an expiry and a hash: a copy of this table opens nothing. The
-- expiry, which is one of the token's claims, comes first: what is spent together
-- then lies together, and what is swept, too.
CREATE TABLE used_tokens (
    expires INTEGER NOT NULL,
    hash    BLOB    NOT NULL,
    serial  TEXT    NOT NULL, -- certificate it was spent on, or empty
    PRIMARY KEY (expires, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE revocations (
    id          INTEGER PRIMARY KEY, -- in the order of commits
    certificate INTEGER NOT NULL UNIQUE REFERENCES certificates (id),
    serial      TEXT    NOT NULL,
    lineage     TEXT    NOT NULL,
    issuer      TEXT    NOT NULL, -- subject key id, hex
    not_after   INTEGER NOT NULL, -- of the certificate: beyond it the entry leaves the CRL
    revoked_at  INTEGER NOT NULL,
    reason      INTEGER NOT NULL, -- RFC 5280, section 5.3.1
    note        TEXT    NOT NULL,
    caller      TEXT    NOT NULL
) STRICT;
CREATE INDEX revocations_issuer  ON revocations (issuer, not_after, certificate);
CREATE INDEX revocations_expiry  ON revocations (not_after, certificate);
CREATE INDEX revocations_lineage ON revocations (lineage);

CREATE TABLE lineages (
    lineage      TEXT    NOT NULL PRIMARY KEY,
    trust_digest TEXT    NOT NULL,
    reported_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened; each row is written in the transaction of the row it describes.
CREATE TABLE events (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    caller  TEXT    NOT NULL,
    service TEXT    NOT NULL,
    serial  TEXT    NOT NULL,
    rule    TEXT    NOT NULL,
    detail  TEXT    NOT NULL
) STRICT;
CREATE INDEX events_kind ON events (kind);

-- Readiness writes here: a database that only reads is not ready.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;
