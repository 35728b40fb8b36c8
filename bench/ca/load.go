package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// service has a profile in what init writes.
const service = "ingester"

var serviceNames = []string{"ingester", "ingester-module"}

// token is an enrolment token as "artstore-pki token" and "step ca token" make it.
func (s *server) token() (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	s.fresh++
	now := time.Now()
	return jwt.Signed(signer).Claims(map[string]any{
		"iss": provisioner, "sub": service, "aud": "https://localhost/1.0/sign", "sans": serviceNames, "jti": rand.Text() + strconv.Itoa(s.fresh),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}).Serialize()
}

// request is a key with a certificate request for it, as PEM.
func request() (*ecdsa.PrivateKey, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: service}, DNSNames: serviceNames}, key)
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), err
}

// signBody is what POST /sign takes.
func (s *server) signBody(csr string) ([]byte, error) {
	token, err := s.token()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"csr": csr, "ott": token})
}

// client has one connection, from the given address if that is not empty.
func (s *server) client(cert *tls.Certificate, from string) *http.Client {
	config := &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	var dialer net.Dialer
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DialContext: dialer.DialContext, MaxConnsPerHost: 1}}
}

// post returns the answer's status and what it says.
func post(ctx context.Context, c *http.Client, url string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// issued posts and insists on a certificate.
func issued(ctx context.Context, c *http.Client, url string, body []byte) ([]byte, error) {
	status, text, err := post(ctx, c, url, body)
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("%s answers %d: %.300s", url, status, text)
	}
	return text, err
}

// enrolled is a client with a certificate of the service.
func (s *server) enrolled(ctx context.Context) (*http.Client, error) {
	key, csr, err := request()
	if err != nil {
		return nil, err
	}
	body, err := s.signBody(csr)
	if err != nil {
		return nil, err
	}
	stranger := s.client(nil, "")
	defer stranger.CloseIdleConnections()
	text, err := issued(ctx, stranger, s.url+"/1.0/sign", body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Chain []string `json:"certChain"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key}
	for _, c := range answer.Chain {
		block, _ := pem.Decode([]byte(c))
		if block == nil {
			return nil, errors.New("the answer's chain is not PEM")
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	return s.client(cert, ""), nil
}

// measurement is one turn of one lane.
type measurement struct {
	seconds float64
	cpu     float64 // seconds of the server
	median  float64 // seconds of a request
	n       int
}

func (t measurement) rate() float64   { return float64(t.n) / t.seconds }
func (t measurement) micros() float64 { return t.cpu / float64(t.n) * 1e6 }

// work is requests that were made before the clock starts.
type work struct {
	clients []*http.Client
	spare   []*http.Client // take over from clients that have sent most requests
	most    int            // 0 is any number
	url     string
	bodies  [][]byte // one per request
}

func (w work) all() []*http.Client { return slices.Concat(w.clients, w.spare) }

// run sends everything, each client one request after the other.
func (s *server) run(ctx context.Context, w work) (t measurement, err error) {
	before, err := s.cpu()
	if err != nil {
		return t, err
	}
	var next, taken atomic.Int64
	var mu sync.Mutex
	var times []time.Duration
	var errs []error
	var wg sync.WaitGroup
	start := time.Now()
	for _, c := range w.clients {
		wg.Go(func() {
			var mine []time.Duration
			var failed error
			for failed == nil {
				i := int(next.Add(1)) - 1
				if i >= len(w.bodies) {
					break
				}
				if w.most > 0 && len(mine) > 0 && len(mine)%w.most == 0 {
					c = w.spare[taken.Add(1)-1]
				}
				begun := time.Now()
				_, failed = issued(ctx, c, w.url, w.bodies[i])
				mine = append(mine, time.Since(begun))
			}
			mu.Lock()
			defer mu.Unlock()
			times, errs = append(times, mine...), append(errs, failed)
		})
	}
	wg.Wait()
	t = measurement{seconds: time.Since(start).Seconds(), n: len(w.bodies)}
	after, err := s.cpu()
	slices.Sort(times)
	t.cpu, t.median = (after - before).Seconds(), times[len(times)/2].Seconds()
	return t, errors.Join(append(errs, err)...)
}
