package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // counts the rows of the record

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

const (
	attackers = 8 // connections that a stranger keeps busy
	stranger  = "127.0.0.2"
	every     = 20 * time.Millisecond // between two honest requests
)

// acmeToo offers nonces, beside the limits that every authority has.
var acmeToo = settings{profile: manyLive, end: "\n"}

// attack is one request, sent again and again.
type attack struct {
	name, method, path, body string
}

// state is what strangers must not change.
type state struct {
	frame.Usage
	rows int64 // of all tables
}

// measureAttacks measures what strangers on 127.0.0.2 cost: rows, memory, CPU time, and
// the honest client on 127.0.0.1 beside them.
func (b *bench) measureAttacks(ctx context.Context) (err error) {
	dir := filepath.Join(b.dir, "abused")
	s, err := b.startOurs(ctx, b.ours, dir, acmeToo)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, s.stop) }()
	before, err := s.readState(ctx, dir)
	if err != nil {
		return err
	}
	const calm = 500
	honest, err := s.issueSerially(ctx, calm)
	if err != nil {
		return err
	}
	after, err := s.readState(ctx, dir)
	if err != nil {
		return err
	}
	each := float64(after.rows-before.rows) / calm
	token, err := s.token()
	if err != nil {
		return err
	}
	_, csr, err := request()
	if err != nil {
		return err
	}
	b.Print("\nA stranger on %s with %d connections, an honest client beside it; rows are those that honest requests do not explain\n", stranger, attackers)
	b.Print("  %-40s %9s %9s %9s %11s %6s %9s %8s %8s\n", "", "requests", "answers", "CPU µs", "of a /sign", "rows", "RSS MiB", "honest", "refused")
	b.Print("  %-40s %9d %9s %9.0f %11.2f %6s %9.1f %8d %8d\n", "honest /sign, nobody else", calm, "201", honest.micros(), 1.0, "", after.MiB(), calm, 0)
	for _, a := range []attack{
		{"/sign, token with a wrong signature", http.MethodPost, "/1.0/sign", `{"csr":` + quoted(csr) + `,"ott":"` + forged(token) + `"}`},
		{"/sign, a megabyte of nonsense", http.MethodPost, "/1.0/sign", strings.Repeat("{", 1<<20)},
		{"ACME new-nonce", http.MethodHead, "/acme/acme/new-nonce", ""},
	} {
		n := b.attacks
		if len(a.body) > 1<<16 {
			n /= 60
		}
		if err := b.runAttack(ctx, target{s, dir, honest.micros(), each}, a, n); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	return nil
}

// target is the server under attack, and what an honest request costs it.
type target struct {
	*server
	dir          string
	micros, rows float64
}

func (b *bench) runAttack(ctx context.Context, s target, a attack, n int) error {
	before, err := s.readState(ctx, s.dir)
	if err != nil {
		return err
	}
	cpu, err := s.cpu()
	if err != nil {
		return err
	}
	quiet, cancel := context.WithCancel(ctx)
	defer cancel()
	var served, refused int
	var beside sync.WaitGroup
	beside.Go(func() {
		for quiet.Err() == nil {
			if _, err := s.issueSerially(ctx, 1); err != nil {
				refused++
			} else {
				served++
			}
			select {
			case <-quiet.Done():
			case <-time.After(every):
			}
		}
	})
	answers, err := s.flood(ctx, a, n)
	cancel()
	beside.Wait()
	if err != nil {
		return err
	}
	used, err := s.cpu()
	if err != nil {
		return err
	}
	after, err := s.readState(ctx, s.dir)
	if err != nil {
		return err
	}
	micros := ((used-cpu).Seconds()*1e6 - float64(served)*s.micros) / float64(n)
	rows := float64(after.rows-before.rows) - float64(served)*s.rows
	b.Print("  %-40s %9d %9s %9.0f %11.2f %6.0f %9.1f %8d %8d\n", a.name, n, answers, micros, micros/s.micros, rows, after.MiB(), served+refused, refused)
	return nil
}

// issueSerially obtains n certificates, one after the other.
func (s *server) issueSerially(ctx context.Context, n int) (measurement, error) {
	c := s.client(nil, "")
	defer c.CloseIdleConnections()
	if err := greet(ctx, s, c); err != nil {
		return measurement{}, err
	}
	w := work{clients: []*http.Client{c}, url: s.url + "/1.0/sign"}
	for range n {
		_, csr, err := request()
		if err != nil {
			return measurement{}, err
		}
		body, err := s.signBody(csr)
		if err != nil {
			return measurement{}, err
		}
		w.bodies = append(w.bodies, body)
	}
	return s.run(ctx, w)
}

// flood sends one request n times and returns the statuses that came back.
func (s *server) flood(ctx context.Context, a attack, n int) (string, error) {
	var left atomic.Int64
	left.Store(int64(n))
	var seen sync.Map
	var wg sync.WaitGroup
	for range attackers {
		wg.Go(func() {
			c := s.client(nil, stranger)
			defer c.CloseIdleConnections()
			for left.Add(-1) >= 0 {
				status := "cut" // the server may end the connection of who sends too much
				req, err := http.NewRequestWithContext(ctx, a.method, s.url+a.path, strings.NewReader(a.body))
				if err != nil {
					return
				}
				if resp, err := c.Do(req); err == nil {
					status = fmt.Sprint(resp.StatusCode)
					_ = drain(resp) // the status is the answer
				}
				seen.Store(status, true)
			}
		})
	}
	wg.Wait()
	var answers []string
	seen.Range(func(k, _ any) bool { answers = append(answers, fmt.Sprint(k)); return true })
	return strings.Join(answers, ","), ctx.Err()
}

// readState counts the rows of all tables, and the memory of the process. The inner
// nodes of the log are left out: they follow a second later, one for 256 events.
func (s *server) readState(ctx context.Context, dir string) (out state, err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "pki.db")+"?mode=ro")
	if err != nil {
		return out, err
	}
	defer func() { err = joined(err, db.Close) }()
	names, err := db.QueryContext(ctx, `SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'log_nodes'`)
	if err != nil {
		return out, err
	}
	var tables []string
	for names.Next() {
		var name string
		if err := names.Scan(&name); err != nil {
			return out, err
		}
		tables = append(tables, name)
	}
	if err := errors.Join(names.Err(), names.Close()); err != nil {
		return out, err
	}
	for _, t := range tables {
		var n int64
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM "`+t+`"`).Scan(&n); err != nil {
			return out, err
		}
		out.rows += n
	}
	out.Usage, err = frame.Running(s.pid)
	return out, err
}

// forged is the token with another signature.
func forged(token string) string {
	i := len(token) - 10
	c := byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}
