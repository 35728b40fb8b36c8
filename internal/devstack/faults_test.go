package devstack_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/devstack"
)

// recorded answers a request without a network.
func recorded(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func answer(status int, body string) devstack.RoundTripFunc {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func TestFaultStatusSpeaksTheDialect(t *testing.T) {
	for d, codes := range map[devstack.Dialect]map[int]string{
		"python": {401: "Invalid or expired token", 413: "File too large", 500: "Internal server error", 503: "Token validation unavailable", 507: "Insufficient storage"},
		"go":     {401: "UNAUTHORIZED", 413: "FILE_TOO_LARGE", 500: "INTERNAL_ERROR", 503: "KEYS_UNAVAILABLE", 507: "STORAGE_FULL"},
	} {
		s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dialect: d})
		token := s.token(t)
		for status, code := range codes {
			for _, f := range []devstack.Fault{
				{Kind: "status", Status: status, Count: 1},
				{Kind: "status", Status: status, Count: 1, AfterBytes: 100},
			} {
				check(t, s.storage.Faults().Set(f))
				r := s.upload(t, token, "a", make([]byte, 1000))
				want(t, string(d), r.status, status)
				want(t, string(d), r.code(t), code)
				want(t, "after the count", s.upload(t, token, "a", nil).status, http.StatusCreated)
			}
			check(t, s.storage.Faults().Set(devstack.Fault{Kind: "status", Status: status, On: "download"}))
			id := s.storage.Files()[0].ID
			want(t, "download", s.do(t, http.MethodGet, s.file(id)+"/download", "", nil, bearer(token)).status, status)
		}
	}
}

func TestFaultReset(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	token := s.token(t)
	content := make([]byte, 200_000)
	for _, f := range []devstack.Fault{{Kind: "reset"}, {Kind: "reset", AfterBytes: 50_000}} {
		check(t, s.storage.Faults().Set(f))
		if r, err := s.tryUpload(t, token, "a", content); err == nil {
			t.Errorf("%+v: answered %d", f, r.status)
		}
	}
	// The room is given back when the handler returns, which may be after the client saw the end.
	deadline := time.After(time.Minute)
	for s.storage.Stats().Bytes != 0 {
		select {
		case <-deadline:
			t.Fatalf("%d bytes are still reserved", s.storage.Stats().Bytes)
		case <-time.After(time.Millisecond):
		}
	}
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "reset", AfterStore: true, Count: 1}))
	if _, err := s.tryUpload(t, token, "stored", content); err == nil {
		t.Error("an answer came")
	}
	want(t, "stored without an answer", s.storage.Files()[0].Name, "stored")

	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "reset", On: "download", AfterBytes: 1000}))
	r, err := s.try(t, http.MethodGet, s.file(s.storage.Files()[0].ID)+"/download", "", nil, bearer(token))
	if err == nil {
		t.Errorf("a cut download looks whole: %d bytes", len(r.body))
	}
	want(t, "fired", s.storage.Faults().Fired()["reset"] >= 4, true)
}

func TestFaultsThatTakeTime(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	token := s.token(t)
	begun := time.Now()
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "delay", Delay: 50 * time.Millisecond}))
	want(t, "delayed", s.upload(t, token, "a", []byte("x")).status, http.StatusCreated)
	if took := time.Since(begun); took < 50*time.Millisecond {
		t.Errorf("delay: answered after %s", took)
	}
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "stall", Delay: time.Millisecond, AfterBytes: 5}))
	if _, err := s.tryUpload(t, token, "a", make([]byte, 1000)); err == nil {
		t.Error("a stall was answered")
	}
	// A stall of half an hour ends when the faults are replaced.
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "stall", Delay: 30 * time.Minute}))
	ended := make(chan error, 1)
	before := s.storage.Faults().Fired()["stall"]
	go func() { _, err := s.tryUpload(t, token, "a", nil); ended <- err }()
	for s.storage.Faults().Fired()["stall"] == before {
		select {
		case err := <-ended:
			t.Fatalf("the stall ended by itself: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	check(t, s.storage.Faults().Set())
	if err := <-ended; err == nil {
		t.Error("a stall was answered")
	}
	begun = time.Now()
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "trickle", Rate: 5000}))
	want(t, "trickled", s.upload(t, token, "slow", make([]byte, 500)).status, http.StatusCreated)
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "trickle", Rate: 5000, On: "download"}))
	for _, f := range s.storage.Files() {
		if f.Name == "slow" {
			want(t, "trickled", len(s.do(t, http.MethodGet, s.file(f.ID)+"/download", "", nil, bearer(token)).body), 500)
		}
	}
	if took := time.Since(begun); took < 150*time.Millisecond {
		t.Errorf("trickle: over after %s", took)
	}
}

// A body that moves no byte is ended after BodyIdle.
func TestIdleBodyIsEnded(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{BodyIdle: 20 * time.Millisecond})
	body, ct := multipartBody(t, "a", make([]byte, 1000))
	slow, w := io.Pipe()
	go func() { _, _ = w.Write(body[:500]) }()
	defer func() { _ = w.Close() }()
	r, err := s.try(t, http.MethodPost, s.storageURL+"/api/v1/files/upload", ct, slow, bearer(s.token(t)))
	if err == nil {
		want(t, "status", r.status, http.StatusBadRequest)
	}
}

func TestFaultChecksum(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "checksum", Count: 1}))
	r := s.upload(t, s.token(t), "a", []byte("x"))
	if got := r.json(t)["checksum"].(string); got == sumOf([]byte("x")) || len(got) != 64 {
		t.Errorf("checksum %s", got)
	}
	_, err := s.storage.Verify(t.Context())
	check(t, err) // the file is right, only the answer was wrong
}

