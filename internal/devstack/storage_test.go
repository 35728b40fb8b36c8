package devstack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/devstack"
)

const someUUID = "0b7e6f9a-3f5e-4d1c-9a55-0f3d3c1b2a10"

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func TestFilesInBothDialects(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 50_000)
	for _, d := range []devstack.Dialect{"python", "go"} {
		t.Run(string(d), func(t *testing.T) {
			s := start(t, devstack.AdminConfig{BoundTokens: true}, devstack.StorageConfig{Dialect: d, Mode: "edit", RequireBound: true})
			token := s.token(t)
			r := s.upload(t, token, "../фото.txt", content, "description", "d", "version", "2", "tags", `["a"]`, "file_id", someUUID)
			want(t, "status", r.status, http.StatusCreated)
			got := r.json(t)
			size := map[devstack.Dialect]string{"python": "file_size", "go": "size"}[d]
			want(t, "size", got[size].(float64), float64(len(content)))
			want(t, "checksum", got["checksum"].(string), sumOf(content))
			want(t, "name", got["original_filename"].(string), "фото.txt")
			id := got["file_id"].(string)
			want(t, "client's id taken", id == someUUID, d == "python")

			m := s.do(t, http.MethodGet, s.file(id), "", nil, bearer(token)).json(t)
			want(t, "metadata", m["checksum"].(string), sumOf(content))
			if d == "go" {
				want(t, "retention", m["retention_policy"].(string), "temporary")
				want(t, "ttl", m["ttl_days"].(float64), 30)
				want(t, "tags", m["tags"].([]any)[0].(string), "a")
			}
			down := s.do(t, http.MethodGet, s.file(id)+"/download", "", nil, bearer(token))
			want(t, "download", sumOf(down.body), sumOf(content))
			want(t, "nosniff", down.header.Get("X-Content-Type-Options"), "nosniff")
			part := s.do(t, http.MethodGet, s.file(id)+"/download", "", nil, bearer(token), func(r *http.Request) { r.Header.Set("Range", "bytes=5-9") })
			want(t, "range status", part.status, http.StatusPartialContent)
			want(t, "range", string(part.body), "56789")

			empty := s.upload(t, token, "empty", nil)
			want(t, "empty file", empty.json(t)["checksum"].(string), sumOf(nil))
			if d == "python" {
				again := s.upload(t, token, "a", content, "file_id", someUUID)
				want(t, "duplicate", again.status, http.StatusInternalServerError)
				want(t, "duplicate", again.code(t), "File with ID "+someUUID+" already exists")
				want(t, "bad id", s.upload(t, token, "a", nil, "file_id", "../../x").status, http.StatusBadRequest)
			}
			want(t, "files", len(s.storage.Files()), 2)
			want(t, "deleted", s.do(t, http.MethodDelete, s.file(id), "", nil, bearer(token)).status, http.StatusNoContent)
			for _, path := range []string{s.file(id), s.file(id) + "/download", s.file("..%2f..%2faccounts.json"), s.storageURL + "/x"} {
				want(t, path, s.do(t, http.MethodGet, path, "", nil, bearer(token)).status, http.StatusNotFound)
			}
			want(t, "deleted twice", s.do(t, http.MethodDelete, s.file(id), "", nil, bearer(token)).status, http.StatusNotFound)
			want(t, "room", s.storage.Stats().Bytes, 0)
			want(t, "method", s.do(t, http.MethodPut, s.file(id), "", nil).status, http.StatusMethodNotAllowed)
		})
	}
}

