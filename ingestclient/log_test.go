package ingestclient_test

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/logtest"
)

// TestLogLines expects the lines for an operator, over a run with a rotation, a refusal
// and an outage.
func TestLogLines(t *testing.T) {
	w := newServers(t, nil)
	out := &logtest.Buffer{}
	w.cfg.Logger = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	id, rotate := w.identity(0)
	upload := func(cfg ingestclient.Config, after func(*ingestclient.Client)) {
		t.Helper()
		c, err := ingestclient.New(cfg, id)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, _ = c.Upload(t.Context(), ingestclient.BytesContent("a", nil), ingestclient.Meta{})
		}
		after(c)
		_ = c.Close()
		_ = c.Close()
	}
	upload(w.cfg, func(c *ingestclient.Client) {
		rotate()
		for c.Stats().Swaps == 0 {
			_, _ = c.Metadata(t.Context(), "0000-1")
		}
	})
	wrong := w.cfg
	wrong.ClientSecret = fixedSecret("wrong")
	upload(wrong, func(*ingestclient.Client) {})
	old := w.cfg
	old.MinVersion, old.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	upload(old, func(*ingestclient.Client) {})
	dead := w.cfg
	dead.TokenURL = "https://127.0.0.1:1/token"
	upload(dead, func(*ingestclient.Client) {})
	for line, times := range map[string]int{
		`level=INFO msg="ingest client opened" client_id=sa_test_1`:                           4,
		`level=INFO msg="TLS identity loaded" protocol=TLSv1.3 serial=`:                       3,
		`level=INFO msg="TLS identity loaded" protocol=TLSv1.2 serial=`:                       1,
		` cipher_suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`:                                1,
		`level=INFO msg="TLS identity taken over" protocol=TLSv1.3 serial=`:                   1,
		`level=INFO msg="access token acquired" client_id=sa_test_1 expires_in=30m0s`:         3,
		`level=DEBUG msg="token from cache" client_id=sa_test_1`:                              -1,
		`level=ERROR msg="token refused" client_id=sa_test_1 status=401 failures=1`:           1,
		`level=WARN msg="token endpoint unreachable" client_id=sa_test_1 status=0 failures=1`: 1,
		`level=INFO msg="ingest client closed" client_id=sa_test_1`:                           4,
	} {
		if n := strings.Count(out.String(), line); n != times && (times >= 0 || n == 0) {
			t.Errorf("%d times, want %d: %s", n, times, line)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// TestOneLineForAnOutage expects that an outage of the token endpoint or of an element
// is one line at its begin and one at its end, however many files wait for it.
func TestOneLineForAnOutage(t *testing.T) {
	for name, tc := range map[string]struct {
		cut        func(f *fakeElements, down bool)
		begin, end string
	}{
		"token endpoint": {func(f *fakeElements, down bool) { f.fakeServers.status = map[bool]int{true: 503}[down] }, `level=WARN msg="token request failed"`, `level=INFO msg="token endpoint is back"`},
		"unreachable":    {func(f *fakeElements, down bool) { f.fakeServers.status = map[bool]int{true: -1}[down] }, `level=WARN msg="token endpoint unreachable"`, `level=INFO msg="token endpoint is back"`},
		"element":        {func(f *fakeElements, down bool) { f.status = map[string]int{"a": map[bool]int{true: 503}[down]} }, `level=WARN msg="storage element fails" url=https://a`, `level=INFO msg="storage element is back" url=https://a`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, out := &fakeElements{}, &logtest.Buffer{}
				cfg := elementsConfig(only("https://a"))
				cfg.MaxAttempts, cfg.Logger = 4, slog.New(slog.NewTextHandler(out, nil))
				c := over(t, cfg, ingestclient.NewFakeIdentity(f.generation(1)))
				f.set(func() { tc.cut(f, true) })
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() {
						for _, err := send(t, c, ingestclient.Meta{}); err != nil; _, err = send(t, c, ingestclient.Meta{}) {
							time.Sleep(100 * time.Millisecond)
						}
					})
				}
				time.Sleep(time.Minute)
				synctest.Wait() // no request is under way that would fail after another one has succeeded
				if text := out.String(); strings.Count(text, tc.begin) != 1 || strings.Count(text, "level=WARN")+strings.Count(text, "level=ERROR") != 1 || strings.Contains(text, tc.end) {
					t.Errorf("during the outage:\n%s", text)
				}
				f.set(func() { tc.cut(f, false) })
				all.Wait()
				if text := out.String(); strings.Count(text, tc.end) != 1 || strings.Count(text, "level=WARN") != 1 {
					t.Errorf("after the outage:\n%s", text)
				}
			})
		})
	}
}
