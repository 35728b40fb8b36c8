package ingestclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/secret"
)

// seenRequest is a token request as it arrived.
type seenRequest struct {
	header http.Header
	body   string
}

func askOnce(t *testing.T, change func(*ingestclient.Config)) seenRequest {
	t.Helper()
	var seen seenRequest
	w := newServers(t, nil)
	cfg := w.cfg
	cfg.TokenURL = w.serve(func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen = seenRequest{r.Header, string(b)}
		fmt.Fprint(rw, `{"access_token":"tok","expires_in":60}`)
	})
	change(&cfg)
	c, err := ingestclient.NewWithFake(cfg, w.fake, mid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", nil), ingestclient.Meta{}); err != nil {
		t.Fatal(err)
	}
	return seen
}

// A secret with everything that has to be escaped somewhere.
const awkward = `:hC%=#>a9q,Gw unR+&"é`

func TestTokenRequests(t *testing.T) {
	secret := func(c *ingestclient.Config) { c.ClientSecret = fixedSecret(awkward) }

	got := askOnce(t, secret)
	var sent map[string]string
	if err := json.Unmarshal([]byte(got.body), &sent); err != nil || sent["client_secret"] != awkward || sent["client_id"] != "sa_test_1" ||
		sent["grant_type"] != "client_credentials" || got.header.Get("Content-Type") != "application/json" || got.header.Get("Authorization") != "" {
		t.Errorf("JSON: %v, %+v", err, got)
	}

	got = askOnce(t, func(c *ingestclient.Config) { secret(c); c.ClientAuth, c.Scope = "post", "files:write" })
	form, err := url.ParseQuery(got.body)
	if err != nil || form.Get("client_secret") != awkward || form.Get("client_id") != "sa_test_1" || form.Get("grant_type") != "client_credentials" ||
		form.Get("scope") != "files:write" || got.header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		t.Errorf("form: %v, %+v", err, got)
	}

	got = askOnce(t, func(c *ingestclient.Config) { secret(c); c.ClientAuth = "basic" })
	id, pass, ok := (&http.Request{Header: got.header}).BasicAuth()
	pass, err = url.QueryUnescape(pass)
	if !ok || id != "sa_test_1" || pass != awkward || err != nil || strings.Contains(got.body, "client_secret") {
		t.Errorf("basic: %v, %+v", err, got)
	}
	if got.header.Get("Idempotency-Key") != "" {
		t.Error("the transport's hint was sent")
	}
}

func TestTokenRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		status    int
		header    string // WWW-Authenticate
		body      string
		want      error
		code      string
		temporary bool
	}{
		"python 401":     {401, `Bearer error="invalid_client"`, `{"detail":"Invalid client_id or client_secret"}`, ingestclient.ErrCredentials, "invalid_client", false},
		"python 422":     {422, ``, `{"detail":[{"input":{"client_secret":"s3cret:%&"}}]}`, ingestclient.ErrCredentials, "", false},
		"keycloak 401":   {401, ``, `{"error":"unauthorized_client","error_description":"s3cret:%&"}`, ingestclient.ErrCredentials, "unauthorized_client", false},
		"unknown code":   {400, ``, `{"error":"s3cret:%&"}`, ingestclient.ErrCredentials, "", false},
		"python 429":     {429, ``, `{"detail":{"error":"rate_limit_exceeded"}}`, ingestclient.ErrTokenEndpoint, "rate_limit_exceeded", true},
		"proxy":          {502, ``, `<html>`, ingestclient.ErrTokenEndpoint, "", true},
		"redirect":       {307, ``, ``, ingestclient.ErrTokenEndpoint, "", false},
		"wrong path":     {404, ``, `{"detail":"Resource not found"}`, ingestclient.ErrTokenEndpoint, "", false},
		"no content":     {204, ``, ``, ingestclient.ErrTokenAnswer, "", false},
		"not JSON":       {200, ``, `s3cret:%&`, ingestclient.ErrTokenAnswer, "", false},
		"too long":       {200, ``, strings.Repeat("x", 70<<10), ingestclient.ErrTokenAnswer, "", false},
		"too long a 500": {500, ``, strings.Repeat("x", 70<<10), ingestclient.ErrTokenEndpoint, "", true},
		"not a token":    {200, ``, `{"access_token":"s3cret:%&","expires_in":0}`, ingestclient.ErrTokenAnswer, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newServers(t, nil)
			var elsewhere atomic.Int64
			target := w.serve(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
			w.cfg.TokenURL = w.serve(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("WWW-Authenticate", tc.header)
				rw.Header().Set("Location", target)
				rw.WriteHeader(tc.status)
				_, _ = io.WriteString(rw, tc.body)
			})
			c := over(t, w.cfg, w.fake)
			_, err := c.Metadata(t.Context(), "f1")
			auth, ok := errors.AsType[*ingestclient.AuthError](err)
			if !ok || !errors.Is(err, tc.want) || auth.Status != tc.status || auth.Code != tc.code || auth.Temporary != tc.temporary {
				t.Errorf("got %#v", err)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, auth, auth), "s3cret") || elsewhere.Load() != 0 {
				t.Errorf("the secret left: %v, %d requests elsewhere", err, elsewhere.Load())
			}
		})
	}
}

// TestGarbageIsNotQuoted expects that an error has no text of a server that does not
// answer in HTTP.
func TestGarbageIsNotQuoted(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(conn, "s3cret-echo\r\n\r\n")
		_ = conn.Close()
	}))
	defer srv.Close()
	cfg := config()
	cfg.TokenURL, cfg.Elements, cfg.AllowCleartext = srv.URL, only(srv.URL), true
	c, err := ingestclient.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, err = c.Metadata(t.Context(), "f1")
	if !errors.Is(err, ingestclient.ErrTokenEndpoint) || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}

func TestCleartextByName(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/token") {
			fmt.Fprint(w, `{"access_token":"tok"}`)
			return
		}
		(&storageServer{}).ServeHTTP(w, r)
	}))
	defer srv.Close()
	cfg := config()
	cfg.TokenURL, cfg.Elements, cfg.AllowCleartext = srv.URL+"/token", only(srv.URL+"/"), true
	events := make(chan string, 10)
	cfg.Observer.Token = func(_ time.Duration, err error) { events <- fmt.Sprint("token ", err) }
	cfg.Observer.Upload = func(took time.Duration, size int64, attempts int, err error) {
		events <- fmt.Sprint("upload ", took > 0, size, attempts, err)
	}
	c, err := ingestclient.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{}); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for _, want := range []string{"token <nil>", "upload true 10 1 <nil>"} {
		if got := <-events; got != want {
			t.Errorf("observed %q, want %q", got, want)
		}
	}
	if st := c.Stats(); st.Uploads != 1 || st.Bytes != 10 || st.TokenFetches != 1 || st.InFlight != 0 {
		t.Errorf("%+v", st)
	}
}

func TestSecretGetsItsContextFromTheClient(t *testing.T) {
	entered := make(chan struct{})
	cfg := config()
	cfg.ClientSecret = func(ctx context.Context) (secret.String, error) {
		close(entered)
		<-ctx.Done() // ends with Close, not with the caller
		return secret.String{}, ctx.Err()
	}
	c := over(t, cfg, ingestclient.NewFakeIdentity((&fakeServers{}).generation(1)))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := c.Metadata(ctx, "f1"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = c.Close()
}
