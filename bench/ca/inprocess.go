package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/setup"
)

// inProcess measures issuing without a network beside the least that a CA does.
func (b *bench) inProcess(ctx context.Context) (err error) {
	dir := filepath.Join(b.dir, "inprocess")
	a, s, err := b.open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, a.Close) }()
	handler := a.Handler()
	raw, err := newRaw()
	if err != nil {
		return err
	}
	lanes := []struct {
		name    string
		prepare func() (func() error, error)
	}{
		{"x509.CreateCertificate", func() (func() error, error) { return raw.issue, nil }},
		{"x509.CreateCertificate again (control)", func() (func() error, error) { return raw.issue, nil }},
		{"and the request checked, the answer parsed", func() (func() error, error) { return raw.checked, nil }},
		{"POST /sign, in process, to disk", func() (func() error, error) { return b.prepared(ctx, s, handler) }},
	}
	if b.profile != "" {
		f, err := os.Create(b.profile) //nolint:forbidigo // a profile, not state
		if err != nil {
			return err
		}
		defer func() { err = joined(err, f.Close) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	all, err := frame.Rounds(b.order, b.rounds, len(lanes), func(i int) (measurement, error) {
		do, err := lanes[i].prepare()
		if err != nil {
			return measurement{}, err
		}
		t, err := b.runParallel(do)
		if err != nil {
			err = fmt.Errorf("%s: %w", lanes[i].name, err)
		}
		return t, err
	})
	if err != nil {
		return err
	}
	b.Print("\nIn process, %d at a time, %d a turn, %d rounds; ratios paired by round\n", b.clients, b.requests, b.rounds)
	b.Print("  %-44s %8s %8s %10s %8s\n", "", "a second", "×", "CPU µs", "×")
	for i, l := range lanes {
		var rate, cpu []float64
		for _, t := range all[i] {
			rate, cpu = append(rate, t.rate()), append(cpu, t.micros())
		}
		b.Print("  %-44s %8.0f %8.2f %10.0f %8.2f\n", l.name, slices.Max(rate), frame.Paired(all[i], all[0], measurement.rate), slices.Min(cpu), frame.Paired(all[i], all[0], measurement.micros))
	}
	return nil
}

// open makes an authority in dir and opens it in this process.
func (b *bench) open(ctx context.Context, dir string) (*ca.Authority, *server, error) {
	if _, err := setup.Init(ctx, setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		return nil, nil, err
	}
	if err := configure(dir, unlimited); err != nil {
		return nil, nil, err
	}
	s, err := readMaterial(dir)
	if err != nil {
		return nil, nil, err
	}
	a, err := ca.Open(ctx, ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	return a, s, err
}

// prepared makes the requests of one turn before the clock starts.
func (b *bench) prepared(ctx context.Context, s *server, h http.Handler) (func() error, error) {
	bodies := make([][]byte, b.requests)
	for i := range bodies {
		_, csr, err := request()
		if err != nil {
			return nil, err
		}
		if bodies[i], err = s.signBody(csr); err != nil {
			return nil, err
		}
	}
	var next atomic.Int64
	return func() error {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/1.0/sign", bytes.NewReader(bodies[next.Add(1)-1])))
		if w.Code != http.StatusCreated {
			return fmt.Errorf("status %d: %.300s", w.Code, w.Body)
		}
		return nil
	}, nil
}

// runParallel does one thing b.requests times, b.clients at a time.
func (b *bench) runParallel(do func() error) (measurement, error) {
	cpu := frame.OwnCPU()
	wall, err := frame.Together(b.requests, b.clients, do)
	return measurement{seconds: wall.Seconds(), cpu: (frame.OwnCPU() - cpu).Seconds(), n: b.requests}, err
}

// raw is the least that an authority does.
type raw struct {
	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
	leaf   *ecdsa.PrivateKey
	csr    []byte
}

func newRaw() (*raw, error) {
	r := &raw{}
	var err error
	for _, k := range []**ecdsa.PrivateKey{&r.key, &r.leaf} {
		if *k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, r.key.Public(), r.key)
	if err != nil {
		return nil, err
	}
	if r.issuer, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	r.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: serviceNames}, r.leaf)
	return r, err
}

func (r *raw) issue() error { _, err := r.create(); return err }

func (r *raw) create() ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: service}, DNSNames: serviceNames, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, t, r.issuer, r.leaf.Public(), r.key)
}

// checked also proves the possession of the key and reads what it has made.
func (r *raw) checked() error {
	csr, err := x509.ParseCertificateRequest(r.csr)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	der, err := r.create()
	if err != nil {
		return err
	}
	_, err = x509.ParseCertificate(der)
	return err
}
