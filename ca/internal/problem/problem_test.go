package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A document has the form of RFC 7807 and the fields of RFC 8555.
func TestWrite(t *testing.T) {
	d := New(BadSignatureAlgorithm, "want one of %s", "ES256")
	d.Algorithms = []string{"ES256"}
	d.RetryAfter, d.Location = 1500*time.Millisecond, "https://ca.example/x"
	d.Subproblems = []Subproblem{{Type: RejectedIdentifier, Detail: "no", Kind: "dns", Value: "a.example"}}
	w := httptest.NewRecorder()
	d.Write(w)
	const want = `{"type":"urn:ietf:params:acme:error:badSignatureAlgorithm","detail":"want one of ES256","status":400,"algorithms":["ES256"],` +
		`"subproblems":[{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no","identifier":{"type":"dns","value":"a.example"}}]}` + "\n"
	if got := w.Body.String(); got != want || w.Code != http.StatusBadRequest {
		t.Errorf("%d %s", w.Code, got)
	}
	if h := w.Header(); h.Get("Content-Type") != "application/problem+json" || h.Get("Retry-After") != "2" || h.Get("Location") != d.Location {
		t.Errorf("%v", h)
	}
}

// Each type has a status, and an error that is no problem tells nothing.
func TestStatus(t *testing.T) {
	for kind, want := range map[Type]int{Unauthorized: 403, OrderNotReady: 403, RateLimited: 429, ServerInternal: 500, Malformed: 400, BadNonce: 400} {
		if got := New(kind, "x").Status; got != want {
			t.Errorf("%s: %d", kind, got)
		}
	}
	if got := Of(errors.New("the password is x")); got.Type != ServerInternal || got.Status != 500 {
		t.Errorf("%v", got)
	} else if b, err := json.Marshal(got); err != nil || strings.Contains(string(b), "password") {
		t.Errorf("%s, %v", b, err)
	}
	if got := Of(fmt.Errorf("doing: %w", New(DNS, "x").With(418))); got.Type != DNS || got.Status != 418 {
		t.Errorf("%v", got)
	}
	if TypeOf(DNS.URN()) != DNS || TypeOf("about:blank") != ServerInternal {
		t.Error("types of URNs")
	}
	if got := New(DNS, "x").Error(); got != "dns: x" {
		t.Error(got)
	}
}
