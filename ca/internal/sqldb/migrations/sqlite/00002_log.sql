-- +goose Up
-- The log over the events: ca/translog has the arithmetic. An event and its leaf
-- are one transaction; which place it gets is decided a moment later, by one
-- sequencer, so that no transaction waits for the head of the log.

-- Events without a place yet. It is nearly empty all the time.
CREATE TABLE log_pending (
    event INTEGER PRIMARY KEY, -- events.id
    leaf  BLOB    NOT NULL     -- RFC 6962 leaf hash of the entry
) STRICT;

-- The leaves in their order. A leaf stays when the rows it was made of are pruned.
CREATE TABLE log_entries (
    idx    INTEGER PRIMARY KEY, -- from 0, without gaps
    event  INTEGER NOT NULL,    -- events.id
    leaf   BLOB    NOT NULL,
    pruned INTEGER NOT NULL     -- events.id of the prune that took the rows, or 0
) STRICT;
CREATE INDEX log_entries_event  ON log_entries (event);
CREATE INDEX log_entries_pruned ON log_entries (pruned, idx) WHERE pruned <> 0;

-- Roots of complete subtrees at every eighth level: what proofs are made of.
CREATE TABLE log_nodes (
    level INTEGER NOT NULL,
    n     INTEGER NOT NULL,
    hash  BLOB    NOT NULL,
    PRIMARY KEY (level, n)
) STRICT, WITHOUT ROWID;

-- The newest head, and the edge of the tree that it signs.
CREATE TABLE log_state (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    edge BLOB    NOT NULL,
    head TEXT    NOT NULL
) STRICT;

-- What happened to one certificate.
CREATE INDEX events_serial ON events (serial) WHERE serial <> '';
