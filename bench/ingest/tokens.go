package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/auth"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/pkitest"
)

const (
	outageFor = 5 * time.Second
	callers   = 100
	uploaders = 8
	rotations = 20
	every     = 500 * time.Millisecond
)

// services are a token endpoint and a Storage Element in this process, which
// binds tokens to the certificate they were asked for with (RFC 8705).
type services struct {
	*httptest.Server
	down              atomic.Bool
	fetches, rejected atomic.Int64
}

func newServices(dir string) (*services, error) {
	config, err := plainTLS(dir)
	if err != nil {
		return nil, err
	}
	s := &services{}
	small := sha256.Sum256(make([]byte, smallSize))
	store := discard(map[int64]string{smallSize: hex.EncodeToString(small[:])})
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tokenPath, func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		if s.down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answerToken(w, thumbprint(r))
	})
	mux.HandleFunc("POST "+uploadPath, func(w http.ResponseWriter, r *http.Request) {
		if strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") != thumbprint(r) {
			s.rejected.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		store(w, r)
	})
	s.Server = httptest.NewUnstartedServer(mux)
	s.TLS = config
	s.StartTLS()
	s.URL = strings.Replace(s.URL, "127.0.0.1", host, 1)
	return s, nil
}

func thumbprint(r *http.Request) string {
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}

// stage is an authority, one client's files and the services.
func (b *bench) stage(name string) (*pkitest.CA, job, *services, error) {
	j := job{Client: filepath.Join(b.dir, name, "client"), Server: filepath.Join(b.dir, name, "server"), Workers: uploaders}
	ca := pkitest.NewCA(pkitest.Example())
	if err := errors.Join(issue(ca, j.Client, "ingester"), issue(ca, j.Server, "storage-element")); err != nil {
		return nil, j, nil, err
	}
	s, err := newServices(j.Server)
	if err == nil {
		j.URL = s.URL
	}
	return ca, j, s, err
}

func (j job) oauth2(ctx context.Context, transport http.RoundTripper) oauth2.TokenSource {
	cfg := clientcredentials.Config{ClientID: "sa_bench", ClientSecret: "bench", TokenURL: j.URL + tokenPath, AuthStyle: oauth2.AuthStyleInParams}
	return cfg.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: transport}))
}

// tokenProvider is a token provider for google's cache, which has none for client credentials.
type tokenProvider struct {
	url    string
	client *http.Client
}

func (a tokenProvider) Token(ctx context.Context) (*auth.Token, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return &auth.Token{Value: "bench", Expiry: time.Now().Add(time.Hour)}, nil
}

// outage counts what reaches a token endpoint that answers 500 at once.
func (b *bench) outage(ctx context.Context) error {
	_, j, s, err := b.stage("outage")
	if err != nil {
		return err
	}
	defer s.Close()
	s.down.Store(true)
	config, err := plainTLS(j.Client)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	c, stop, err := client(ctx, j, ingestclient.Config{PoolSize: callers})
	if err != nil {
		return err
	}
	defer stop()
	source := j.oauth2(ctx, transport)
	cached := auth.NewCachedTokenProvider(tokenProvider{j.URL + tokenPath, &http.Client{Transport: transport}}, nil)
	b.Print("\nToken endpoint down (500 at once), %d callers in a loop for %v\n  %-34s %12s %14s\n", callers, outageFor, "", "requests/s", "answers/s")
	for _, one := range []struct {
		name string
		ask  func(context.Context) error
	}{
		{"ingestclient", func(ctx context.Context) error {
			_, err := c.Upload(ctx, ingestclient.ReaderContent("x", bytes.NewReader(make([]byte, smallSize)), smallSize), ingestclient.Meta{})
			return err
		}},
		{"x/oauth2", func(context.Context) error { _, err := source.Token(); return err }},
		{"google auth", func(ctx context.Context) error { _, err := cached.Token(ctx); return err }},
	} {
		before, answers := s.fetches.Load(), callConcurrently(ctx, one.ask)
		b.Print("  %-34s %12.1f %14.0f\n", one.name, float64(s.fetches.Load()-before)/outageFor.Seconds(), float64(answers)/outageFor.Seconds())
	}
	return ctx.Err()
}

