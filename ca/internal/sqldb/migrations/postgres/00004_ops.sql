-- +goose Up
-- Each transaction that revokes takes the next number from here, and its row
-- lock makes the order of numbers the order of commits: whoever has seen number
-- n has seen all below it, which ids from a sequence do not promise. It never
-- goes back, which the greatest id does when rows are pruned.
CREATE TABLE revocation_mark (
    id   BIGINT PRIMARY KEY CHECK (id = 1),
    mark BIGINT NOT NULL
);
INSERT INTO revocation_mark (id, mark) SELECT 1, COALESCE(MAX(id), 0) FROM revocations;

ALTER TABLE revocations ADD COLUMN mark BIGINT NOT NULL DEFAULT 0;
UPDATE revocations SET mark = id;
CREATE INDEX revocations_mark ON revocations (issuer, mark);
