package tokensocket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/internal/uuid"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// The answer has the form of RFC 6749 §5.1, and its token is the client's
// own: a Storage Element takes it on a connection with the certificate of cnf.
func TestAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.get()
	if r.status != http.StatusOK || r.header.Get("Content-Type") != "application/json" ||
		r.header.Get("Cache-Control") != "no-store" || r.header.Get("Pragma") != "no-cache" {
		t.Errorf("status %d, header %v", r.status, r.header)
	}
	a := w.token()
	own, err := w.client.AccessToken(t.Context())
	if err != nil || own.Value.Expose() != a.AccessToken || w.stack.TokenRequests() != 1 {
		t.Errorf("%v; the client's token: %t; %d requests, want 1", err, own.Value.Expose() == a.AccessToken, w.stack.TokenRequests())
	}
	if a.TokenType != "Bearer" || a.ExpiresIn < 60 || a.ExpiresIn > 295 {
		t.Errorf("type %q, expires in %d s; want Bearer, and 295 s of 300 at most", a.TokenType, a.ExpiresIn)
	}
	if a.Confirmation == nil || a.Confirmation.Thumbprint != own.Thumbprint {
		t.Errorf("confirmation %v, want the certificate %s", a.Confirmation, own.Thumbprint)
	}
	for token, want := range map[string]int{a.AccessToken: http.StatusNotFound, "e30.e30.c2ln": http.StatusUnauthorized} {
		if status := w.lookUp(token); status != want {
			t.Errorf("looking up an unknown file: status %d, want %d", status, want)
		}
	}
}

// lookUp asks the Storage Element for a file that it does not have.
func (w *world) lookUp(token string) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.stack.StorageURL+"/api/v1/files/"+uuid.New(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	own, err := w.stack.Identity.Transport(rotation.TransportOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = own.Close() }() // nothing is in flight
	resp, err := own.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestExpiresIn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for left, want := range map[time.Duration]int64{290 * time.Second: 290, 1900 * time.Millisecond: 1, time.Millisecond: 1, -time.Second: 1} {
		a := NewAnswer(ingestclient.AccessToken{Value: secret.New("t"), ExpiresAt: now.Add(left)}, now)
		if a.ExpiresIn != want || a.Confirmation != nil {
			t.Errorf("%s left: expires_in %d, want %d; confirmation %v", left, a.ExpiresIn, want, a.Confirmation)
		}
	}
}

// Clients that ask all the time never notice that the certificate changes: each
// answer has a token, and in the end one of the new certificate.
func TestRotationDuringUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.token()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for a := before; a.Confirmation.Thumbprint == before.Confirmation.Thumbprint; a = w.answer() {
				if ctx.Err() != nil {
					t.Error("the token is still bound to the old certificate")
					return
				}
			}
		})
	}
	w.stack.RotateClient(t)
	users.Wait()
	if status := w.lookUp(w.token().AccessToken); status != http.StatusNotFound {
		t.Errorf("the token of the new certificate: status %d, want 404", status)
	}
	if w.count(Failed) != 0 || w.stack.TokenRequests() != 2 {
		t.Errorf("%d failures, %d token requests; want none, and 2", w.count(Failed), w.stack.TokenRequests())
	}
}

// answer is token for goroutines that are not the test's own.
func (w *world) answer() (a Answer) {
	resp, err := over(w.path).Get("http://localhost/token")
	if err == nil {
		err = errors.Join(json.NewDecoder(resp.Body).Decode(&a), resp.Body.Close())
	}
	if err != nil || resp.StatusCode != http.StatusOK || a.Confirmation == nil {
		w.t.Errorf("no token while the certificate changes: %v", err)
		a.Confirmation = &Confirmation{}
	}
	return a
}

