package acmestore

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// A nonce consists of its expiry, random bytes and a MAC over both, so an unused nonce is not
// stored: a client that asks for a million adds no row. Used nonces are stored until they
// expire.
const (
	nonceLife   = 15 * time.Minute // longer than the pauses of a client, which otherwise gets another one (RFC 8555 §6.5)
	nonceRandom = 16
	nonceMAC    = 16 // bytes of HMAC-SHA256 (RFC 2104 §5 allows half of it)
	nonceSize   = 8 + nonceRandom + nonceMAC

	nonceKey = "acme-nonce"
)

// CreateNonce makes a nonce that any replica will accept once.
func (s *Store) CreateNonce(ctx context.Context) (acme.Nonce, error) {
	key, err := s.secret(ctx, nonceKey)
	if err != nil {
		return "", err
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, nonceSize), uint64(sqldb.Millis(time.Now().Add(nonceLife)))) //nolint:gosec // G115: after 1970
	b = b[:8+nonceRandom]
	_, _ = rand.Read(b[8:]) // it never fails
	return acme.Nonce(base64.RawURLEncoding.EncodeToString(append(b, macOf(key, b)...))), nil
}

// CheckNonce checks that a nonce is ours and has not expired, and not whether it was used. It
// makes no query and stores nothing.
func (s *Store) CheckNonce(ctx context.Context, nonce acme.Nonce) error {
	_, err := s.parseNonce(ctx, nonce)
	return err
}

// DeleteNonce marks a nonce as used. A nonce that is not ours, has expired or was used is a
// badNonce problem. Clients repeat their request with another nonce then (RFC 8555 §6.5).
func (s *Store) DeleteNonce(ctx context.Context, nonce acme.Nonce) error {
	expires, err := s.parseNonce(ctx, nonce)
	if err != nil {
		return err
	}
	var n int64
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		hash := sha256.Sum256([]byte(nonce))
		res, err := tx.ExecContext(ctx, `INSERT INTO acme_nonces (hash, expires) VALUES (?, ?) ON CONFLICT DO NOTHING`, hash[:nonceMAC], expires)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	if err != nil {
		return fmt.Errorf("spending a nonce: %w", err)
	}
	if n == 0 {
		return badNonce("it was used before")
	}
	return nil
}

func (s *Store) parseNonce(ctx context.Context, nonce acme.Nonce) (expires int64, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(nonce)) // strict, so that a used nonce has no second spelling
	if err != nil || len(b) != nonceSize {
		return 0, badNonce("it is not one of this server")
	}
	key, err := s.secret(ctx, nonceKey)
	if err != nil {
		return 0, err
	}
	if !hmac.Equal(macOf(key, b[:8+nonceRandom]), b[8+nonceRandom:]) {
		return 0, badNonce("it is not one of this server")
	}
	expires = int64(binary.BigEndian.Uint64(b)) //nolint:gosec // G115: we wrote it
	if sqldb.Millis(time.Now()) >= expires {
		return 0, badNonce("it has expired")
	}
	return expires, nil
}

func badNonce(why string) error {
	return acme.NewDetailedError(acme.ErrorBadNonceType, "%s", why)
}

func macOf(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write(data) // a hash does not fail
	return h.Sum(nil)[:nonceMAC]
}

// secret returns a random key of 32 bytes that all replicas share. The first call makes it.
func (s *Store) secret(ctx context.Context, name string) ([]byte, error) {
	if key, ok := s.secrets.Load(name); ok { // it never changes
		return key.([]byte), nil
	}
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // it never fails
	var key []byte
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING`, name, fresh); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = ?`, name).Scan(&key)
	})
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	s.secrets.Store(name, key) // after the commit, which may have found the key of another replica
	return key, nil
}
