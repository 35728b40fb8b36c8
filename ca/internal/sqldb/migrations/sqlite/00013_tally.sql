-- +goose Up
-- What the dashboard shows at once, however large the record is. All of it follows from the log, and is
-- brought up to it a moment after the sequencer has given events their places (package tally).

-- How many entries of the log are counted in below. No row: none.
CREATE TABLE tally_state (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    folded INTEGER NOT NULL
) STRICT;

-- Numbers by hour since 1970: events by kind, refusals by rule, live certificates by their end and by
-- the end of their renewal window.
CREATE TABLE tallies (
    what TEXT    NOT NULL,
    hour INTEGER NOT NULL,
    n    INTEGER NOT NULL,
    PRIMARY KEY (what, hour)
) STRICT, WITHOUT ROWID;

-- One row for each lineage: its newest certificate. Neither the own certificates of the authority nor
-- those that were entered to be revoked are here.
CREATE TABLE holders (
    lineage     TEXT    NOT NULL PRIMARY KEY,
    certificate INTEGER NOT NULL, -- certificates.id
    service     TEXT    NOT NULL,
    state       INTEGER NOT NULL, -- 0 live, 1 ended, 2 revoked, 3 replaced by the certificate of a later ACME order
    not_after   INTEGER NOT NULL,
    due         INTEGER NOT NULL, -- end of the renewal window
    overdue     INTEGER NOT NULL, -- from then on a missing renewal is a failure
    reported    INTEGER NOT NULL  -- 1: the lineage has reported a trust bundle
) STRICT, WITHOUT ROWID;
CREATE INDEX holders_end     ON holders (state, not_after, lineage);
CREATE INDEX holders_service ON holders (service, state, not_after, lineage);
CREATE INDEX holders_overdue ON holders (state, overdue, lineage);
CREATE INDEX holders_silent  ON holders (state, reported, lineage);

-- To find a certificate by its fingerprint: the first eight bytes of the SHA-256 of its DER.
CREATE TABLE fingerprints (
    prefix      INTEGER NOT NULL,
    certificate INTEGER NOT NULL, -- certificates.id
    PRIMARY KEY (prefix, certificate)
) STRICT, WITHOUT ROWID;

-- Who has another trust bundle than a given one.
CREATE INDEX trust_reports_digest ON trust_reports (trust_digest, lineage);
