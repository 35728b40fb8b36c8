package devstack_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/secret"
)

func claimsOf(t *testing.T, token string) (header, body map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	for i, into := range []*map[string]any{&header, &body} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		check(t, err)
		check(t, json.Unmarshal(data, into))
	}
	return header, body
}

func TestTokenPythonDialect(t *testing.T) {
	s := start(t, devstack.AdminConfig{BoundTokens: true, TokenLifetime: time.Minute}, devstack.StorageConfig{})
	good := map[string]string{"client_id": s.id, "client_secret": s.secret.Expose(), "extra": "ignored"}
	r := s.askJSON(t, good)
	want(t, "status", r.status, http.StatusOK)
	body := r.json(t)
	want(t, "token_type", body["token_type"].(string), "Bearer")
	want(t, "expires_in", body["expires_in"].(float64), 60)
	for _, field := range []string{"refresh_token", "issued_at"} {
		if body[field] == "" {
			t.Errorf("%s is missing", field)
		}
	}
	header, c := claimsOf(t, body["access_token"].(string))
	want(t, "alg", header["alg"].(string), "RS256")
	want(t, "lifetime", c["exp"].(float64)-c["iat"].(float64), 60)
	want(t, "type", c["type"].(string), "service_account")
	want(t, "scope", c["scope"].(string), "files:read files:write storage:read")
	if header["kid"] == "" || c["cnf"].(map[string]any)["x5t#S256"] == "" {
		t.Errorf("kid or binding is missing: %v %v", header, c)
	}

	for name, in := range map[string]map[string]string{
		"wrong secret": {"client_id": s.id, "client_secret": "nonsense"},
		"unknown id":   {"client_id": "sa_dev_nobody_00000000", "client_secret": s.secret.Expose()},
		"long secret":  {"client_id": s.id, "client_secret": s.secret.Expose() + strings.Repeat("x", 100)},
	} {
		r := s.askJSON(t, in)
		want(t, name, r.status, http.StatusUnauthorized)
		want(t, name, r.code(t), "Invalid client_id or client_secret")
		want(t, name, r.header.Get("WWW-Authenticate"), `Bearer error="invalid_client"`)
		want(t, name, r.header.Get("Cache-Control"), "no-store")
	}
	r = s.askJSON(t, map[string]string{"client_secret": "canary-secret", "grant_type": "password"})
	want(t, "malformed", r.status, http.StatusUnprocessableEntity)
	if bytes.Contains(r.body, []byte("canary")) || len(r.json(t)["detail"].([]any)) != 2 {
		t.Errorf("422 body %s: want two entries and no secret", r.body)
	}
	r = s.do(t, http.MethodPost, s.adminURL+devstack.TokenPath, "text/plain", strings.NewReader(`{"client_id":"a","client_secret":"b"}`))
	want(t, "not JSON", r.status, http.StatusUnprocessableEntity)
	r = s.do(t, http.MethodPost, s.adminURL+devstack.TokenPath, "application/json", strings.NewReader(strings.Repeat(" ", 20<<10)))
	want(t, "too large", r.status, http.StatusRequestEntityTooLarge)
	want(t, "method", s.do(t, http.MethodGet, s.adminURL+devstack.TokenPath, "", nil).status, http.StatusMethodNotAllowed)
	want(t, "path", s.do(t, http.MethodGet, s.adminURL+"/nothing", "", nil).status, http.StatusNotFound)

	fresh, err := s.admin.ResetSecret(s.id)
	check(t, err)
	want(t, "old secret", s.askJSON(t, good).status, http.StatusUnauthorized)
	good["client_secret"] = fresh.Expose()
	want(t, "new secret", s.askJSON(t, good).status, http.StatusOK)
	check(t, s.admin.Suspend(s.id))
	want(t, "suspended", s.askJSON(t, good).status, http.StatusUnauthorized)
	if strings.Contains(s.logs.String(), fresh.Expose()) || strings.Contains(s.logs.String(), "eyJ") {
		t.Error("a secret is in the log")
	}
}