func TestRefusedUploads(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	small := devstack.StorageConfig{MaxFileSize: 1000, Capacity: 1500}
	for _, tt := range []struct {
		name         string
		mode         devstack.Mode
		python, gola string // code or detail
		pyStatus     int
		goStatus     int
		size         int
		fields       []string
		fileName     string
	}{
		{name: "ro", mode: "ro", pyStatus: 400, python: "Operation not allowed in ro mode", goStatus: 409, gola: "MODE_NOT_ALLOWED", fileName: "f"},
		{name: "ar", mode: "ar", pyStatus: 400, python: "Operation not allowed in ar mode", goStatus: 409, gola: "MODE_NOT_ALLOWED", fileName: "f"},
		{name: "too large", size: 1001, pyStatus: 413, python: "File too large", goStatus: 413, gola: "FILE_TOO_LARGE", fileName: "f"},
		{name: "announced too large", size: 3 << 20, pyStatus: 413, python: "File too large", goStatus: 413, gola: "FILE_TOO_LARGE", fileName: "f"},
		{name: "no name", pyStatus: 422, python: "[map[loc:[body file] msg:Field required type:missing]]", goStatus: 400, gola: "VALIDATION_ERROR"},
		{name: "bad tags", pyStatus: 400, python: "There was an error parsing the body", goStatus: 400, gola: "VALIDATION_ERROR", fileName: "f", fields: []string{"tags", "{"}},
		{name: "large field", pyStatus: 400, python: "There was an error parsing the body", goStatus: 400, gola: "VALIDATION_ERROR", fileName: "f", fields: []string{"x", strings.Repeat("x", 70<<10)}},
		{name: "many fields", pyStatus: 400, python: "There was an error parsing the body", goStatus: 400, gola: "VALIDATION_ERROR", fileName: "f", fields: make([]string, 80)},
	} {
		for _, d := range []devstack.Dialect{"python", "go"} {
			t.Run(tt.name+" "+string(d), func(t *testing.T) {
				c := small
				c.Mode, c.Dialect = tt.mode, d
				s := start(t, devstack.AdminConfig{}, c)
				r, err := s.tryUpload(t, s.token(t), tt.fileName, make([]byte, tt.size), tt.fields...)
				if err != nil && tt.size > 1<<20 {
					return // the server answered and closed while we were sending: allowed by RFC 9112 §9.6
				}
				check(t, err)
				status, code := tt.pyStatus, tt.python
				if d == "go" {
					status, code = tt.goStatus, tt.gola
				}
				want(t, "status", r.status, status)
				want(t, "code", r.code(t), code)
				want(t, "room", s.storage.Stats().Bytes, 0)
			})
		}
	}
}

func TestFullAndMalformed(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dialect: "go", MaxFileSize: 1000, Capacity: 1500})
	token := s.token(t)
	want(t, "first", s.upload(t, token, "a", make([]byte, 900)).status, http.StatusCreated)
	r := s.upload(t, token, "b", make([]byte, 900))
	want(t, "full", r.status, http.StatusInsufficientStorage)
	want(t, "full", r.code(t), "STORAGE_FULL")
	want(t, "room given back", s.upload(t, token, "c", make([]byte, 600)).status, http.StatusCreated)

	dir := t.TempDir()
	s = start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dir: dir, Dialect: "go", MaxFileSize: 1000})
	token = s.token(t)
	body, ct := multipartBody(t, "x", []byte("content"))
	up := s.storageURL + "/api/v1/files/upload"
	for name, bad := range map[string]response{
		"truncated":     s.do(t, http.MethodPost, up, ct, bytes.NewReader(body[:len(body)-20]), bearer(token)),
		"not multipart": s.do(t, http.MethodPost, up, "text/plain", bytes.NewReader(body), bearer(token)),
		"no file":       s.do(t, http.MethodPost, up, "multipart/form-data; boundary=x", strings.NewReader("--x--\r\n"), bearer(token)),
		"two files":     s.do(t, http.MethodPost, up, ct, bytes.NewReader(append(bytes.Clone(body[:len(body)-len(body[bytes.LastIndex(body, []byte("\r\n--")):])]), append([]byte("\r\n"), body...)...)), bearer(token)),
	} {
		want(t, name, bad.status, http.StatusBadRequest)
		want(t, name, bad.code(t), "VALIDATION_ERROR")
	}
	// A body of unknown length is counted while it is read.
	chunked := s.do(t, http.MethodPost, up, ct, io.MultiReader(bytes.NewReader(body[:len(body)-20]), strings.NewReader(strings.Repeat("x", 2000))), bearer(token))
	want(t, "chunked too large", chunked.status, http.StatusRequestEntityTooLarge)
	tmp, err := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	check(t, err)
	want(t, "leftovers", len(tmp), 0)
	want(t, "room", s.storage.Stats().Bytes, 0)
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dir: dir})
	token := s.token(t)
	id := s.upload(t, token, "a", []byte("x")).json(t)["file_id"].(string)
	want(t, "rw: delete", s.do(t, http.MethodDelete, s.file(id), "", nil, bearer(token)).status, http.StatusBadRequest)
	for mode, status := range map[devstack.Mode]int{"ro": 200, "ar": 400} {
		other := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dir: dir, Mode: mode})
		token := other.token(t)
		want(t, string(mode)+": metadata", other.do(t, http.MethodGet, other.file(id), "", nil, bearer(token)).status, 200)
		want(t, string(mode)+": download", other.do(t, http.MethodGet, other.file(id)+"/download", "", nil, bearer(token)).status, status)
	}
}

