package store_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
)

// BenchmarkCommit issues certificates on a disk that flushes: ns/op is the time
// between two of them, cpu-µs/op what the process spent on each.
//
//	go test ./ca/store -run '^$' -bench Commit
func BenchmarkCommit(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, writers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", engine, writers), func(b *testing.B) {
				where := filepath.Join(b.TempDir(), "pki.db")
				if engine == "postgres" {
					where = postgres.Database(b)
				}
				benchmarkCommit(b, storetest.Open(b, where), writers)
			})
		}
	}
}

func benchmarkCommit(b *testing.B, s *store.Store, writers int) {
	next := factory(b)
	storetest.Commit(b, s, next().Certificate) // issuer and chain are known from then on
	var done atomic.Int64
	var group sync.WaitGroup
	before := cpuTime(b)
	b.ResetTimer()
	for range writers {
		group.Go(func() {
			for done.Add(1) <= int64(b.N) {
				if _, err := s.Commit(b.Context(), next()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// factory returns a maker of first certificates as the authority commits them:
// the certificate has the size of a real one, serial and token are fresh.
func factory(t testing.TB) func() store.Issuance {
	leaf, issuer := chainFor(t, 1), chainFor(t, 2)
	template := record.NewCertificate([]*x509.Certificate{leaf, issuer}, time.Now())
	template.Service, template.Kind, template.Provisioner, template.Caller = "ingester", kinds.Issued, "enrolment", "token enrolment/ingester"
	template.Names = []string{"ingester", "ingester-module", "localhost"}
	return func() store.Issuance {
		var seed [16]byte
		_, _ = rand.Read(seed[:]) // it never fails
		hash := sha256.Sum256(seed[:])
		binary.BigEndian.PutUint64(seed[:], uint64(time.Now().UnixMilli())) // first, as in the serials of the authority
		c := template
		c.Serial = new(big.Int).SetBytes(seed[:]).String()
		c.Lineage = c.Serial
		c.NotAfter = time.Now().Add(24 * time.Hour)
		c.DER = append(bytes.Repeat(seed[:], 40), leaf.Raw[:64]...) // as long as a real one with three names
		return store.Issuance{Certificate: c, Token: store.Token{Hash: hash, Expires: time.Now().Add(time.Hour)}}
	}
}

func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPage reads pages of a large record, 20 000 certificates or
// ARTSTORE_ROWS, and says what the file takes for each of them.
func BenchmarkPage(b *testing.B) {
	rows := 20_000
	if text := os.Getenv("ARTSTORE_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	path := filepath.Join(b.TempDir(), "pki.db")
	s := storetest.Open(b, path)
	fill(b, s, rows)
	now := time.Now()
	for name, q := range map[string]record.Query{
		"all":     {},
		"expiry":  {ExpiresBefore: now.Add(2 * time.Hour), SoonestFirst: true, State: record.StateValid},
		"name":    {Name: "service-17"},
		"service": {Service: "service-17", State: record.StateValid},
		"revoked": {State: record.StateRevoked},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.List(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if err := s.Close(); err != nil { // the log is in the file now
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("size", func(b *testing.B) {
		b.ReportMetric(float64(info.Size())/float64(rows), "bytes/certificate")
		b.ReportMetric(0, "ns/op")
	})
}

// BenchmarkLookup is what a request reads before it is decided.
func BenchmarkLookup(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		where := filepath.Join(b.TempDir(), "pki.db")
		if engine == "postgres" {
			where = postgres.Database(b)
		}
		s := storetest.Open(b, where)
		one := factory(b)()
		storetest.Commit(b, s, one.Certificate)
		for name, look := range map[string]func() error{
			"token": func() error {
				_, err := s.Spent(b.Context(), one.Token, "")
				if errors.Is(err, record.ErrNotFound) {
					return nil
				}
				return err
			},
			"certificate": func() error { _, err := s.Get(b.Context(), one.Certificate.Serial); return err },
		} {
			b.Run(engine+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if err := look(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// fill issues certificates of a thousand services that expire over a day: half
// are renewals, and one in a hundred is revoked.
func fill(b *testing.B, s *store.Store, rows int) {
	next := factory(b)
	var n atomic.Int64
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			var before record.Certificate
			for i := n.Add(1); i <= int64(rows); i = n.Add(1) {
				issue := next()
				c := &issue.Certificate
				c.Service = fmt.Sprintf("service-%d", i%1000)
				c.Names = []string{c.Service, c.Service + ".internal", "localhost"}
				c.NotAfter = c.NotAfter.Add(-24 * time.Hour / time.Duration(rows) * time.Duration(i))
				if before.Serial != "" {
					c.Kind, c.Lineage, c.Previous, issue.Token = kinds.Renewed, before.Lineage, before.Serial, store.Token{}
					before = record.Certificate{}
				} else {
					before = *c
				}
				if _, err := s.Commit(b.Context(), issue); err != nil {
					b.Error(err)
					return
				}
				if i%100 == 0 {
					if err := s.Revoke(b.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: c.Serial, RevokedAt: storetest.Base}}); err != nil {
						b.Error(err)
					}
					before = record.Certificate{}
				}
			}
		})
	}
	group.Wait()
}
