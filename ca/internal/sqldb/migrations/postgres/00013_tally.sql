-- +goose Up
-- What the dashboard shows at once, however large the record is. All of it follows from the log, and is
-- brought up to it a moment after the sequencer has given events their places (package tally).

-- How many entries of the log are counted in below. No row: none.
CREATE TABLE tally_state (
    id     BIGINT PRIMARY KEY CHECK (id = 1),
    folded BIGINT  NOT NULL
);

-- Numbers by hour since 1970: events by kind, refusals by rule, live certificates by their end and by
-- the end of their renewal window.
CREATE TABLE tallies (
    what TEXT    COLLATE "C" NOT NULL,
    hour BIGINT  NOT NULL,
    n    BIGINT  NOT NULL,
    PRIMARY KEY (what, hour)
);

-- One row for each lineage: its newest certificate. Neither the own certificates of the authority nor
-- those that were entered to be revoked are here.
CREATE TABLE holders (
    lineage     TEXT    COLLATE "C" NOT NULL PRIMARY KEY,
    certificate BIGINT  NOT NULL, -- certificates.id
    service     TEXT    COLLATE "C" NOT NULL,
    state       BIGINT  NOT NULL, -- 0 live, 1 ended, 2 revoked, 3 replaced by the certificate of a later ACME order
    not_after   BIGINT  NOT NULL,
    due         BIGINT  NOT NULL, -- end of the renewal window
    overdue     BIGINT  NOT NULL, -- from then on a missing renewal is a failure
    reported    BIGINT  NOT NULL  -- 1: the lineage has reported a trust bundle
);
CREATE INDEX holders_end     ON holders (state, not_after, lineage);
CREATE INDEX holders_service ON holders (service, state, not_after, lineage);
CREATE INDEX holders_overdue ON holders (state, overdue, lineage);
CREATE INDEX holders_silent  ON holders (state, reported, lineage);

-- To find a certificate by its fingerprint: the first eight bytes of the SHA-256 of its DER.
CREATE TABLE fingerprints (
    prefix      BIGINT  NOT NULL,
    certificate BIGINT  NOT NULL, -- certificates.id
    PRIMARY KEY (prefix, certificate)
);

-- Who has another trust bundle than a given one.
CREATE INDEX trust_reports_digest ON trust_reports (trust_digest, lineage);
