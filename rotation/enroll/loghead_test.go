package enroll_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// TestProofsOfTheLog verifies all proofs between trees of up to 40 entries as the
// library makes them, and expects that each of them is refused after any change.
func TestProofsOfTheLog(t *testing.T) {
	var stored []tlog.Hash
	hashes := tlog.HashReaderFunc(func(idx []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(idx))
		for i, x := range idx {
			out[i] = stored[x]
		}
		return out, nil
	})
	var roots []tlog.Hash
	for n := range int64(40) {
		more, err := tlog.StoredHashes(n, fmt.Append(nil, n), hashes)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		root, err := tlog.TreeHash(n+1, hashes)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, root)
	}
	for to := int64(2); to <= 40; to++ {
		for from := int64(1); from < to; from++ {
			made, err := tlog.ProveTree(to, from, hashes)
			if err != nil {
				t.Fatal(err)
			}
			var proof [][]byte
			for _, h := range made {
				proof = append(proof, bytes.Clone(h[:]))
			}
			if !enroll.Consistent(from, roots[from-1], to, roots[to-1], proof) {
				t.Errorf("%d to %d: refused", from, to)
			}
			other := tlog.Hash(sha256.Sum256([]byte("x")))
			if enroll.Consistent(from, other, to, roots[to-1], proof) || enroll.Consistent(from, roots[from-1], to, other, proof) ||
				enroll.Consistent(from, roots[from-1], to, roots[to-1], append(proof, proof[0])) || enroll.Consistent(to, roots[to-1], from, roots[from-1], proof) {
				t.Errorf("%d to %d: accepted with something changed", from, to)
			}
			for i := range proof {
				proof[i][0] ^= 1
				if enroll.Consistent(from, roots[from-1], to, roots[to-1], proof) {
					t.Errorf("%d to %d: hash %d does not count", from, to, i)
				}
				proof[i][0] ^= 1
			}
		}
	}
	if enroll.Consistent(3, roots[2], 7, roots[6], nil) || enroll.Consistent(3, roots[2], 7, roots[6], [][]byte{{1}, {2}}) {
		t.Error("no proof is a proof")
	}
}

// TestHeadIsKept expects that the directory keeps the newest head as long as each
// follows from the one before, and does not replace it otherwise.
func TestHeadIsKept(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	var instead, proof atomic.Pointer[string] // what the authority says in place of its head, and of its proofs
	authority := catest.Start(t, catest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if text := proof.Load(); text != nil && strings.HasSuffix(r.URL.Path, stepapi.PathLogProof) {
				fmt.Fprint(w, *text)
				return
			}
			next.ServeHTTP(&headChanger{w, instead.Load()}, r)
		})
	}})
	var logged bytes.Buffer
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester")), Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, "log.head")
	kept := func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	renewUntil := func(done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !done(); {
			if time.Now().After(deadline) {
				t.Fatalf("nothing of the kind happened; log: %s", &logged)
			}
			if _, err := enroll.Renew(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			<-time.After(100 * time.Millisecond)
		}
	}
	renewUntil(func() bool { _, err := os.Stat(path); return err == nil })
	first := kept()
	renewUntil(func() bool { return kept() != first })
	record, err := ca.StateDir(authority.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = record.Close() }()
	report, err := record.VerifyLog(t.Context(), ca.LogOptions{Heads: [][]byte{[]byte(first), []byte(kept())}})
	if err != nil || len(report.Findings) > 0 || logged.Len() > 0 {
		t.Errorf("%+v, %v, log: %s", report, err, &logged)
	}
	lines := strings.SplitN(kept(), "\n", 4)
	other := base64.StdEncoding.EncodeToString(make([]byte, 32))
	wrong, err := json.Marshal(stepapi.LogProof{Hashes: [][]byte{make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ head, proof, want string }{
		"another root":    {lines[0] + "\n" + lines[1] + "\n" + other + "\n" + lines[3], "", "not those of the kept head"},
		"another log":     {"elsewhere\n" + lines[1] + "\n" + lines[2] + "\n" + lines[3], "", `elsewhere`},
		"a wrong proof":   {lines[0] + "\n99999\n" + other + "\n" + lines[3], string(wrong), "no proof that"},
		"no proof at all": {lines[0] + "\n99999\n" + other + "\n" + lines[3], "", "answered 400"},
		"smaller":         {lines[0] + "\n1\n" + other + "\n" + lines[3], "", ""},
		"no head":         {"x\ny\nz\n\n", "", ""},
		"no size":         {lines[0] + "\n0\n" + other + "\n" + lines[3], "", ""},
	} {
		logged.Reset()
		text, before := base64.StdEncoding.EncodeToString([]byte(tc.head)), kept()
		instead.Store(&text)
		if proof.Store(nil); tc.proof != "" {
			proof.Store(&tc.proof)
		}
		if _, err := enroll.Renew(t.Context(), cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if kept() != before {
			t.Errorf("%s took the place of the kept head", name)
		}
		if got := logged.String(); !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%s: log %q, want %q", name, got, tc.want)
		}
	}
}

// headChanger replaces the head that an answer brings.
type headChanger struct {
	http.ResponseWriter
	instead *string
}

func (h *headChanger) WriteHeader(status int) {
	if h.instead != nil && h.Header().Get(stepapi.HeaderLogHead) != "" {
		h.Header().Set(stepapi.HeaderLogHead, *h.instead)
	}
	h.ResponseWriter.WriteHeader(status)
}

// FuzzLogHead: what is read as a head has a log, a size and a root.
func FuzzLogHead(f *testing.F) {
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	f.Add([]byte("log\n7\n" + root + "\n\n— log AAAA\n"))
	f.Add([]byte("log\n-7\n" + root + "\n\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		if size, err := enroll.ParseLogHead(text); err == nil && (size < 1 || bytes.Count(text, []byte("\n")) < 4) {
			t.Errorf("%q was read as a head of %d entries", text, size)
		}
	})
}
