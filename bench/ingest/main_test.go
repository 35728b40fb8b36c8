package main

import (
	"bytes"
	"context"
	"io"
	"mime"
	"mime/multipart"
	"os"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// TestMain lets the lanes find the program: it is what the tests are.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "-be" {
		main()
		return
	}
	m.Run()
}

// Every lane moves its bytes: the server refuses a length that it does not know.
func TestUploads(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, []string{"-quick", "-size", "1048576", "-files", "20", "-table", "large,small"}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"crypto/tls copy again (control)", "ingestclient, HTTP/2", "http.Transport, default"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

// What no clock can change: bound tokens survive rotations in ours, and do not elsewhere.
func TestBoundTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds a client")
	}
	b := &bench{Printer: frame.Printer{W: io.Discard}, dir: t.TempDir()}
	for name, one := range map[string]struct {
		make func(context.Context, job) (*rotatingClient, error)
		ours bool
	}{"ours": {rotatingOurs, true}, "x/oauth2": {rotatingOAuth2, false}} {
		ca, j, s, err := b.stage(strings.ReplaceAll(name, "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		r, err := one.make(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		good, bad, err := r.under(t.Context(), ca, j)
		r.stop()
		s.Close()
		t.Logf("%s: %d uploads, %d failed, %d × 401, %d fetches", name, good, bad, s.rejected.Load(), s.fetches.Load())
		switch {
		case err != nil || good == 0:
			t.Errorf("%s: %d uploads, %v", name, good, err)
		case one.ours && (bad != 0 || s.rejected.Load() != 0 || s.fetches.Load() > rotations+1):
			t.Errorf("ours: %d failed, %d × 401, %d fetches for %d rotations", bad, s.rejected.Load(), s.fetches.Load(), rotations)
		case !one.ours && s.rejected.Load() == 0:
			t.Error("the comparison has no power: x/oauth2 saw no 401")
		}
	}
}

func TestForms(t *testing.T) {
	for name, make := range map[string]form{"buffered": buffered, "piped": piped} {
		body, _, contentType, err := make("a.bin", strings.NewReader("content"))
		if err != nil {
			t.Fatal(err)
		}
		_, params, err := mime.ParseMediaType(contentType)
		if err != nil {
			t.Fatal(err)
		}
		part, err := multipart.NewReader(body, params["boundary"]).NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(part); err != nil || string(got) != "content" || part.FileName() != "a.bin" {
			t.Errorf("%s: %q of %q, %v", name, got, part.FileName(), err)
		}
	}
}

func TestBest(t *testing.T) {
	rounds := []measurement{{2, frame.Usage{CPU: 3, Memory: 4}}, {1, frame.Usage{CPU: 5, Memory: 6}}}
	if got := best(rounds); got != (measurement{1, frame.Usage{CPU: 3, Memory: 6}}) {
		t.Errorf("best = %+v", got)
	}
	if got := frame.Paired(rounds[1:], rounds[:1], measurement.speed); got != 2 {
		t.Errorf("half the time is %v of the speed", got)
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-size", "1"}, {"-files", "0"}, {"-rounds", "0"}, {"x"}, {"-nonsense"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("parse(%q) was accepted", args)
		}
	}
}