func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dir: dir})
	token := s.token(t)
	id := s.upload(t, token, "kept", []byte("kept")).json(t)["file_id"].(string)
	// What crashes leave: half an upload, and content whose metadata was never written.
	check(t, os.WriteFile(filepath.Join(dir, "tmp", "upload-1"), []byte("half"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "files", someUUID), []byte("unacknowledged"), 0o600))

	again := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dir: dir})
	want(t, "files", again.storage.Stats().Files, 1)
	want(t, "bytes", again.storage.Stats().Bytes, 4)
	for _, path := range []string{"tmp/upload-1", "files/" + someUUID} {
		if _, err := os.Stat(filepath.Join(dir, path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
	good, err := again.storage.Verify(t.Context())
	check(t, err)
	want(t, "verified", good, 1)
	f, err := again.storage.Open(id)
	check(t, err)
	check(t, f.Close())
	if _, err := again.storage.Open("nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening nothing: %v", err)
	}
	check(t, os.WriteFile(filepath.Join(dir, "files", id), []byte("kepT"), 0o600))
	if good, err := again.storage.Verify(t.Context()); err == nil || good != 0 {
		t.Errorf("altered content: %d files are good, error %v", good, err)
	}
	check(t, os.Remove(filepath.Join(dir, "files", id)))
	if _, err := again.storage.Verify(t.Context()); err == nil {
		t.Error("missing content was not noticed")
	}
	want(t, "download of missing content", again.do(t, http.MethodGet, again.file(id)+"/download", "", nil, bearer(again.token(t))).status, http.StatusInternalServerError)
	for _, damage := range []string{"{", `{"file_id":"` + someUUID + `"}`} {
		check(t, os.WriteFile(filepath.Join(dir, "files", id+".json"), []byte(damage), 0o600))
		_, err = devstack.NewStorage(devstack.StorageConfig{Dir: dir, JWKSURL: "https://x/", JWKSTransport: &http.Transport{}})
		if err == nil {
			t.Errorf("metadata %s was accepted", damage)
		}
	}
}

func TestNewStorageRefusesBadConfig(t *testing.T) {
	good := devstack.StorageConfig{Dir: t.TempDir(), JWKSURL: "https://x/", JWKSTransport: &http.Transport{}}
	for name, edit := range map[string]func(*devstack.StorageConfig){
		"dir":       func(c *devstack.StorageConfig) { c.Dir = "" },
		"mode":      func(c *devstack.StorageConfig) { c.Mode = "wr" },
		"dialect":   func(c *devstack.StorageConfig) { c.Dialect = "rust" },
		"url":       func(c *devstack.StorageConfig) { c.JWKSURL = "" },
		"transport": func(c *devstack.StorageConfig) { c.JWKSTransport = nil },
		"size":      func(c *devstack.StorageConfig) { c.MaxFileSize = -1 },
	} {
		c := good
		edit(&c)
		if _, err := devstack.NewStorage(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTokensAreJudgedBeforeTheBody(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	token := s.token(t)
	parts := strings.Split(token, ".")
	none := "eyJhbGciOiJub25lIn0." + parts[1] + "."
	for name, auth := range map[string][]string{
		"none": {}, "basic": {"Basic x"}, "empty": {"Bearer "}, "garbage": {"Bearer x.y.z"}, "alg none": {"Bearer " + none},
		"forged": {"Bearer " + parts[0] + "." + parts[1] + "x." + parts[2]}, "two": {"Bearer " + token, "Bearer " + token},
		"huge": {"Bearer " + strings.Repeat("x", 17<<10)},
	} {
		// A body that never ends: only a server that does not wait for it can answer.
		endless, w := io.Pipe()
		r := s.do(t, http.MethodPost, s.storageURL+"/api/v1/files/upload", "multipart/form-data; boundary=x", endless, func(r *http.Request) { r.Header["Authorization"] = auth })
		_ = w.Close()
		want(t, name, r.status, http.StatusUnauthorized)
		want(t, name, r.header.Get("WWW-Authenticate"), "Bearer")
	}
	want(t, "scope", s.upload(t, s.token(t, "files:read"), "a", nil).status, http.StatusForbidden)
	want(t, "case of the scheme", s.do(t, http.MethodGet, s.file("x"), "", nil, func(r *http.Request) { r.Header.Set("Authorization", "bearer "+token) }).status, http.StatusNotFound)
	if strings.Contains(s.logs.String(), parts[2]) {
		t.Error("a token is in the log")
	}
}

func TestBoundTokenIsWorthlessBesideAnotherCertificate(t *testing.T) {
	s := start(t, devstack.AdminConfig{BoundTokens: true}, devstack.StorageConfig{})
	token := s.token(t)
	want(t, "owner", s.upload(t, token, "a", []byte("x")).status, http.StatusCreated) // and the verdict is cached now
	s.client = &http.Client{Transport: transport(t, s.ca, "intruder")}
	want(t, "thief", s.upload(t, token, "a", []byte("x")).status, http.StatusUnauthorized)
	s.client = &http.Client{Transport: transport(t, s.ca, "ingester")}
	want(t, "same name, other certificate", s.upload(t, token, "a", []byte("x")).status, http.StatusUnauthorized)

	strict := start(t, devstack.AdminConfig{}, devstack.StorageConfig{RequireBound: true})
	want(t, "unbound", strict.upload(t, strict.token(t), "a", nil).status, http.StatusUnauthorized)
}

func TestTokenCacheAndMetrics(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	token := s.token(t)
	for range 3 {
		s.upload(t, token, "a", []byte("x"))
	}
	st := s.storage.Stats()
	want(t, "hits", st.TokenHits, 2)
	want(t, "misses", st.TokenMisses, 1)
	check(t, s.admin.RotateSigningKey())
	check(t, s.admin.RotateSigningKey()) // the key that signs now was not in the set when it was fetched
	want(t, "old token", s.upload(t, token, "a", []byte("x")).status, http.StatusCreated)
	metrics := string(s.do(t, http.MethodGet, s.storageURL+"/metrics", "", nil).body)
	for _, line := range []string{
		`artstore_storage_token_validations_total{cache="hit",result="valid"} 3`, `artstore_storage_token_validation_seconds_count 4`,
		`artstore_storage_uploads_total{status="201"} 4`, `artstore_storage_files 4`, `artstore_storage_used_bytes 4`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	s.storage.FillCache(devstack.MaxCachedTokens+10, time.Now().Add(time.Hour))
	want(t, "bounded", s.storage.CachedTokens(), devstack.MaxCachedTokens)
	late := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	late.storage.FillCache(devstack.MaxCachedTokens, time.Now().Add(-time.Hour))
	late.upload(t, late.token(t), "a", nil)
	want(t, "verdicts left after all others expired", late.storage.CachedTokens(), 1)
}

func TestUnknownKeyIsFetchedAtMostOncePerSecond(t *testing.T) {
	dir := t.TempDir()
	other, err := devstack.NewAdmin(devstack.AdminConfig{Dir: t.TempDir(), BcryptCost: 4})
	check(t, err)
	foreign := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	token := foreign.token(t) // signed by a key that other does not have
	served := make(chan struct{}, 100)
	rt := devstack.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		served <- struct{}{}
		return recorded(other.Handler(), r), nil
	})
	synctest.Test(t, func(t *testing.T) {
		s, err := devstack.NewStorage(devstack.StorageConfig{Dir: dir, JWKSURL: "https://x" + devstack.JWKSPath, JWKSTransport: rt})
		check(t, err)
		ask := func() int {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/files/x", nil)
			check(t, err)
			bearer(token)(req)
			return recorded(s.Handler(), req).StatusCode
		}
		for range 5 {
			want(t, "foreign token", ask(), http.StatusUnauthorized)
		}
		want(t, "fetches at once", s.Stats().JWKSFetches, 1)
		time.Sleep(2 * time.Second)
		ask()
		want(t, "fetches later", s.Stats().JWKSFetches, 2)
	})
}

// Without keys no request is served. When keys are published, Run fetches them.
func TestNoKeysFailsClosed(t *testing.T) {
	dir := t.TempDir()
	admin, err := devstack.NewAdmin(devstack.AdminConfig{Dir: t.TempDir(), BcryptCost: 4})
	check(t, err)
	for name, broken := range map[string]devstack.RoundTripFunc{
		"unreachable": func(*http.Request) (*http.Response, error) { return nil, devstack.ErrUnreachable },
		"status":      answer(http.StatusInternalServerError, "{}"),
		"not JSON":    answer(http.StatusOK, "<html>"),
		"no keys":     answer(http.StatusOK, `{"keys":[{"kty":"EC"},{"kty":"oct","k":"c2VjcmV0"}]}`),
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			current := broken
			rt := devstack.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				return current(r)
			})
			s, err := devstack.NewStorage(devstack.StorageConfig{Dir: dir, JWKSURL: "https://x" + devstack.JWKSPath, JWKSTransport: rt, Dialect: "go"})
			check(t, err)
			go func() { check(t, s.Run(t.Context())) }()
			get := func(path string) int {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
				check(t, err)
				bearer("x.y.z")(req)
				return recorded(s.Handler(), req).StatusCode
			}
			synctest.Wait()
			want(t, name+": request", get("/api/v1/files/x"), http.StatusServiceUnavailable)
			want(t, name+": ready", get("/health/ready"), http.StatusServiceUnavailable)
			want(t, name+": live", get("/health/live"), http.StatusOK)
			mu.Lock()
			current = func(r *http.Request) (*http.Response, error) { return recorded(admin.Handler(), r), nil }
			mu.Unlock()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			want(t, name+": ready in the end", get("/health/ready"), http.StatusOK)
			mu.Lock()
			current = broken
			mu.Unlock()
			time.Sleep(time.Minute)
			want(t, name+": the last good set stays", get("/health/ready"), http.StatusOK)
		})
	}
}

