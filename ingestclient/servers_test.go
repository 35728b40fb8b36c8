package ingestclient_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// authority is a throwaway CA.
type authority struct {
	t    testing.TB
	root *testpki.Pair
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	return &authority{t, testpki.Root(t, "test root")}
}

func newKey(t testing.TB) *ecdsa.PrivateKey { t.Helper(); return testpki.Key(t) }

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root.Cert)
	return p
}

func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	return a.root.Leaf(a.t, name).TLS(a.root)
}

func thumbOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// generation is a generation with a certificate of its own and real connections.
func (a *authority) generation(n uint64) ingestclient.FakeGeneration {
	cert := a.issue("ingester")
	t := &http.Transport{
		TLSClientConfig:       &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: a.pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13},
		ExpectContinueTimeout: time.Minute, MaxIdleConnsPerHost: 16,
	}
	a.t.Cleanup(t.CloseIdleConnections)
	return ingestclient.FakeGeneration{Number: n, Thumb: thumbOf(cert.Leaf), NotAfter: cert.Leaf.NotAfter, Storage: t, Token: t}
}

// serve runs h over mutual TLS until the test ends and returns its URL.
func (a *authority) serve(h http.HandlerFunc) string {
	a.t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{
		Certificates: []tls.Certificate{a.issue("server")}, ClientCAs: a.pool(),
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Listener = lingering{srv.Listener}
	srv.StartTLS()
	a.t.Cleanup(srv.Close)
	return srv.URL
}

// lingering closes connections as nginx does: the peer may finish writing, so
// that what was sent last, such as the alert that refuses its certificate, is
// not lost in a reset.
type lingering struct{ net.Listener }

func (l lingering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingerer{TCPConn: c.(*net.TCPConn)}, nil
}

type lingerer struct {
	*net.TCPConn
	once sync.Once
}

func (c *lingerer) Close() error {
	c.once.Do(func() {
		_ = c.CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		go func() {
			_, _ = io.Copy(io.Discard, c.TCPConn)
			_ = c.TCPConn.Close()
		}()
	})
	return nil
}

// adminServer answers token requests in the JSON dialect with tokens bound to the peer's certificate.
type adminServer struct {
	mu      sync.Mutex
	fetches int
}

func (m *adminServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct{ ClientID, ClientSecret string }
	_ = json.NewDecoder(r.Body).Decode(&struct {
		ID     *string `json:"client_id"`
		Secret *string `json:"client_secret"`
	}{&req.ClientID, &req.ClientSecret})
	if req.ClientID != "sa_test_1" || req.ClientSecret != "s3cret:%&" || r.URL.Path != "/api/v1/auth/token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	m.mu.Lock()
	m.fetches++
	n := m.fetches
	m.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"refresh_token":"r","token_type":"Bearer","expires_in":1800,"issued_at":"2026-01-01T00:00:00.5+00:00"}`,
		boundTo(n, thumbOf(r.TLS.PeerCertificates[0])))
}

func (m *adminServer) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetches
}

// storageServer is a Storage Element that keeps files in memory; before may answer
// instead of it, by returning true.
type storageServer struct {
	mu     sync.Mutex
	golang bool // the Go dialect
	files  map[string]storedFile
	before func(w http.ResponseWriter, r *http.Request) bool
	alter  func(body map[string]any) // changes the answer to an upload
	stale  int                       // requests whose token is bound to another certificate
	loads  int                       // uploads that came in completely
	header http.Header               // of the last upload
	length int64                     // its Content-Length
}

type storedFile struct {
	name, sum, description, version, tags, contentType string
	content                                            []byte
}

func (s *storageServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.before != nil && s.before(w, r) {
		return
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if parts := strings.Split(token, "."); len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		if !strings.Contains(string(payload), thumbOf(r.TLS.PeerCertificates[0])) {
			s.mu.Lock()
			s.stale++
			s.mu.Unlock()
			s.fail(w, 401, "UNAUTHORIZED", "Invalid or expired token")
			return
		}
	}
	rest := strings.TrimPrefix(r.URL.Path, "/api/v1/files/")
	id, download := strings.CutSuffix(rest, "/download")
	switch {
	case r.Method == http.MethodPost && rest == "upload":
		s.upload(w, r)
	case r.Method == http.MethodGet:
		s.read(w, id, download)
	default:
		s.fail(w, 404, "NOT_FOUND", "Resource not found")
	}
}

func (s *storageServer) upload(w http.ResponseWriter, r *http.Request) {
	mr, err := r.MultipartReader()
	if err != nil {
		s.fail(w, 400, "VALIDATION_ERROR", "not multipart")
		return
	}
	var f storedFile
	id := ""
	for {
		part, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return // the client is gone
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return
		}
		switch part.FormName() {
		case "file":
			f.name, f.content, f.contentType = part.FileName(), content, part.Header.Get("Content-Type")
		case "file_id":
			id = string(content)
		case "description":
			f.description = string(content)
		case "version":
			f.version = string(content)
		case "tags":
			f.tags = string(content)
		}
	}
	sum := sha256.Sum256(f.content)
	f.sum = hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	s.header, s.length = r.Header, r.ContentLength
	if id == "" {
		id = fmt.Sprintf("0000-%d", len(s.files)+1)
	}
	if _, ok := s.files[id]; ok {
		s.fail(w, 500, "INTERNAL_ERROR", "File with ID "+id+" already exists")
		return
	}
	if s.files == nil {
		s.files = map[string]storedFile{}
	}
	s.files[id] = f
	s.answer(w, 201, id, f)
}

func (s *storageServer) answer(w http.ResponseWriter, status int, id string, f storedFile) {
	body := map[string]any{"file_id": id, "original_filename": f.name, "checksum": f.sum, "message": "File uploaded successfully"}
	if s.golang {
		body["size"] = len(f.content)
	} else {
		body["file_size"] = len(f.content)
	}
	if s.alter != nil {
		s.alter(body)
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (s *storageServer) read(w http.ResponseWriter, id string, download bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.files[id]
	switch {
	case !ok:
		s.fail(w, 404, "NOT_FOUND", "Resource not found")
	case download:
		_, _ = w.Write(f.content)
	default:
		s.answer(w, 200, id, f)
	}
}

func (s *storageServer) fail(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	if s.golang {
		fmt.Fprintf(w, `{"error":{"code":%q,"message":%q}}`, code, message)
		return
	}
	fmt.Fprintf(w, `{"detail":%q}`, message)
}

// only returns the single stored file.
func (s *storageServer) only(t testing.TB) storedFile {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) != 1 {
		t.Fatalf("%d files are stored, want 1", len(s.files))
	}
	for _, f := range s.files {
		return f
	}
	return storedFile{}
}

// servers are both servers over mutual TLS, and a client of theirs.
type servers struct {
	*authority
	admin   *adminServer
	storage *storageServer
	fake    *ingestclient.FakeIdentity
	cfg     ingestclient.Config
	c       *ingestclient.Client
}

func newServers(t testing.TB, change func(*ingestclient.Config)) *servers {
	t.Helper()
	w := &servers{authority: newAuthority(t), admin: &adminServer{}, storage: &storageServer{}}
	w.cfg = config()
	w.cfg.TokenURL = w.serve(w.admin.ServeHTTP) + "/api/v1/auth/token"
	w.cfg.Elements = only(w.serve(w.storage.ServeHTTP))
	if change != nil {
		change(&w.cfg)
	}
	w.fake = ingestclient.NewFakeIdentity(w.generation(1))
	c, err := ingestclient.NewWithFake(w.cfg, w.fake, mid)
	if err != nil {
		t.Fatal(err)
	}
	w.c = c
	t.Cleanup(func() { _ = c.Close() })
	return w
}

// plainServer runs h without TLS until the test ends and returns its URL.
func plainServer(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}
