package dashboard_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/dashboard"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// envSize is the number of certificates for TestDashboardAtSize. A million takes some minutes:
//
//	ARTSTORE_DASHBOARD_SIZE=1000000 go test ./ca/dashboard -run AtSize -v -timeout 60m
//
// Without it the test runs with a few thousand.
const envSize = "ARTSTORE_DASHBOARD_SIZE"

const (
	smallSize     = 3000
	perLineage    = 10 // certificates; each lineage has one event, of its newest
	generateBatch = 100
	generateTx    = 5000
)

// generate writes a record of n certificates behind the back of the authority: lineages whose newest
// certificates end in the next day, one report of trust and one event each, some of them overdue, ended or
// revoked. Names and services are those of a fleet of many instances.
func (w *world) generate(n int) {
	w.t.Helper()
	now, issued := time.Now(), 0
	for issued < n {
		must(w.t, w.db.Change(w.t.Context(), func(tx *sqldb.Txn) error {
			for begin := issued; issued < min(n, begin+generateTx); issued += generateBatch {
				if err := w.generateSome(tx, issued, now); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	w.settle()
}

func (w *world) generateSome(tx *sqldb.Txn, first int, now time.Time) error {
	type table struct {
		head, row string
		args      []any
		rows      int
	}
	insert := map[string]*table{
		"certificates": {head: `INSERT INTO certificates (id, serial, service, kind, provisioner, caller, lineage, previous, issuer, chain, key_hash, names, not_before, not_after, issued_at, proof_until, der) VALUES `, row: `(?, ?, ?, ?, 'enrolment', ?, ?, ?, 1, 1, ?, ?, ?, ?, ?, 0, ?)`},
		"names":        {head: `INSERT INTO certificate_names (name, not_after, id) VALUES `, row: `(?, ?, ?)`},
		"fingerprints": {head: `INSERT INTO fingerprints (prefix, certificate) VALUES `, row: `(?, ?)`},
		"events":       {head: `INSERT INTO events (id, at, kind, caller, service, serial, rule, detail) VALUES `, row: `(?, ?, ?, ?, ?, ?, '', '')`},
		"pending":      {head: `INSERT INTO log_pending (event, leaf) VALUES `, row: `(?, ?)`},
		"reports":      {head: `INSERT INTO trust_reports (lineage, reporter, serial, successor, trust_digest, reported_at, due) VALUES `, row: `(?, 'r', ?, '', 'unknown', ?, ?)`},
	}
	add := func(name string, args ...any) {
		insert[name].args, insert[name].rows = append(insert[name].args, args...), insert[name].rows+1
	}
	der := []byte(strings.Repeat("d", 600))
	for i := first; i < first+generateBatch; i++ {
		lineage, generation := i/perLineage, i%perLineage
		serial, id := strconv.Itoa(10_000_000+i), int64(1000+i)
		root := strconv.Itoa(10_000_000 + lineage*perLineage)
		// The newest of a lineage was issued up to 16 hours ago, the one before 16 hours before that.
		at := now.Add(-time.Duration(lineage%960) * time.Minute).Add(-time.Duration(perLineage-1-generation) * 16 * time.Hour)
		switch lineage % 1000 {
		case 1: // overdue
			at = at.Add(-5 * time.Hour)
		case 2: // ended
			at = at.Add(-30 * time.Hour)
		}
		service, name := fmt.Sprintf("service-%03d", lineage%500), fmt.Sprintf("instance-%06d.service-%03d.example", lineage, lineage%500)
		kind, previous := kinds.Rekeyed, strconv.Itoa(10_000_000+i-1)
		if generation == 0 {
			kind, previous = kinds.Issued, ""
		}
		data := append(der[:600:600], serial...)
		sum := sha256.Sum256(data)
		end := at.Add(24 * time.Hour)
		add("certificates", id, serial, service, kind, "token enrolment/"+service, root, previous, sum[:], `["`+name+`"]`, sqldb.Millis(at), sqldb.Millis(end), sqldb.Millis(at), data)
		add("names", name, sqldb.Millis(end), id)
		add("fingerprints", tally.Prefix(sum), id)
		if generation == perLineage-1 {
			add("events", id, sqldb.Millis(at), kind, "token", service, serial)
			add("pending", id, sum[:])
			if lineage%2 == 0 {
				add("reports", root, serial, sqldb.Millis(at), sqldb.Millis(end))
			}
		}
	}
	for _, name := range []string{"certificates", "names", "fingerprints", "events", "pending", "reports"} {
		x := insert[name]
		if x.rows == 0 {
			continue
		}
		if _, err := tx.ExecContext(w.t.Context(), x.head+strings.TrimSuffix(strings.Repeat(x.row+`, `, x.rows), `, `), x.args...); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// cpu returns the CPU time of this process.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// heap returns what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // the first one only queues what has finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestDashboardAtSize looks at all pages of a large record many times. What it bounds does not depend on
// what else the machine does: CPU time, bytes, and the heap.
func TestDashboardAtSize(t *testing.T) {
	n, views := smallSize, 300
	if text := os.Getenv(envSize); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
		views = 10_000
	}
	w := newWorld(t, catest.Options{}, nil)
	begin := time.Now()
	w.generate(n)
	t.Logf("%d certificates, %d events: made and counted in %s", n, n/perLineage, time.Since(begin).Round(time.Second))
	serial := strconv.Itoa(10_000_000 + n/2)
	pages := []string{
		"/", "/services", "/services?show=overdue", "/services?show=ended", "/services?show=silent", "/services?service=service-007", "/certificate/" + serial,
		"/issuance", "/issuance?over=30d", "/trust", "/revocations", "/log", "/search?q=instance-0000", "/csv/services", "/csv/search?q=instance-0000",
	}
	took, cost := map[string][]time.Duration{}, map[string][]time.Duration{}
	var middle uint64
	for i := range views {
		address := pages[i%len(pages)]
		before, start := cpu(t), time.Now()
		out := w.get(address)
		took[address], cost[address] = append(took[address], time.Since(start)), append(cost[address], cpu(t)-before)
		if out.Code != http.StatusOK || out.Body.Len() > 200<<10 {
			t.Fatalf("%s: %d, %d bytes", address, out.Code, out.Body.Len())
		}
		if i == views/10 {
			middle = heap()
		}
	}
	if end := heap(); end > middle+8<<20 {
		t.Errorf("the heap grew from %d to %d bytes", middle, end)
	} else {
		t.Logf("heap after %d views: %d KiB, after %d: %d KiB", views/10, middle>>10, views, end>>10)
	}
	for _, address := range pages {
		p99 := func(list []time.Duration) time.Duration {
			slices.Sort(list)
			return list[len(list)*99/100]
		}
		wall, work := p99(took[address]), p99(cost[address])
		t.Logf("%-34s p50 %6s p99 %6s, CPU p99 %6s, %d KiB", address, took[address][len(took[address])/2].Round(10*time.Microsecond), wall.Round(10*time.Microsecond), work.Round(10*time.Microsecond), w.get(address).Body.Len()>>10)
		if work > 100*time.Millisecond && os.Getenv(envSize) != "" { // with few views the collector of the tests is most of it
			t.Errorf("%s takes %s of CPU", address, work)
		}
	}
	if n >= 100_000 {
		var sum time.Duration
		for _, list := range cost {
			for _, c := range list {
				sum += c
			}
		}
		w.readersBesideWriters(sum / time.Duration(views))
	}
}

// readersBesideWriters commits first certificates and renewals in rounds, every other one with ten people who open a
// page every two seconds each. A page costs so much CPU. On a machine that does other things too, the number of
// certificates for a second says nothing, so two things are measured apart: what the readers take from the
// processors, and what a certificate costs beside them, without the cost of their pages.
func (w *world) readersBesideWriters(page time.Duration) {
	const rounds, round, people, pause = 24, 4 * time.Second, 10, 2 * time.Second
	const alone, control, beside = 0, 1, 2 // kinds of rounds; the first two are the same
	pages := []string{"/", "/services", "/issuance", "/trust", "/log", "/services?show=overdue", "/certificate/10000005", "/revocations", "/search?q=instance-0001", "/services?show=ended"}
	d, err := dashboard.Open(w.t.Context(), dashboard.Options{Dir: w.dir})
	must(w.t, err)
	defer func() { _ = d.Close() }()
	handler := d.Handler()
	rate, opened := map[int][]float64{}, 0.0
	for i := range rounds {
		kind := i % 3
		end := time.Now().Add(round)
		var group sync.WaitGroup
		var views atomic.Int64
		if kind == beside {
			for p := range people {
				group.Go(func() {
					time.Sleep(pause * time.Duration(p) / people)
					for n := p; time.Now().Before(end); n++ {
						r := httptest.NewRequest(http.MethodGet, pages[n%len(pages)], nil)
						r.Host = "localhost"
						handler.ServeHTTP(httptest.NewRecorder(), r)
						views.Add(1)
						time.Sleep(min(pause, time.Until(end)))
					}
				})
			}
		}
		done, before := 0, cpu(w.t)
		for previous := (record.Certificate{}); time.Now().Before(end); done++ {
			c := w.commit(func(c *record.Certificate) {
				if done%2 == 1 {
					c.Lineage, c.Previous, c.Kind = previous.Lineage, previous.Serial, kinds.Rekeyed
				}
			})
			previous = c
		}
		group.Wait()
		own := cpu(w.t) - before - time.Duration(views.Load())*page
		rate[kind] = append(rate[kind], float64(done)/own.Seconds())
		opened += float64(views.Load()) / (rounds / 3)
	}
	for _, list := range rate {
		slices.Sort(list)
	}
	middle := func(kind int) float64 { return rate[kind][rounds/6] }
	share := opened / round.Seconds() * page.Seconds() / float64(runtime.NumCPU())
	w.t.Logf("a page costs %s on average, so ten readers take %.2f %% of %d processors; certificates for a second of CPU: %.0f alone, %.0f as a control, %.0f beside them (%.3f, control %.3f)",
		page.Round(10*time.Microsecond), 100*share, runtime.NumCPU(), middle(alone), middle(control), middle(beside), middle(beside)/middle(alone), middle(control)/middle(alone))
	if share > 0.03 {
		w.t.Error("ten readers take more than 3 % of the processors")
	}
	if middle(beside) < 0.9*middle(alone) { // the rounds are short, so this is far from what was measured
		w.t.Error("a certificate costs more beside readers")
	}
}
