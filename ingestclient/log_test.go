package ingestclient_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
)

// What an operator reads, over a life with a rotation, a refusal and an outage.
func TestLogLines(t *testing.T) {
	w := newWorld(t, nil)
	out := &locked{}
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
	dead := w.cfg
	dead.TokenURL = "https://127.0.0.1:1/token"
	upload(dead, func(*ingestclient.Client) {})
	for line, times := range map[string]int{
		`level=INFO msg="ingest client opened" client_id=sa_test_1`:                  3,
		`level=INFO msg="TLS identity loaded" protocol=TLSv1.3 serial=`:              3,
		`level=INFO msg="TLS identity taken over" protocol=TLSv1.3 serial=`:          1,
		`level=INFO msg="token acquired" client_id=sa_test_1 expires_in=30m0s`:       2,
		`level=DEBUG msg="token from cache" client_id=sa_test_1`:                     -1,
		`level=ERROR msg="token refused" client_id=sa_test_1 status=401 failures=1`:  1,
		`level=WARN msg="token endpoint unreachable" client_id=sa_test_1 failures=1`: 1,
		`level=INFO msg="ingest client closed" client_id=sa_test_1`:                  3,
	} {
		if n := strings.Count(out.String(), line); n != times && (times >= 0 || n == 0) {
			t.Errorf("%d times, want %d: %s", n, times, line)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}
