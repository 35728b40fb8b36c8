-- +goose Up
-- Which certificates are served, as an agent has proved at the server and reported: one row for
-- each certificate at most, which goes when the certificate is pruned.
CREATE TABLE deliveries (
    certificate BIGINT  NOT NULL PRIMARY KEY, -- certificates.id
    address     TEXT    NOT NULL, -- of the first server
    servers     BIGINT  NOT NULL, -- how many serve it
    since       BIGINT  NOT NULL
);