// An element that has just begun to listen answers a question for its readiness when it has its keys,
// and not with a failure before.
func TestReadyWaitsForTheFirstKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin, err := devstack.NewAdmin(devstack.AdminConfig{Dir: t.TempDir(), BcryptCost: 4})
		check(t, err)
		slow := devstack.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return recorded(admin.Handler(), r), nil
		})
		s, err := devstack.NewStorage(devstack.StorageConfig{Dir: t.TempDir(), JWKSURL: "https://x" + devstack.JWKSPath, JWKSTransport: slow})
		check(t, err)
		go func() { check(t, s.Run(t.Context())) }()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/health/ready", nil)
		check(t, err)
		want(t, "ready", recorded(s.Handler(), req).StatusCode, http.StatusOK)
	})
}

func TestInfoAndCapacity(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Capacity: 1000})
	s.upload(t, s.token(t), "a", make([]byte, 250))
	want(t, "info", s.do(t, http.MethodGet, s.storageURL+"/api/v1/info", "", nil).json(t)["used_bytes"].(float64), 250)
	c := s.do(t, http.MethodGet, s.storageURL+"/api/v1/capacity", "", nil).json(t)["capacity"].(map[string]any)
	want(t, "percent", c["percent_used"].(float64), 25)
}

// With many uploads at once, room is never reserved twice and an id never given twice.
func TestConcurrentUploads(t *testing.T) {
	const n, size = 24, 100
	s := start(t, devstack.AdminConfig{BoundTokens: true}, devstack.StorageConfig{Capacity: n / 2 * size, MaxFileSize: size})
	token := s.token(t)
	var mu sync.Mutex
	count := map[int]int{}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r, err := s.tryUpload(t, token, "f"+strconv.Itoa(i), bytes.Repeat([]byte{byte(i)}, size))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			count[r.status]++
		})
	}
	wg.Wait()
	st := s.storage.Stats()
	if count[201]+count[507] != n || count[201] != st.Files || int64(st.Files*size) != st.Bytes || st.Bytes > n/2*size {
		t.Errorf("answers %v, stats %+v", count, st)
	}
	good, err := s.storage.Verify(t.Context())
	check(t, err)
	want(t, "good", good, st.Files)

	var same sync.WaitGroup
	errs := make(chan error, n)
	for range n {
		same.Go(func() { errs <- s.storage.Receive(someUUID, strings.NewReader("")) })
	}
	same.Wait()
	close(errs)
	stored := 0
	for err := range errs {
		if err == nil {
			stored++
		} else if !errors.Is(err, devstack.ErrDuplicate) {
			t.Error(err)
		}
	}
	want(t, "stored under one id", stored, 1)
}
