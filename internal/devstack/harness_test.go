package devstack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// stack is both services over mutual TLS, and a client with its own certificate.
type stack struct {
	ca         *ingesttest.CA
	admin      *devstack.Admin
	storage    *devstack.Storage
	adminURL   string
	storageURL string
	client     *http.Client
	id         string
	secret     secret.String
	logs       *logtest.Buffer
}

// start starts both services. Fields of the two configurations that are needed and not set get a value.
func start(t testing.TB, ac devstack.AdminConfig, sc devstack.StorageConfig) *stack {
	t.Helper()
	s := &stack{ca: ingesttest.NewCA(t), logs: &logtest.Buffer{}}
	logger := slog.New(slog.NewTextHandler(s.logs, nil))
	if ac.Dir == "" {
		ac.Dir = t.TempDir()
	}
	ac.Logger = logger
	if ac.BcryptCost == 0 {
		ac.BcryptCost = bcrypt.MinCost
	}
	var err error
	s.admin, err = devstack.NewAdmin(ac)
	check(t, err)
	s.adminURL = serve(t, s.ca, "admin-module", s.admin.Handler(), "ingester", "intruder", "storage-element")
	if sc.Dir == "" {
		sc.Dir = t.TempDir()
	}
	if sc.JWKSTransport == nil {
		sc.JWKSTransport = transport(t, s.ca, "storage-element")
	}
	sc.JWKSURL, sc.Logger = s.adminURL+devstack.JWKSPath, logger
	s.storage, err = devstack.NewStorage(sc)
	check(t, err)
	s.storageURL = serve(t, s.ca, "storage-element", s.storage.Handler(), "ingester", "intruder")
	s.client = &http.Client{Transport: transport(t, s.ca, "ingester")}
	s.id, s.secret, err = s.admin.AddAccount("ingester")
	check(t, err)
	return s
}

func identity(t testing.TB, ca *ingesttest.CA, name string) *rotation.Identity {
	t.Helper()
	id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(ca.Material(t, name)), Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	t.Cleanup(func() { check(t, id.Close()) })
	return id
}

func transport(t testing.TB, ca *ingesttest.CA, name string) http.RoundTripper {
	t.Helper()
	tr, err := identity(t, ca, name).Transport(rotation.TransportOptions{})
	check(t, err)
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func serve(t testing.TB, ca *ingesttest.CA, name string, h http.Handler, peers ...string) string {
	t.Helper()
	server, err := identity(t, ca, name).Server(rotation.ServerOptions{Authorize: rotation.AllowNames(peers...)})
	check(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = httpserver.Serve(ctx, ln, httpserver.Config{Handler: h, Server: server, Drain: time.Second, Logger: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() { stop(); <-done })
	return "https://" + ln.Addr().String()
}

// response is an answer read to its end.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (r response) json(t testing.TB) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(r.body, &out); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
	return out
}

// code returns the name of the problem in the dialect: the code in Go, the detail in Python.
func (r response) code(t testing.TB) string {
	t.Helper()
	body := r.json(t)
	if e, ok := body["error"].(map[string]any); ok {
		return e["code"].(string)
	}
	return fmt.Sprint(body["detail"])
}

func (s *stack) do(t testing.TB, method, url, contentType string, body io.Reader, edit ...func(*http.Request)) response {
	t.Helper()
	r, err := s.try(t, method, url, contentType, body, edit...)
	check(t, err)
	return r
}

func (s *stack) try(t testing.TB, method, url, contentType string, body io.Reader, edit ...func(*http.Request)) (response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	check(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for _, e := range edit {
		e(req)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, data}, err
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func (s *stack) askJSON(t testing.TB, body any) response {
	t.Helper()
	data, err := json.Marshal(body)
	check(t, err)
	return s.do(t, http.MethodPost, s.adminURL+devstack.TokenPath, "application/json", bytes.NewReader(data))
}

func (s *stack) askForm(t testing.TB, form url.Values, edit ...func(*http.Request)) response {
	t.Helper()
	return s.do(t, http.MethodPost, s.adminURL+devstack.FormTokenPath, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()), edit...)
}

// token asks with the scopes given, all of them if none is.
func (s *stack) token(t testing.TB, scopes ...string) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.id}, "client_secret": {s.secret.Expose()}}
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	r := s.askForm(t, form)
	if r.status != http.StatusOK {
		t.Fatalf("token: %d %s", r.status, r.body)
	}
	return r.json(t)["access_token"].(string)
}

// multipartBody is a form with the file last.
func multipartBody(t testing.TB, name string, content []byte, fields ...string) (body []byte, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		check(t, w.WriteField(fields[i], fields[i+1]))
	}
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", multipart.FileContentDisposition("file", name))
	h.Set("Content-Type", "text/plain")
	p, err := w.CreatePart(h)
	check(t, err)
	_, err = p.Write(content)
	check(t, err)
	check(t, w.Close())
	return b.Bytes(), w.FormDataContentType()
}

func (s *stack) upload(t testing.TB, token, name string, content []byte, fields ...string) response {
	t.Helper()
	r, err := s.tryUpload(t, token, name, content, fields...)
	check(t, err)
	return r
}

func (s *stack) tryUpload(t testing.TB, token, name string, content []byte, fields ...string) (response, error) {
	t.Helper()
	body, ct := multipartBody(t, name, content, fields...)
	return s.try(t, http.MethodPost, s.storageURL+"/api/v1/files/upload", ct, bytes.NewReader(body), bearer(token))
}

func (s *stack) file(id string) string { return s.storageURL + "/api/v1/files/" + id }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want[T comparable](t testing.TB, what string, got, expected T) {
	t.Helper()
	if got != expected {
		t.Errorf("%s: got %v, want %v", what, got, expected)
	}
}
