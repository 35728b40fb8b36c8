package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestFolderSwapsWholeSets(t *testing.T) {
	ca, err := newAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	var f *folder
	for serial := range int64(3) {
		id, err := ca.issue("client", serial+1)
		if err != nil {
			t.Fatal(err)
		}
		if f == nil {
			f, err = newFolder(t.TempDir()+"/secret", id)
		} else {
			err = f.swap(id)
		}
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.LoadX509KeyPair(f.cert(), f.key())
		if err != nil || !pair.Leaf.Equal(id.cert.Leaf) || len(pair.Certificate) != 2 {
			t.Fatalf("swap %d: %v", serial, err)
		}
		if info, err := os.Stat(f.key()); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key: %v, %v", info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil || len(entries) != 5 { // three names, ..data, one version
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if conf, err := f.clientConfig(); err != nil || !conf.RootCAs.Equal(identity{roots: []*x509.Certificate{ca.root}}.pool()) {
		t.Errorf("bundle: %v", err)
	}
}

// A lane must report what its server refused, also where a TLS 1.3 client does not see it at once.
func TestLaneReportsRefusals(t *testing.T) {
	r, err := newRig(t.TempDir() + "/rig")
	if err != nil {
		t.Fatal(err)
	}
	other, err := newAuthority("other")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := other.issue("stranger", 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{inMemory, loopback} {
		l, err := newLane(t.Context(), served("static", pattern, staticConfig(r)), network)
		if err != nil {
			t.Fatal(err)
		}
		conf := r.clientConfig(nil)
		if resumed, err := l.shake(t.Context(), conf); err != nil || resumed {
			t.Errorf("%s: resumed %t, %v", network, resumed, err)
		}
		conf.Certificates = []tls.Certificate{stranger.cert}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger.cert, nil }
		if _, err := l.shake(t.Context(), conf); err == nil {
			t.Errorf("%s: a stranger was served", network)
		}
		l.shutdown()
	}
	if _, err := newLane(t.Context(), variant{}, "udp"); err == nil {
		t.Error("an unknown network was accepted")
	}
}

func TestFollow(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("..."), iotestErr{})
	for name, c := range map[string]struct {
		body io.Reader
		good bool
	}{
		"finished": {strings.NewReader("...!"), true},
		"early":    {strings.NewReader("..."), false},
		"empty":    {strings.NewReader(""), false},
		"broken":   {broken, false},
	} {
		if err := follow(io.NopCloser(c.body)); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errors.New("cut") }

func TestPauseAndEventuallyStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if !pause(ctx, time.Nanosecond) {
		t.Error("pause gave up")
	}
	if err := eventually(ctx, func() bool { return true }); err != nil {
		t.Error(err)
	}
	cancel()
	if pause(ctx, time.Hour) {
		t.Error("pause outlived its context")
	}
	if err := eventually(ctx, func() bool { return false }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStaleIsJudgedByTheStartOfARequest(t *testing.T) {
	ca, err := newAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range strategies() {
		if s.name != oursName {
			continue
		}
		out, err := s.runScenario(t.Context(), rotationScenario{ca, t.TempDir() + "/load", true, 1})
		if err != nil || out.requests == 0 || out.failed != 0 || out.stale != 0 || out.old != 0 || out.stream != nil {
			t.Errorf("%+v, %v", out, err)
		}
	}
}
