-- +goose Up
-- Which bundle is in effect where, a row for each place or process that reports. Copies of one certificate
-- are in one lineage, and a process that lags must not be overwritten by one that has followed.
CREATE TABLE trust_reports (
    lineage      TEXT    NOT NULL,
    reporter     TEXT    NOT NULL, -- name of the place or the process; without one, serial/digest; empty: of those beyond the bound
    serial       TEXT    NOT NULL, -- of the certificate that was shown
    successor    TEXT    NOT NULL, -- of the one that was issued for the same request, or empty
    trust_digest TEXT    NOT NULL, -- empty: of those beyond the bound
    reported_at  INTEGER NOT NULL,
    due          INTEGER NOT NULL, -- the next report is expected by then
    PRIMARY KEY (lineage, reporter)
) STRICT, WITHOUT ROWID;
INSERT INTO trust_reports (lineage, reporter, serial, successor, trust_digest, reported_at, due)
    SELECT lineage, serial || '/' || trust_digest, serial, '', trust_digest, reported_at, reported_at + 900000 FROM lineages;
DROP TABLE lineages;
