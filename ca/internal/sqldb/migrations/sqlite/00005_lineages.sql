-- +goose Up
-- When the proof ends that a certificate rests on: another certificate that vouched
-- for it, or names that were proven once. Its renewals inherit it. 0: the proof has
-- no end. Certificates that are here already have 0, because their log entries are
-- without it; the authority derives their end when they renew.
ALTER TABLE certificates ADD COLUMN proof_until INTEGER NOT NULL DEFAULT 0;

-- Each renewal counts the live certificates of its lineage, which is a range of this
-- index, however many have expired.
DROP INDEX certificates_lineage;
CREATE INDEX certificates_lineage ON certificates (lineage, not_after);
