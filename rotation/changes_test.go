package rotation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/rotation"
)

// words returns the messages of the log since the last call.
func (l *logs) words() (all []string) {
	for _, m := range regexp.MustCompile(`msg="([^"]*)"`).FindAllStringSubmatch(l.Take(), -1) {
		all = append(all, m[1])
	}
	return all
}

// TestLogSaysWhatChanged expects one line for each kind of change, and "identity
// rotated" only for another leaf.
func TestLogSaysWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, second := newCA(t, "ca"), newCA(t, "second")
		var log logs
		src := newPushed(ca.leaf(t, "svc", nil))
		id, err := rotation.Open(t.Context(), rotation.Config{Source: src, Logger: log.logger()})
		must(t, err)
		defer func() { _ = id.Close() }()
		m, gone := src.current, ca.leaf(t, "gone", nil)
		otherCert := ca.leaf(t, "other", nil).Certificate
		for _, step := range []struct {
			name string
			edit func()
			want []string
		}{
			{"start", nil, []string{"identity loaded"}},
			{"nothing", func() {}, nil},
			{"leaf", func() { m.Certificate = ca.leaf(t, "svc", nil).Certificate }, []string{"identity rotated"}},
			{"trust", func() { m.Roots = []*x509.Certificate{ca.root, second.root} }, []string{"trust bundle changed"}},
			{"lists", func() { m.Revoked = []*x509.RevocationList{ca.crl(t, -3, gone)} }, []string{"revocation lists changed"}},
			{"lists that are only signed anew", func() { m.Revoked = []*x509.RevocationList{ca.crl(t, -2, gone)} }, nil},
			{"another certificate", func() { m.Others = []tls.Certificate{otherCert} }, []string{"other certificates changed"}},
			{"the chain", func() {
				again := sign(t, ca.template("ca intermediate"), ca.root, ca.interKey.Public(), ca.rootKey)
				m.Certificate.Certificate = [][]byte{m.Certificate.Certificate[0], again.Raw}
			}, []string{"certificate chain changed"}},
			{"all", func() {
				m.Certificate, m.Others = ca.leaf(t, "svc", nil).Certificate, nil
				m.Roots, m.Revoked = m.Roots[:1], []*x509.RevocationList{ca.crl(t, -1, gone, ca.leaf(t, "gone", nil))}
			}, []string{"identity rotated", "other certificates changed", "trust bundle changed", "revocation lists changed"}},
		} {
			if step.edit != nil {
				step.edit()
				src.mustPush(t, m)
			}
			synctest.Wait()
			if got := log.words(); !slices.Equal(got, step.want) {
				t.Errorf("%s: the log says %q, want %q", step.name, got, step.want)
			}
		}
	})
}

// TestOverdueIsTold expects the warning at the moment at which Status has it, once for
// each certificate and before the certificate expires. A later subscriber gets it too.
func TestOverdueIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		var log logs
		first := ca.leaf(t, "svc", nil)
		src := newPushed(first)
		id, err := rotation.Open(context.WithoutCancel(t.Context()), rotation.Config{Source: src, Logger: log.logger()})
		must(t, err)
		defer func() { _ = id.Close() }()
		changes := make(chan rotation.Change, 10)
		defer id.Subscribe(func(c rotation.Change) { changes <- c })()
		leaf := first.Certificate.Leaf
		at := lifetime.OverdueAt(leaf.NotBefore, leaf.NotAfter)

		time.Sleep(time.Until(at) - time.Millisecond)
		synctest.Wait()
		if len(changes) > 0 || id.Status().Overdue {
			t.Fatal("overdue too early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		wantOverdue(t, "at its time", changes, id.Current())
		if st := id.Status(); !st.Overdue || st.LastError != "" || st.Failures != 0 {
			t.Errorf("status %+v", st)
		}

		// The same certificate with other trust is not told again.
		src.mustPush(t, taking(first, ca.crl(t, -1, ca.leaf(t, "gone", nil))))
		synctest.Wait()
		if c := <-changes; c.Overdue || c.Previous == nil || len(changes) > 0 {
			t.Errorf("after other lists: %+v and %d more", c, len(changes))
		}
		late := make(chan rotation.Change, 10)
		stop := id.Subscribe(func(c rotation.Change) { late <- c })
		synctest.Wait()
		wantOverdue(t, "a late subscriber", late, id.Current())
		stop()
		if n := strings.Count(log.String(), "certificate is not renewed in time"); n != 1 || len(changes) > 0 {
			t.Errorf("%d lines of the log, and %d more changes", n, len(changes))
		}

		// A renewal ends it; the successor has its own time, and expires in the end.
		src.mustPush(t, taking(ca.leaf(t, "svc", nil), src.current.Revoked...))
		synctest.Wait()
		if c := <-changes; c.Overdue || c.Err != nil {
			t.Errorf("the renewal: %+v", c)
		}
		none := make(chan rotation.Change, 10)
		defer id.Subscribe(func(c rotation.Change) { none <- c })()
		synctest.Wait()
		if len(none) > 0 {
			t.Errorf("told of a certificate that was replaced: %+v", <-none)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		wantOverdue(t, "the successor", changes, id.Current())
		if n := strings.Count(log.String(), "certificate expired and nothing replaces it"); n != 1 {
			t.Errorf("the end is logged %d times", n)
		}
	})
}

func wantOverdue(t *testing.T, what string, changes <-chan rotation.Change, g *rotation.Generation) {
	t.Helper()
	if len(changes) != 1 {
		t.Fatalf("%s: %d changes, want one", what, len(changes))
	}
	c := <-changes
	if !c.Overdue || c.Generation != g || c.Previous != nil || c.Err == nil || !strings.Contains(c.Err.Error(), "expires at "+g.Leaf().NotAfter.UTC().Format(time.RFC3339)) {
		t.Errorf("%s: %+v", what, c)
	}
}
