package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
)

const (
	leafSize = 720   // bytes of a certificate with a few names, as the authority makes them
	services = 1_000 // that share the record
	asked    = 200   // times that each question is asked, with other arguments
)

// list measures questions to a record of many certificates, and what one costs on disk.
func (b *bench) list(ctx context.Context) (err error) {
	dir := filepath.Join(b.dir, "list")
	if _, err := setup.Init(ctx, setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		return err
	}
	record := filepath.Join(dir, "pki.db")
	empty, err := sizes(record)
	if err != nil {
		return err
	}
	begin := time.Now()
	serials, err := fill(ctx, record, "0102030405060708090a0b0c0d0e0f1011121314", b.rows)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	full, err := sizes(record)
	if err != nil {
		return err
	}
	b.Print("\n%d certificates committed one by one, %d writers: %.0f a second; %.0f bytes each with indexes and log\n",
		b.rows, writers, float64(b.rows)/took.Seconds(), float64(full-empty)/float64(b.rows))
	r, err := ca.StateDir(dir).OpenRecord(ctx)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, r.Close) }()
	if err := b.questions(ctx, r, serials); err != nil || b.ours == "" {
		return err
	}
	return b.commands(ctx, dir, serials)
}

func (b *bench) questions(ctx context.Context, r *ca.Record, serials []string) error {
	b.Print("  %-44s %10s %10s %10s\n", "question, a page of 100", "median ms", "p99 ms", "worst ms")
	now := time.Now()
	for _, q := range []struct {
		name string
		ask  func() record.Query
	}{
		{"expires before, soonest first", func() record.Query {
			return record.Query{ExpiresBefore: now.Add(time.Duration(b.order.IntN(300*24)) * time.Hour), SoonestFirst: true}
		}},
		{"expires before, latest first", func() record.Query {
			return record.Query{ExpiresBefore: now.Add(time.Duration(b.order.IntN(300*24)) * time.Hour)}
		}},
		{"name", func() record.Query { return record.Query{Name: host(b.order.IntN(b.rows))} }},
		{"service, valid", func() record.Query {
			return record.Query{Service: serviceOf(b.order.IntN(services)), State: record.StateValid}
		}},
		{"revoked", func() record.Query { return record.Query{State: record.StateRevoked} }},
	} {
		if err := b.ask(ctx, q.name, func() error { _, _, err := r.List(ctx, q.ask()); return err }); err != nil {
			return err
		}
	}
	cursor := ""
	if err := b.ask(ctx, "the next page, two hundred in a row", func() (err error) {
		_, cursor, err = r.List(ctx, record.Query{Cursor: cursor})
		return err
	}); err != nil {
		return err
	}
	return b.ask(ctx, "show by serial", func() error { _, err := r.Show(ctx, serials[b.order.IntN(len(serials))]); return err })
}

func (b *bench) ask(ctx context.Context, name string, do func() error) error {
	var times []time.Duration
	for range asked {
		begin := time.Now()
		if err := errors.Join(do(), ctx.Err()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	ms := func(i int) float64 { return times[i].Seconds() * 1e3 }
	b.Print("  %-44s %10.2f %10.2f %10.2f\n", name, ms(asked/2), ms(asked*99/100), ms(asked-1))
	return nil
}

// commands asks through the binary, whose start is part of it.
func (b *bench) commands(ctx context.Context, dir string, serials []string) error {
	for _, args := range [][]string{{"list", "--expires-within", "30d"}, {"list", "--name", host(7)}, {"show", serials[0]}} {
		if err := b.ask(ctx, "the command "+args[0]+" "+args[1], func() error {
			cmd := exec.CommandContext(ctx, b.ours, append(args, "--dir", dir)...) //nolint:gosec // G204: named by who measures
			if args[0] == "show" {
				cmd = exec.CommandContext(ctx, b.ours, "show", "--dir", dir, args[1]) //nolint:gosec // G204: named by who measures
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

const writers = 64

// fill commits n certificates of random bytes by the issuer and returns their serials.
func fill(ctx context.Context, record, issuer string, n int) (serials []string, err error) {
	s, err := store.Open(ctx, record)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, s.Close) }()
	var next atomic.Int64
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	chain := make([]byte, 600)
	for range writers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				c, err := certificate(i, issuer, chain)
				if err == nil {
					_, err = s.Commit(ctx, store.Issuance{Certificate: c})
				}
				mu.Lock()
				serials = append(serials, c.Serial)
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return serials, errors.Join(errs...)
}

func certificate(i int, issuer string, chain []byte) (record.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return record.Certificate{}, err
	}
	der := make([]byte, leafSize)
	_, _ = rand.Read(der) // it cannot fail
	from := time.Now().Truncate(time.Second).Add(time.Duration(i%(365*24)) * time.Hour)
	name := serviceOf(i % services)
	return record.Certificate{
		Serial: serial.String(), Lineage: serial.String(), Service: name, Kind: kinds.Issued, Provisioner: provisioner,
		Caller: "token " + provisioner + "/" + name, Issuer: issuer, KeyHash: certs.KeyHash(der), Names: []string{name, host(i)},
		NotBefore: from, NotAfter: from.Add(24 * time.Hour), IssuedAt: from, DER: der, Chain: chain,
	}, nil
}

func serviceOf(i int) string { return fmt.Sprintf("service-%03d", i) }

func host(i int) string { return fmt.Sprintf("host-%07d.internal", i) }

// sizes is the database with what belongs to it, in bytes.
func sizes(record string) (sum int64, err error) {
	files, err := filepath.Glob(record + "*")
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}