func TestTokenGoDialect(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	post := func(edit func(url.Values)) url.Values {
		v := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.id}, "client_secret": {s.secret.Expose()}}
		edit(v)
		return v
	}
	basic := func(id, secret string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret)) }
	}
	r := s.askForm(t, post(func(v url.Values) { v.Set("scope", "files:read") }))
	want(t, "scope", r.json(t)["scope"].(string), "files:read")
	want(t, "cache", r.header.Get("Cache-Control"), "no-store")
	want(t, "expires_in", r.json(t)["expires_in"].(float64), 300)
	r = s.askForm(t, url.Values{"grant_type": {"client_credentials"}}, basic(s.id, s.secret.Expose()))
	want(t, "basic", r.status, http.StatusOK)

	for _, tt := range []struct {
		name   string
		form   url.Values
		edit   []func(*http.Request)
		status int
		code   string
	}{
		{"no grant", post(func(v url.Values) { v.Del("grant_type") }), nil, 400, "invalid_request"},
		{"other grant", post(func(v url.Values) { v.Set("grant_type", "password") }), nil, 400, "unsupported_grant_type"},
		{"repeated", post(func(v url.Values) { v.Add("client_id", "again") }), nil, 400, "invalid_request"},
		{"unknown scope", post(func(v url.Values) { v.Set("scope", "admin") }), nil, 400, "invalid_scope"},
		{"wrong secret", post(func(v url.Values) { v.Set("client_secret", "no") }), nil, 401, "invalid_client"},
		{"no client", post(func(v url.Values) { v.Del("client_id") }), nil, 401, "invalid_client"},
		{"two ways", post(func(url.Values) {}), []func(*http.Request){basic(s.id, "x")}, 400, "invalid_request"},
		{"two ids", url.Values{"grant_type": {"client_credentials"}, "client_id": {"other"}}, []func(*http.Request){basic(s.id, "x")}, 400, "invalid_request"},
		{"bad escape", url.Values{"grant_type": {"client_credentials"}}, []func(*http.Request){func(r *http.Request) { r.SetBasicAuth("%zz", "x") }}, 400, "invalid_request"},
		{"JSON", nil, []func(*http.Request){func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }}, 400, "invalid_request"},
		{"large", url.Values{"x": {strings.Repeat("x", 20<<10)}}, nil, 413, "invalid_request"},
	} {
		r := s.askForm(t, tt.form, tt.edit...)
		want(t, tt.name, r.status, tt.status)
		want(t, tt.name, r.json(t)["error"].(string), tt.code)
		if tt.status == http.StatusUnauthorized && r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", tt.name)
		}
	}
}

// Bound tokens cannot be made for a peer that showed no certificate.
func TestBoundTokenNeedsACertificate(t *testing.T) {
	a, err := devstack.NewAdmin(devstack.AdminConfig{Dir: t.TempDir(), BoundTokens: true, BcryptCost: bcrypt.MinCost})
	check(t, err)
	id, plain, err := a.AddAccount("x")
	check(t, err)
	body, err := json.Marshal(map[string]string{"client_id": id, "client_secret": plain.Expose()})
	check(t, err)
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, devstack.TokenPath, bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	a.Handler().ServeHTTP(w, req)
	want(t, "status", w.Code, http.StatusUnauthorized)
}

func TestAccountsSurviveARestartWithoutTheirSecrets(t *testing.T) {
	dir := t.TempDir()
	s := start(t, devstack.AdminConfig{Dir: dir}, devstack.StorageConfig{})
	again, err := devstack.NewAdmin(devstack.AdminConfig{Dir: dir, BcryptCost: bcrypt.MinCost})
	check(t, err)
	s.adminURL = serve(t, s.ca, "admin-module", again.Handler(), "ingester")
	s.token(t)
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		check(t, err)
		if bytes.Contains(data, []byte(s.secret.Expose())) {
			t.Errorf("%s holds the secret", path)
		}
		info, err := d.Info()
		check(t, err)
		want(t, path, info.Mode().Perm(), 0o600)
		return nil
	}))
	if _, _, err := again.AddAccount("no spaces"); err == nil {
		t.Error("a name with a space was accepted")
	}
	if err := again.Suspend("nobody"); err == nil {
		t.Error("an unknown account was suspended")
	}
	if _, err := again.ResetSecret("nobody"); err == nil {
		t.Error("an unknown account got a secret")
	}
}