// callConcurrently has the callers ask for the time of the outage, and counts their answers.
func callConcurrently(ctx context.Context, ask func(context.Context) error) (answers int64) {
	ctx, cancel := context.WithTimeout(ctx, outageFor)
	defer cancel()
	var n atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if ask(ctx) != nil {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return n.Load()
}

// rotation swaps the client's certificate under uploads with bound tokens.
func (b *bench) rotation(ctx context.Context) error {
	b.Print("\n%d rotations in %v, %d uploaders, tokens bound to the certificate\n  %-34s %9s %9s %9s %9s\n",
		rotations, rotations*every, uploaders, "", "uploads", "401", "failed", "fetches")
	for _, one := range []struct {
		name string
		make func(context.Context, job) (*rotatingClient, error)
	}{{"ingestclient", rotatingOurs}, {"x/oauth2, idle connections closed", rotatingOAuth2}} {
		ca, j, s, err := b.stage("rotation-" + strings.Fields(one.name)[0][:1])
		if err != nil {
			return err
		}
		r, err := one.make(ctx, j)
		if err != nil {
			s.Close()
			return err
		}
		good, bad, err := r.under(ctx, ca, j)
		r.stop()
		b.Print("  %-34s %9d %9d %9d %9d\n", one.name, good, s.rejected.Load(), bad, s.fetches.Load())
		s.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// rotatingClient is a client whose files change under it.
type rotatingClient struct {
	upload  func(context.Context) error
	swapped func() error // is told of a change, if it has to be
	stop    func()
}

// under swaps the files of j's client under load and counts the uploads.
func (r *rotatingClient) under(ctx context.Context, ca *pkitest.CA, j job) (good, bad int64, err error) {
	loading, cancel := context.WithCancel(ctx)
	defer cancel()
	var ok, failed atomic.Int64
	var wg sync.WaitGroup
	for range j.Workers {
		wg.Go(func() {
			for loading.Err() == nil {
				// On ctx: what is in flight when the load ends is let finish.
				if r.upload(ctx) == nil {
					ok.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range rotations {
		<-tick.C
		if err = errors.Join(issue(ca, j.Client, "ingester"), r.swapped()); err != nil {
			break
		}
	}
	<-tick.C
	cancel()
	wg.Wait()
	return ok.Load(), failed.Load(), err
}

func rotatingOurs(ctx context.Context, j job) (*rotatingClient, error) {
	c, stop, err := client(ctx, j, ingestclient.Config{})
	content := make([]byte, smallSize)
	upload := func(ctx context.Context) error {
		_, err := c.Upload(ctx, ingestclient.ReaderContent("x", bytes.NewReader(content), int64(len(content))), ingestclient.Meta{})
		return err
	}
	return &rotatingClient{upload, func() error { return nil }, stop}, err // it sees the files by itself
}

// rotatingOAuth2 is the advice one finds: GetClientCertificate, and idle connections closed after each change.
func rotatingOAuth2(ctx context.Context, j job) (*rotatingClient, error) {
	config, err := plainTLS(j.Client)
	if err != nil {
		return nil, err
	}
	var current atomic.Pointer[tls.Certificate]
	current.Store(&config.Certificates[0])
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return current.Load(), nil }
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: uploaders}
	authorised := &http.Client{Transport: &oauth2.Transport{Source: j.oauth2(ctx, transport), Base: transport}}
	content := make([]byte, smallSize)
	upload := func(ctx context.Context) error {
		return post(ctx, authorised, j.URL, func() (io.Reader, int64, string, error) { return buffered("x", strings.NewReader(string(content))) })
	}
	swapped := func() error {
		next, err := plainTLS(j.Client)
		if err == nil {
			current.Store(&next.Certificates[0])
			transport.CloseIdleConnections()
		}
		return err
	}
	return &rotatingClient{upload, swapped, transport.CloseIdleConnections}, nil
}
