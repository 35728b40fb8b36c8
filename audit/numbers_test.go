package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/report"
)

// A certificate counts once, by its worst finding, and the parts of the summary add up,
// whatever the rows are and in whatever order they come.
func TestSummaryAddsUp(t *testing.T) {
	var certs []*cert.Certificate
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	for range 6 {
		certs = append(certs, certtest.Seen(certtest.New(t, root, "x", certtest.Lives(time.Hour, 400*certtest.Day)).Cert))
	}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		worst, places, failed := map[*cert.Certificate]int{}, 0, 0
		at := map[audit.Severity]int{}
		var rows audittest.Static
		for range random.IntN(20) {
			s := audit.Subject{Kind: "file", Place: "p"}
			rank := random.IntN(3) // 0 fine, 1 a warning, 2 critical
			if random.IntN(4) > 0 {
				s.Cert = certs[random.IntN(len(certs))]
			}
			if s.Cert == nil || random.IntN(3) == 0 {
				s.Err = errors.New("cut off")
				failed++
			}
			switch {
			case s.Cert == nil:
				rank = 0
				places++
			case s.Err != nil && rank < 2:
				rank = 0
				worst[s.Cert] = max(worst[s.Cert], 3) // read in part: behind a warning, before critical
			default:
				worst[s.Cert] = max(worst[s.Cert], []int{1, 2, 4}[rank])
			}
			s.Place = []string{"fine", "warn", "crit"}[rank]
			at[[]audit.Severity{0, audit.Warn, audit.Crit}[rank]]++
			rows = append(rows, s)
		}
		got := audit.Tally(rows, func(place string) audit.Severity {
			return map[string]audit.Severity{"warn": audit.Warn, "crit": audit.Crit}[place]
		})
		var want [5]int
		for _, w := range worst {
			want[w]++
		}
		if got.Certificates != len(worst) || got.Fine != want[1] || got.Warn != want[2] || got.Partial != want[3] || got.Crit != want[4] || got.Unread != places {
			t.Fatalf("seed %d: %+v, want %v of %d and %d places", seed, got, want, len(worst), places)
		}
		if got.Fine+got.Warn+got.Crit+got.Partial != got.Certificates {
			t.Fatalf("seed %d: it does not add up: %s", seed, got)
		}
		if found, unchecked := got.Count(audit.Warn); found != at[audit.Warn]+at[audit.Crit] || unchecked != failed {
			t.Fatalf("seed %d: %d and %d rows for the exit status", seed, found, unchecked)
		}
	}
}

// An audit that is interrupted finishes its report, which says so, and asks no further
// source.
func TestInterruptedReport(t *testing.T) {
	_, _, leaf := certtest.Hierarchy(t)
	for _, format := range []string{"json", "ndjson", "table", "html", "csv", "prom", "text"} {
		ctx, cancel := context.WithCancel(t.Context())
		var b, next bytes.Buffer
		out, err := report.New(format, &b, report.Terminal{})
		certtest.Must(t, err)
		first := audittest.Static{{Kind: "file", Place: "first", Cert: certtest.Seen(leaf.Cert)}}
		_, err = audit.Run(ctx, audit.Config{
			Report: out, NewBaseline: &next, Sources: []audit.Source{interrupting{first, cancel}, audittest.Static{{Kind: "file", Place: "/elsewhere", Cert: certtest.Seen(leaf.Cert)}}},
		})
		if !errors.Is(err, context.Canceled) || !strings.Contains(b.String(), "first") || strings.Contains(b.String(), "/elsewhere") || next.Len() > 0 {
			t.Errorf("%s: %v\n%.500s", format, err, b.String())
		}
		want := "INTERRUPTED"
		switch format {
		case "json", "ndjson":
			want = `"complete":false}` + "\n"
			lines := strings.Split(strings.TrimSpace(b.String()), "\n")
			if whole := b.String(); format == "json" && !json.Valid([]byte(whole)) || format == "ndjson" && (len(lines) != 2 || !json.Valid([]byte(lines[1]))) {
				t.Errorf("%s", whole)
			}
		case "prom":
			want = "artstore_audit_complete 0\n"
		case "csv":
			continue // it has no place to say so; the exit status does
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s: no %s in\n%.500s", format, want, b.String())
		}
	}
}

// A clause about documents of several kinds does not read as if it was about the last
// kind.
func TestSummaryOfDocuments(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	files := map[string][]byte{"ca.crt": certtest.Encode(root), "a.crl": certtest.Block("X509 CRL", audittest.CRL(t, root, -2*certtest.Day, -certtest.Day))}
	if got := audittest.Run(t, audittest.Paths(certtest.Write(t, files))).String(); !strings.HasSuffix(got, "; 1 revocation list: 0 to watch, 1 critical") {
		t.Errorf("one kind: %s", got)
	}
	files["other.key"] = certtest.New(t, root, "a").KeyPEM(t)
	dir := certtest.Write(t, files)
	certtest.Must(t, os.Chmod(filepath.Join(dir, "other.key"), 0o644))
	if got := audittest.Run(t, audittest.Paths(dir)).String(); !strings.HasSuffix(got, "; 1 revocation list; 1 private key; of these 2 documents 1 to watch, 1 critical") {
		t.Errorf("two kinds: %s", got)
	}
}