func TestAccountIsFoundByItsSecret(t *testing.T) {
	admin, err := devstack.NewAdmin(devstack.AdminConfig{Dir: t.TempDir(), BcryptCost: bcrypt.MinCost})
	check(t, err)
	first, firstSecret, err := admin.AddAccount("ingester")
	check(t, err)
	second, secondSecret, err := admin.AddAccount("ingester")
	check(t, err)
	for id, given := range map[string]secret.String{first: firstSecret, second: secondSecret} {
		found, err := admin.FindAccount(t.Context(), "ingester", given)
		check(t, err)
		want(t, "account", found, id)
	}
	check(t, admin.Suspend(second))
	for what, look := range map[string]func() (string, error){
		"another name":  func() (string, error) { return admin.FindAccount(t.Context(), "query", firstSecret) },
		"wrong secret":  func() (string, error) { return admin.FindAccount(t.Context(), "ingester", secret.New("x")) },
		"suspended one": func() (string, error) { return admin.FindAccount(t.Context(), "ingester", secondSecret) },
	} {
		if id, err := look(); id != "" || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %q, %v; want fs.ErrNotExist", what, id, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := admin.FindAccount(ended, "ingester", secret.New("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestNewAdminRefusesDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string) error{
		"accounts": func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "accounts.json"), []byte("["), 0o600)
		},
		"key list": func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "keys", "signing-keys.json"), []byte("{"), 0o600)
		},
		"missing key": func(t *testing.T, dir string) error {
			keys, err := filepath.Glob(filepath.Join(dir, "keys", "*.pem"))
			check(t, err)
			return os.Remove(keys[0])
		},
		"damaged key": func(t *testing.T, dir string) error {
			keys, err := filepath.Glob(filepath.Join(dir, "keys", "*.pem"))
			check(t, err)
			return os.WriteFile(keys[0], []byte("-----BEGIN"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := devstack.NewAdmin(devstack.AdminConfig{Dir: dir, BcryptCost: bcrypt.MinCost})
			check(t, err)
			check(t, damage(t, dir))
			if _, err := devstack.NewAdmin(devstack.AdminConfig{Dir: dir, BcryptCost: bcrypt.MinCost}); err == nil {
				t.Error("opened")
			}
		})
	}
	for _, c := range []devstack.AdminConfig{{}, {Dir: t.TempDir(), TokenLifetime: 1}, {Dir: t.TempDir(), BcryptCost: 99}} {
		if _, err := devstack.NewAdmin(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// The next key is in the set before it signs, and the last one as long as a token that it has signed
// can be valid. A restart in between changes neither.
func TestSigningKeysOverlap(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		conf := devstack.AdminConfig{Dir: dir, BcryptCost: bcrypt.MinCost, TokenLifetime: time.Minute, SigningKeyRotation: time.Hour}
		a, err := devstack.NewAdmin(conf)
		check(t, err)
		done := make(chan error, 1)
		go func() { done <- a.Run(t.Context()) }()
		id, plain, err := a.AddAccount("x")
		check(t, err)
		issue := func() string {
			form := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {plain.Expose()}}
			req := httptest.NewRequest(http.MethodPost, devstack.FormTokenPath, strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			a.Handler().ServeHTTP(w, req)
			return response{w.Code, w.Header(), w.Body.Bytes()}.json(t)["access_token"].(string)
		}
		jwks := func(h http.Handler) []byte {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/.well-known/jwks.json", nil))
			return w.Body.Bytes()
		}
		before := jwks(a.Handler())
		want(t, "keys at first", bytes.Count(before, []byte(`"kid"`)), 2)
		time.Sleep(time.Hour - 10*time.Second)
		old := issue()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		fresh := issue()
		oldHeader, _ := claimsOf(t, old)
		freshHeader, _ := claimsOf(t, fresh)
		if oldHeader["kid"] == freshHeader["kid"] {
			t.Fatal("the key was not rotated")
		}
		if _, err := devstack.JudgeWith(before, fresh, time.Now()); err != nil {
			t.Errorf("the set from before the rotation does not know the new key: %v", err)
		}
		again, err := devstack.NewAdmin(conf)
		check(t, err)
		for name, set := range map[string][]byte{"running": jwks(a.Handler()), "restarted": jwks(again.Handler())} {
			for _, token := range []string{old, fresh} {
				if _, err := devstack.JudgeWith(set, token, time.Now()); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if _, err := devstack.JudgeWith(before, fresh, time.Now().Add(2*time.Minute)); err == nil {
			t.Error("an expired token is valid")
		}
		if _, err := devstack.JudgeWith(before, fresh, time.Now().Add(-time.Minute)); err == nil {
			t.Error("a token from the future is valid")
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		want(t, "keys after the overlap", bytes.Count(jwks(a.Handler()), []byte(`"kid"`)), 2)
		files, err := filepath.Glob(filepath.Join(dir, "keys", "*.pem"))
		check(t, err)
		want(t, "private keys on disk", len(files), 2)
		_ = done // Run ends with the test's context, inside the bubble
	})
}

func TestRegistry(t *testing.T) {
	s := start(t, devstack.AdminConfig{BoundTokens: true, StorageElements: []string{"https://a", "https://b"}}, devstack.StorageConfig{})
	list := s.adminURL + "/api/v1/storage-elements"
	want(t, "no token", s.do(t, http.MethodGet, list, "", nil).status, http.StatusUnauthorized)
	token := s.token(t)
	want(t, "elements", s.do(t, http.MethodGet, list, "", nil, bearer(token)).json(t)["total"].(float64), 2)
	files := s.adminURL + "/api/v1/files"
	reg := func(body string) int {
		return s.do(t, http.MethodPost, files, "application/json", strings.NewReader(body), bearer(token)).status
	}
	want(t, "first", reg(`{"file_id":"1","original_filename":"a"}`), http.StatusCreated)
	want(t, "again", reg(`{"file_id":"1","original_filename":"a"}`), http.StatusConflict)
	want(t, "bad", reg(`{"file_id":"1"}`), http.StatusUnprocessableEntity)
	want(t, "large", reg(strings.Repeat(" ", 70<<10)), http.StatusRequestEntityTooLarge)
	want(t, "no token", s.do(t, http.MethodPost, files, "", nil).status, http.StatusUnauthorized)
	want(t, "live", s.do(t, http.MethodGet, s.adminURL+"/health/live", "", nil).json(t)["status"].(string), "alive")
	want(t, "ready", s.do(t, http.MethodGet, s.adminURL+"/health/ready", "", nil).status, http.StatusOK)
	metrics := s.do(t, http.MethodGet, s.adminURL+"/metrics", "", nil).body
	if !bytes.Contains(metrics, []byte(`artstore_admin_token_requests_total{dialect="go",result="issued"} 1`)) {
		t.Errorf("metrics: %s", metrics)
	}
}
