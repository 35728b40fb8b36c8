package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
)

// demoReport is what the end of the demo prints.
type demoReport struct {
	uploads, bytes, failures int64
	p50, p99                 time.Duration
	errors                   error
	fetches, fetchFailures   int64
	taken, left              []string
	stored                   int // files on disk whose content was read back and fits its checksum
	storedErr                error
	services                 []servedCertificate
	elapsed                  time.Duration
}

// servedCertificate is what one service shows to a client now.
type servedCertificate struct {
	name      string
	rotations int64
	leaf      *x509.Certificate
	err       error
}

// report collects the figures; it asks the servers and the disk, not our own memory of them.
func (w *world) report(ctx context.Context, l *load, p *plan) *demoReport {
	stats := w.client.Stats()
	q := l.quantiles(0.50, 0.99)
	r := &demoReport{
		uploads: l.uploads.Load(), bytes: l.bytes.Load(), failures: l.failures.Load(),
		p50: q[0], p99: q[1], errors: l.firstErrors(),
		fetches: stats.TokenFetches, fetchFailures: stats.TokenFailures,
		elapsed: time.Since(p.start),
	}
	r.taken, r.left = p.done()
	r.stored, r.storedErr = w.storage.Verify(ctx)
	for _, s := range w.services {
		c := servedCertificate{name: s.name, rotations: s.rotations.Load()}
		if s.healthPath == "" { // a client: nobody connects to it
			c.leaf = s.identity.Current().Leaf()
		} else {
			c.leaf, c.err = w.served(ctx, s)
		}
		r.services = append(r.services, c)
	}
	return r
}

// served connects as the ingester does and returns the certificate it is shown.
func (w *world) served(ctx context.Context, s *demoService) (*x509.Certificate, error) {
	transport := w.ingester.identity.Transport(rotation.TransportOptions{})
	defer func() { _ = transport.Close() }() // one request; nothing is left to lose
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+s.healthPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking %s for its health: status %d", s.name, resp.StatusCode)
	}
	return resp.TLS.PeerCertificates[0], nil
}

func (r *demoReport) failed() bool {
	if r.failures > 0 || r.fetchFailures > 0 || r.storedErr != nil || int64(r.stored) != r.uploads || r.uploads == 0 {
		return true
	}
	for _, s := range r.services {
		if s.err != nil {
			return true
		}
	}
	return false
}

func (r *demoReport) write(u *ui) error {
	var rotations []string
	for _, s := range r.services {
		rotations = append(rotations, fmt.Sprintf("%s %d", s.name, s.rotations))
	}
	lines := []string{
		"",
		fmt.Sprintf("uploads        %d in %s (%.1f/s), each compared by size and SHA-256", r.uploads, r.elapsed.Round(time.Second), float64(r.uploads)/r.elapsed.Seconds()),
		fmt.Sprintf("bytes          %s", sizeText(r.bytes)),
		fmt.Sprintf("read back      %d files on disk fit their checksum", r.stored),
		fmt.Sprintf("latency        p50 %s, p99 %s", r.p50.Round(100*time.Microsecond), r.p99.Round(100*time.Microsecond)),
		fmt.Sprintf("token fetches  %d (%d failed)", r.fetches, r.fetchFailures),
		"rotations      " + strings.Join(rotations, ", "),
	}
	for _, s := range r.taken {
		lines = append(lines, "changed        "+s)
	}
	for _, s := range r.left {
		lines = append(lines, "not reached    "+s+" (a longer --duration does)")
	}
	lines = append(lines, fmt.Sprintf("failures       %d", r.failures), "", "who serves which certificate until when")
	for _, s := range r.services {
		lines = append(lines, "  "+s.line())
	}
	for _, line := range lines {
		if err := u.print("%s", line); err != nil {
			return err
		}
	}
	for _, err := range []error{r.errors, r.storedErr} {
		if err != nil {
			u.say("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	return nil
}

func (s *servedCertificate) line() string {
	if s.err != nil {
		return fmt.Sprintf("%-16s no answer: %v", s.name, s.err)
	}
	return fmt.Sprintf("%-16s serial %s…  issuer %s  until %s", s.name,
		short(pemfile.Serial(s.leaf)), s.leaf.Issuer.CommonName, s.leaf.NotAfter.Local().Format("15:04:05"))
}

// sizeText prints bytes in binary units.
func sizeText(n int64) string {
	const unit = 1024
	switch {
	case n < unit:
		return fmt.Sprintf("%d B", n)
	case n < unit*unit:
		return fmt.Sprintf("%.1f KiB", float64(n)/unit)
	case n < unit*unit*unit:
		return fmt.Sprintf("%.1f MiB", float64(n)/(unit*unit))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(unit*unit*unit))
}
