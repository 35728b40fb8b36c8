package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

const steps = 5 // lines of the table: whether it is linear shows in them

// crl measures revocations one by one, with a list signed and fetched after each tenth.
func (b *bench) crl(ctx context.Context) (err error) {
	dir := filepath.Join(b.dir, "crl")
	a, _, err := b.open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, a.Close) }()
	text, err := os.ReadFile(filepath.Join(dir, "certs", "intermediate_ca.crt"))
	if err != nil {
		return err
	}
	issuer, err := pemfile.Certificates(text)
	if err != nil {
		return err
	}
	serials, err := fill(ctx, filepath.Join(dir, "pki.db"), hex.EncodeToString(issuer[0].SubjectKeyId), b.revoked)
	if err != nil {
		return err
	}
	r, err := ca.StateDir(dir).OpenRecord(ctx)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, r.Close) }()
	b.Print("\n%d revocations one by one, the CRL fetched after each tenth\n", len(serials))
	b.Print("  %10s %16s %16s %14s %16s\n", "revoked", "ms a revocation", "ms of it fetches", "CRL bytes", "fetch again ms")
	handler, share := a.Handler(), len(serials)/steps
	for step := range steps {
		begin, fetching := time.Now(), time.Duration(0)
		for i, serial := range serials[step*share : (step+1)*share] {
			if err := r.Revoke(ctx, serial, 0, ""); err != nil {
				return err
			}
			if i%10 == 9 {
				fetch := time.Now()
				if _, err := fetchCRL(ctx, handler); err != nil {
					return err
				}
				fetching += time.Since(fetch)
			}
		}
		took := time.Since(begin)
		der, err := fetchCRL(ctx, handler)
		if err != nil {
			return err
		}
		again := time.Now()
		if _, err := fetchCRL(ctx, handler); err != nil {
			return err
		}
		each := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(share) }
		b.Print("  %10d %16.3f %16.3f %14d %16.3f\n", (step+1)*share, each(took), each(fetching), len(der), time.Since(again).Seconds()*1e3)
	}
	return complete(ctx, handler, steps*share)
}

func fetchCRL(ctx context.Context, h http.Handler) ([]byte, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/1.0/crl", nil))
	if w.Code != http.StatusOK {
		return nil, fmt.Errorf("status %d: %.300s", w.Code, w.Body)
	}
	return w.Body.Bytes(), nil
}

// complete waits until the list, which may be a moment old, has all of them.
func complete(ctx context.Context, h http.Handler, want int) error {
	for begin := time.Now(); ; {
		der, err := fetchCRL(ctx, h)
		if err != nil {
			return err
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		if len(list.RevokedCertificateEntries) == want {
			return nil
		}
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("the list has %d entries after a minute, not %d", len(list.RevokedCertificateEntries), want)
		}
	}
}
