-- +goose Up
-- Which roots and intermediates are in use. All replicas follow the newest version.

-- A document is signed by the key of the log, which is not in the database.
CREATE TABLE trust_versions (
    version  INTEGER PRIMARY KEY,
    document TEXT    NOT NULL, -- signed note
    at       INTEGER NOT NULL
) STRICT;

-- The CA certificates that documents name, and what a replica needs beside them.
CREATE TABLE authorities (
    fingerprint TEXT NOT NULL PRIMARY KEY, -- SHA-256 of the certificate, hex
    certificate BLOB NOT NULL,             -- DER
    sealed_key  BLOB NOT NULL,             -- encrypted by a secret that is not in the database; empty: of a root, or in a device
    crl         BLOB NOT NULL              -- list of a root, DER; empty if there is none
) STRICT, WITHOUT ROWID;

-- The certificate that the holder of a lineage has shown last: it uses none from before it.
ALTER TABLE lineages ADD COLUMN serial TEXT NOT NULL DEFAULT '';