func TestFaultProbability(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	token := s.token(t)
	roll := 0.9
	s.storage.Faults().SetRoll(func() float64 { return roll })
	check(t, s.storage.Faults().Set(devstack.Fault{Kind: "status", Status: 500, Probability: 0.5}))
	want(t, "spared", s.upload(t, token, "a", nil).status, http.StatusCreated)
	roll = 0.1
	want(t, "struck", s.upload(t, token, "a", nil).status, http.StatusInternalServerError)
}

func TestFaultControl(t *testing.T) {
	s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{FaultControl: true})
	control := s.storageURL + "/_faults"
	post := func(body string) int {
		return s.do(t, http.MethodPost, control, "application/json", strings.NewReader(body)).status
	}
	want(t, "set", post(`[{"kind":"status","status":507,"delay_ms":5}]`), http.StatusNoContent)
	want(t, "struck", s.upload(t, s.token(t), "a", nil).status, http.StatusInsufficientStorage)
	want(t, "counted", s.do(t, http.MethodGet, control, "", nil).json(t)["status"].(float64), 1)
	want(t, "cleared", s.do(t, http.MethodDelete, control, "", nil).status, http.StatusNoContent)
	want(t, "spared", s.upload(t, s.token(t), "a", nil).status, http.StatusCreated)
	for _, bad := range []string{`[{"kind":"x"}]`, `[{"kind":"status"}]`, `[{"unknown":1}]`, `[] []`, `[{"kind":"trickle"}]`, `[{"kind":"reset","on":"all"}]`,
		`[{"kind":"reset","count":-1}]`, `[{"kind":"reset","probability":2}]`, `[{"kind":"checksum","on":"download"}]`} {
		want(t, bad, post(bad), http.StatusBadRequest)
	}
	want(t, "large", post(strings.Repeat(" ", 70<<10)), http.StatusRequestEntityTooLarge)
	off := start(t, devstack.AdminConfig{}, devstack.StorageConfig{})
	want(t, "off", off.do(t, http.MethodGet, off.storageURL+"/_faults", "", nil).status, http.StatusNotFound)
	if err := off.storage.Faults().Set(devstack.Fault{Kind: "nothing"}); err == nil {
		t.Error("an unknown fault was set")
	}
}

// Contract: accepted credentials are not empty and a refusal never echoes input.
func FuzzParseTokenJSON(f *testing.F) {
	f.Add([]byte(`{"client_id":"a","client_secret":"canary"}`))
	f.Add([]byte(`{"client_id":"a","client_secret":"canary","grant_type":"x"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		id, plain, refused := devstack.ParseTokenJSON(body)
		if refused == nil && (id == "" || plain.IsZero()) {
			t.Errorf("accepted without credentials: %q", body)
		}
		if bytes.Contains(refused, []byte("canary")) {
			t.Errorf("refusal %q echoes the input", refused)
		}
	})
}

// Contract: accepted requests have credentials and known scopes; refusals are 400 or 401.
func FuzzParseTokenForm(f *testing.F) {
	f.Add([]byte("grant_type=client_credentials&client_id=a&client_secret=b"), "", "", false)
	f.Add([]byte("grant_type=client_credentials&scope=files:read"), "a%3a", "b", true)
	f.Fuzz(func(t *testing.T, body []byte, id, plain string, basic bool) {
		gotID, gotSecret, scopes, status := devstack.ParseTokenForm(body, id, plain, basic)
		if status == 0 && (gotID == "" || gotSecret.IsZero() || len(scopes) == 0) {
			t.Errorf("accepted %q: id %q, scopes %v", body, gotID, scopes)
		}
		if status != 0 && status != http.StatusBadRequest && status != http.StatusUnauthorized {
			t.Errorf("status %d", status)
		}
	})
}

// Contract: a form is either refused, leaving no room in use, or its file has the
// size that is in use and no more than allowed.
func FuzzReadForm(f *testing.F) {
	body, _ := multipartBody(f, "a", []byte("content"), "description", "x")
	boundary := string(body[2:bytes.Index(body, []byte("\r\n"))])
	f.Add(body, boundary)
	f.Add(body[:len(body)-10], boundary)
	f.Add([]byte("--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n\r\n--x--"), "x")
	store, err := devstack.OpenFormStore(f.TempDir(), 64)
	check(f, err)
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		if boundary == "" {
			return // mime/multipart's callers never pass one: RFC 2046 requires a character
		}
		size, sum, used, after, err := store.Read(body, boundary)
		if err == nil && (used != size || size > 64 || len(sum) != 64) || after != 0 {
			t.Errorf("size %d, sum %q, used %d, then %d, error %v", size, sum, used, after, err)
		}
	})
}

// Contract: accepted faults pass the check that Set makes.
func FuzzParseFaults(f *testing.F) {
	f.Add([]byte(`[{"kind":"stall","on":"download","delay_ms":5,"after_bytes":1,"count":2,"probability":0.5}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		faults, err := devstack.ParseFaults(body)
		if err != nil {
			return
		}
		for _, fault := range faults {
			if err := fault.Check(); err != nil {
				t.Errorf("%q was accepted: %v", body, err)
			}
		}
	})
}

// Contract: without a matching RSA key no token is ever valid, and nothing panics.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"keys":[]}`), "x.y.z")
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`), "eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, jwks []byte, token string) {
		if subject, err := devstack.JudgeWith(jwks, token, time.Now()); err == nil {
			t.Errorf("valid for %q", subject)
		}
	})
}

// Contract: parsing a registration never panics.
func FuzzParseRegistration(f *testing.F) {
	f.Add([]byte(`{"file_id":"1","original_filename":"a","size":1}`))
	f.Fuzz(func(_ *testing.T, body []byte) { _ = devstack.ParseRegistration(body) })
}
