-- +goose Up
-- Tells orders with one id apart: ids come again after the record was restored from a backup.
ALTER TABLE renewal_orders ADD COLUMN nonce TEXT NOT NULL DEFAULT '';