// A rejected token is replaced once, by one request, however many reject it; the
// next one cannot be rejected at once.
func TestRejections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.token().AccessToken
	if r := w.reject("another"); r.status != http.StatusNoContent || w.token().AccessToken != first {
		t.Errorf("a token that was never handed out: status %d, and it cost the current one", r.status)
	}
	for range 3 {
		if r := w.reject(first); r.status != http.StatusNoContent || r.body != "" {
			t.Errorf("rejecting: status %d %q, want 204", r.status, r.body)
		}
	}
	second := w.token().AccessToken
	if second == first || w.stack.TokenRequests() != 2 {
		t.Errorf("replaced: %t; %d token requests, want 2", second != first, w.stack.TokenRequests())
	}
	if w.count(Rejected) != 1 || w.count(Late) != 3 {
		t.Errorf("outcomes %v, want 1 rejected and 3 late", w.outcomes)
	}
	// On a machine so slow that five seconds have passed it counts, which is right too.
	if r := w.reject(second); w.count(Limited) == 1 && (r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") == "") {
		t.Errorf("a second rejection: status %d, header %v; want 429 with Retry-After", r.status, r.header)
	}
}

// The limit on rejections, by a clock of the test.
func TestRejectionsAreLimited(t *testing.T) {
	t.Parallel()
	stack := ingesttest.Start(t, ingesttest.Options{})
	client, err := ingestclient.New(stack.Config(), stack.Identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	s := newServer(t.Context(), Config{Client: client})
	current := func() secret.String {
		token, err := client.AccessToken(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return token.Value
	}
	now := time.Now()
	for i, step := range []struct {
		after time.Duration
		want  string
	}{{0, Rejected}, {0, Limited}, {rejectEvery - 1, Limited}, {rejectEvery, Rejected}, {rejectEvery + 1, Limited}} {
		if got, wait := s.judge(current(), now.Add(step.after)); got != step.want || (wait > 0) != (got == Limited) || wait > rejectEvery {
			t.Errorf("step %d: %s, wait %s; want %s", i, got, wait, step.want)
		}
	}
	if n := stack.TokenRequests(); n != 3 {
		t.Errorf("%d token requests, want 3", n)
	}
}

// Without a token the answer is the error of RFC 6749 §5.2, and says
// whether asking again can help.
func TestNoToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stack.SetTokenFault(t, ingesttest.TokenFault{Status: http.StatusServiceUnavailable, RetryAfter: time.Minute})
	if r := w.get(); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || r.header.Get("Cache-Control") != "no-store" ||
		!strings.Contains(r.body, `"error":"temporarily_unavailable"`) || !strings.Contains(r.body, "token endpoint unavailable") {
		t.Errorf("an endpoint that fails: %d %v %s", r.status, r.header, r.body)
	}
	w = newWorld(t, func(cfg *ingestclient.Config) {
		cfg.ClientSecret = func(context.Context) (secret.String, error) { return secret.New("wrong-secret"), nil }
	})
	if r := w.get(); r.status != http.StatusBadGateway || !strings.Contains(r.body, `"error":"invalid_client"`) || strings.Contains(r.body, "wrong-secret") {
		t.Errorf("a wrong secret: %d %s", r.status, r.body)
	}
	if w.count(Failed) != 1 {
		t.Errorf("outcomes %v, want one failure", w.outcomes)
	}
}

// A caller that waits for a token does not hold up the end.
func TestEndWhileSomebodyWaits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	w := newWorld(t)
	w.stack.SetTokenFault(t, ingesttest.TokenFault{Delay: patience})
	got := make(chan int, 1)
	go func() {
		resp, err := over(w.path).Get("http://localhost/token")
		if err != nil {
			got <- 0
			return
		}
		_ = resp.Body.Close()
		got <- resp.StatusCode
	}()
	for w.stack.TokenRequests() == 0 {
		time.Sleep(time.Millisecond) // another goroutine's request: there is nothing to wait on
	}
	if err := w.stop(); err != nil {
		t.Errorf("serving ended with %v", err)
	}
	if status := <-got; status != http.StatusServiceUnavailable {
		t.Errorf("the waiting caller got status %d, want 503", status)
	}
}

func TestWrongRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const form, reject = "application/x-www-form-urlencoded", "/token/reject"
	for _, c := range []struct {
		method, path, contentType, body string
		want                            int
	}{
		{"GET", "/", "", "", http.StatusNotFound},
		{"GET", "/token/", "", "", http.StatusNotFound},
		{"GET", reject, "", "", http.StatusMethodNotAllowed},
		{"POST", "/token", form, "token=a", http.StatusMethodNotAllowed},
		{"POST", reject, "", "token=a", http.StatusUnsupportedMediaType},
		{"POST", reject, "application/json", `{"token":"a"}`, http.StatusUnsupportedMediaType},
		{"POST", reject, form, "", http.StatusBadRequest},
		{"POST", reject, form, "token=", http.StatusBadRequest},
		{"POST", reject, form, "token=a&token=b", http.StatusBadRequest},
		{"POST", reject, form, "token=%zz", http.StatusBadRequest},
		{"POST", reject, form, "other=a", http.StatusBadRequest},
		{"POST", reject, form, "token=" + strings.Repeat("a", maxBody), http.StatusRequestEntityTooLarge},
		{"POST", reject, form + "; charset=utf-8", "token=a&token_type_hint=access_token", http.StatusNoContent},
	} {
		if r := w.do(w.request(c.method, c.path, c.contentType, c.body)); r.status != c.want {
			t.Errorf("%s %s %.40q: status %d, want %d", c.method, c.path, c.body, r.status, c.want)
		}
	}
	req := w.request("GET", "/token", "", "")
	req.Header.Set("X", strings.Repeat("a", 1<<20))
	if resp, err := over(w.path).Do(req); err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 1 MiB: status %d, want 431 or a closed connection", resp.StatusCode)
	}
	if n := w.stack.TokenRequests(); n != 0 {
		t.Errorf("wrong requests caused %d token requests", n)
	}
}

// The token is in the answer and nowhere else: not in a log at debug level, not
// in an error, not in what printing the parts shows.
func TestTokenIsInAnswersOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var out strings.Builder
	var tokens []string
	for range 2 {
		token := w.token().AccessToken
		tokens = append(tokens, token)
		for _, body := range []string{token, "token=" + token + "&token=" + token, "token=" + token + "%zz"} {
			r := w.do(w.request("POST", "/token/reject", "application/x-www-form-urlencoded", body))
			fmt.Fprintln(&out, r.header, r.body)
		}
		r := w.reject(token)
		fmt.Fprintln(&out, r.header, r.body)
		fmt.Fprintf(&out, "%+v %#v %v\n", w.client, w.client, newServer(t.Context(), Config{Client: w.client}))
	}
	w.stack.SetTokenFault(t, ingesttest.TokenFault{Status: http.StatusUnauthorized})
	w.client.RejectToken(secret.New(tokens[1]))
	r := w.get()
	fmt.Fprintln(&out, r.header, r.body, w.outcomes, w.logs.String())
	if !strings.Contains(w.logs.String(), "access token acquired") || r.status == http.StatusOK {
		t.Fatalf("the test has gone blind: status %d, log %s", r.status, w.logs.String())
	}
	for _, token := range tokens {
		if strings.Contains(out.String(), token) {
			t.Errorf("a token is in:\n%s", out.String())
		}
	}
}

func FuzzRejected(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", "token=a")
	f.Add("application/x-www-form-urlencoded; charset=utf-8", "token=%41&token=b")
	f.Add("text/plain", "\x00")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		token, status, text := readRejected(strings.NewReader(body), http.Header{"Content-Type": {contentType}})
		if (status == 0) == token.IsZero() || (status == 0) != (text == "") {
			t.Errorf("token given: %t, status %d, %q", !token.IsZero(), status, text)
		}
	})
}
