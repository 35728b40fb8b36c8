-- +goose Up
-- External account binding (RFC 8555 §7.3.4), and the profile of an order.

-- Keys that bind an account to what the operator knows. One key binds one account.
CREATE TABLE acme_eab_keys (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret     BYTEA     NOT NULL, -- of the MAC; empty once the key was used or revoked
    profiles   TEXT    NOT NULL, -- JSON array of services that the account may have certificates of
    note       TEXT    NOT NULL,
    created_at BIGINT  NOT NULL,
    expires    BIGINT  NOT NULL, -- until when an account may be bound
    account    TEXT COLLATE "C" NOT NULL, -- that was bound, or empty
    bound_at   BIGINT  NOT NULL, -- 0: not yet
    revoked_at BIGINT  NOT NULL  -- 0: not
);

ALTER TABLE acme_accounts ADD COLUMN eab TEXT NOT NULL DEFAULT ''; -- key that bound it, or empty
ALTER TABLE acme_orders ADD COLUMN profile TEXT NOT NULL DEFAULT ''; -- service; empty in orders of before
