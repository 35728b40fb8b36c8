-- +goose Up
-- Orders to renew. Those that everybody has followed are removed; the log keeps their events.
CREATE TABLE renewal_orders (
    id       BIGINT  NOT NULL PRIMARY KEY, -- of the event that tells of the order, so no number comes twice
    issuer   TEXT    NOT NULL, -- subject key id, hex; empty: any, as in the next three
    service  TEXT    NOT NULL,
    key_type TEXT    NOT NULL,
    lineage  TEXT    NOT NULL,
    wanted   TEXT    NOT NULL, -- JSON: the order as it was given
    at       BIGINT  NOT NULL, -- certificates up to this moment are to be renewed
    due      BIGINT  NOT NULL, -- by this one
    caller   TEXT    NOT NULL,
    matched  BIGINT  NOT NULL  -- holders, when the order was given
);
