package ca_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// enrolling starts an authority where deployer may enrol storage, short and workers.
func enrolling(t *testing.T, more string) *catest.CA {
	t.Helper()
	list := profiles()
	list["deployer"] = policy.Profile{Names: []string{"deployer"}, Usages: []string{"client"}}
	list["workers"] = policy.Profile{Patterns: []string{"*.workers.internal"}}
	return catest.Start(t, catest.Options{Profiles: list, Edit: func(text []byte) []byte {
		return append(text, "enrollers: {deployer: [storage, short, workers]}\naudit_log: audit.jsonl\n"+more...)
	}})
}

// askToken asks for a token with the certificate of an enroller, and fails if it gets
// none.
func askToken(t *testing.T, cl *client, req stepapi.TokenRequest) secret.String {
	t.Helper()
	status, body := cl.do("POST", "/1.0/token", req)
	var out stepapi.TokenResponse
	if err := json.Unmarshal(body, &out); err != nil || status != http.StatusCreated || out.OTT == "" {
		t.Fatalf("token for %s: %d %s", req.Service, status, body)
	}
	return secret.New(out.OTT)
}

// claimsOf returns the claims of a token without checking its signature.
func claimsOf(t *testing.T, token secret.String) (c struct {
	jose.Claims
	SANs []string `json:"sans"`
	Act  struct {
		Sub    string `json:"sub"`
		Serial string `json:"serial"`
	} `json:"act"`
}) {
	t.Helper()
	tok, err := jose.ParseSigned(token.Expose())
	if err == nil {
		err = tok.UnsafeClaimsWithoutVerification(&c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An enroller gets a token for a service that it may enrol. The record has the token
// and the certificate, with the certificate of the enroller. A renewal of the enroller
// changes nothing.
func TestEnroller(t *testing.T) {
	t.Parallel()
	c := enrolling(t, "")
	first := enrol(t, c, "deployer", "deployer")
	cl := newClient(t, c, first)
	token := askToken(t, cl, stepapi.TokenRequest{Service: "storage", Lifetime: "90s"})
	claims := claimsOf(t, token)
	if life := time.Until(claims.Expiry.Time()); life > 90*time.Second || life < 60*time.Second {
		t.Errorf("lives %s, want 90s", life)
	}
	if serial := first.Leaf.SerialNumber.String(); claims.Act.Sub != "deployer" || claims.Act.Serial != serial || !slices.Equal(claims.SANs, profiles()["storage"].Names) {
		t.Errorf("claims: %+v", claims)
	}
	status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, token, newKey(t), "storage", claims.SANs...))
	if status != http.StatusCreated {
		t.Fatalf("sign: %d %s", status, body)
	}
	by := "token enrolment/storage by deployer/" + first.Leaf.SerialNumber.String()
	if !slices.ContainsFunc(listAll(t, c), func(e record.Certificate) bool { return e.Service == "storage" && e.Caller == by }) {
		t.Errorf("no certificate in the record by %q", by)
	}
	events, err := openRecord(t, c).Events(t.Context(), "token", 0, 10)
	if err != nil || len(events) != 1 || events[0].Service != "storage" || events[0].Caller != "certificate deployer/"+first.Leaf.SerialNumber.String() ||
		!strings.Contains(events[0].Detail, "for storage localhost 127.0.0.1") {
		t.Errorf("events: %+v, %v", events, err)
	}
	told, err := os.ReadFile(filepath.Join(c.Dir, "audit.jsonl"))
	if err != nil || !bytes.Contains(told, []byte(`"action":"make a token","outcome":"done","caller":"certificate deployer/`)) || bytes.Contains(told, []byte(token.Expose()[:40])) {
		t.Errorf("audit log: %s, %v", told, err)
	}

	key := newKey(t)
	status, body = cl.do("POST", "/rekey", stepapi.RekeyRequest{CSR: csr(t, key, "deployer", "deployer")})
	if status != http.StatusCreated {
		t.Fatalf("rekey: %d %s", status, body)
	}
	askToken(t, newClient(t, c, pair(t, body, key)), stepapi.TokenRequest{Service: "workers", Names: []string{"a.workers.internal"}})
	c.Check(t)
}

// A client that may not have a token gets the rule as its answer, and if it is
// authenticated the refusal is recorded.
func TestEnrollerRefusals(t *testing.T) {
	t.Parallel()
	c := enrolling(t, "")
	deployer, storage := enrol(t, c, "deployer", "deployer"), enrol(t, c, "storage", "storage")
	revoked := enrol(t, c, "deployer", "deployer")
	c.Revoke(t, revoked.Leaf.SerialNumber.String())
	for name, tc := range map[string]struct {
		cert   *tls.Certificate
		body   any
		status int
		want   string
		rule   string // recorded
	}{
		"no certificate":   {nil, stepapi.TokenRequest{Service: "storage"}, 401, "this needs a client certificate", ""},
		"not an enroller":  {storage, stepapi.TokenRequest{Service: "short"}, 403, `service "storage" is not an enroller (pki.yaml, enrollers)`, "enroller"},
		"another service":  {deployer, stepapi.TokenRequest{Service: "ingester"}, 403, `enroller deployer may not enrol service "ingester" (enrollers.deployer)`, "enroller"},
		"no service":       {deployer, stepapi.TokenRequest{Service: "nobody"}, 403, "may not enrol", "enroller"},
		"itself":           {deployer, stepapi.TokenRequest{Service: "deployer"}, 403, "may not enrol", "enroller"},
		"the authority":    {deployer, stepapi.TokenRequest{Service: "ca"}, 403, "may not enrol", "enroller"},
		"another's name":   {deployer, stepapi.TokenRequest{Service: "storage", Names: []string{"ingester"}}, 403, "profiles.storage.names", "names"},
		"names unsaid":     {deployer, stepapi.TokenRequest{Service: "workers"}, 403, "profiles.workers.names is empty", "names"},
		"revoked":          {revoked, stepapi.TokenRequest{Service: "storage"}, 401, "was revoked", "lineage not revoked"},
		"too long":         {deployer, stepapi.TokenRequest{Service: "storage", Lifetime: "61m"}, 400, "lifetime:", ""},
		"no lifetime":      {deployer, stepapi.TokenRequest{Service: "storage", Lifetime: "-1s"}, 400, "lifetime:", ""},
		"too many names":   {deployer, stepapi.TokenRequest{Service: "storage", Names: make([]string, 101)}, 400, "sans: 101 names", ""},
		"a name that none": {deployer, stepapi.TokenRequest{Service: "storage", Names: []string{"a b"}}, 400, "sans:", ""},
		"no JSON":          {deployer, "{", 400, "JSON object", ""},
		"huge":             {deployer, `{"service":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "larger than", ""},
	} {
		before := refusals(t, c)
		status, body := newClient(t, c, tc.cert).do("POST", "/1.0/token", tc.body)
		if status != tc.status || !strings.Contains(message(t, body), tc.want) {
			t.Errorf("%s: %d %s, want %d and %q", name, status, body, tc.status, tc.want)
		}
		if got := refusals(t, c)[len(before):]; tc.rule == "" && len(got) != 0 || tc.rule != "" && !slices.Equal(got, []string{tc.rule}) {
			t.Errorf("%s: recorded %q", name, got)
		}
	}
	c.Check(t)
}

// refusals returns the rules of the recorded refusals, the oldest first.
func refusals(t *testing.T, c *catest.CA) (rules []string) {
	t.Helper()
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		rules = append(rules, e.Rule)
	}
	return rules
}

// A connection can outlive the certificate that it was made with. No token is made
// over it then, and no token outlives the certificate.
func TestEnrollerExpires(t *testing.T) {
	t.Parallel()
	c := enrolling(t, "")
	ask := func(cert *x509.Certificate) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/1.0/token", strings.NewReader(`{"service":"storage","lifetime":"1h"}`))
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}, PeerCertificates: []*x509.Certificate{cert}}
		w := httptest.NewRecorder()
		c.Authority.Handler().ServeHTTP(w, r)
		return w
	}
	if w := ask(expired(t, c, "deployer", time.Minute, "deployer").Leaf); w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "the client certificate expired at") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	key := newKey(t)
	req := signRequest(t, c.Token(t, "deployer"), key, "deployer", "deployer")
	req.NotAfter = "10m"
	status, body := newClient(t, c, nil).do("POST", "/sign", req)
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	short := pair(t, body, key).Leaf
	var out stepapi.TokenResponse
	if err := json.Unmarshal(ask(short).Body.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	if end := claimsOf(t, secret.New(out.OTT)).Expiry.Time(); end.After(short.NotAfter) {
		t.Errorf("the token ends at %s, after the certificate at %s", end, short.NotAfter)
	}
}

// A token is refused if its enroller was revoked, or is no enroller any more, before
// the token is used.
func TestTokenOfFormerEnroller(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end    func(*catest.CA, *tls.Certificate)
		status int
		want   string
	}{
		"revoked": {func(c *catest.CA, cert *tls.Certificate) { c.Revoke(t, cert.Leaf.SerialNumber.String()) }, 401, "was revoked"},
		"not listed": {func(c *catest.CA, _ *tls.Certificate) {
			c.Rewrite(t, func(text []byte) []byte {
				return bytes.Replace(text, []byte("[storage, short, workers]"), []byte("[short]"), 1)
			})
			if err := c.Authority.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, 403, `enroller deployer may not enrol service "storage"`},
	} {
		c := enrolling(t, "")
		cert := enrol(t, c, "deployer", "deployer")
		token := askToken(t, newClient(t, c, cert), stepapi.TokenRequest{Service: "storage", Names: []string{"storage"}})
		tc.end(c, cert)
		status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, token, newKey(t), "storage", "storage"))
		if status != tc.status || !strings.Contains(message(t, body), tc.want) {
			t.Errorf("%s: %d %s, want %d and %q", name, status, body, tc.status, tc.want)
		}
		c.Check(t)
	}
}

// Tokens have a limit of their own, because each is an event of the record. Other
// requests of the service are not limited by it.
func TestEnrollerLimit(t *testing.T) {
	t.Parallel()
	c := enrolling(t, "limits: {per_enroller: {per_second: 0.01, burst: 2}}\n")
	cl := newClient(t, c, enrol(t, c, "deployer", "deployer"))
	for range 2 {
		askToken(t, cl, stepapi.TokenRequest{Service: "storage"})
	}
	if status, body := cl.do("POST", "/token", stepapi.TokenRequest{Service: "storage"}); status != http.StatusTooManyRequests || !strings.Contains(message(t, body), "too many requests of this enroller") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := cl.do("POST", "/renew", nil); status != http.StatusCreated {
		t.Errorf("renew: %d %s", status, body)
	}
}

// A token that cannot be recorded is not sent.
func TestTokenCommitFailure(t *testing.T) {
	t.Parallel()
	c := enrolling(t, "")
	cl := newClient(t, c, enrol(t, c, "deployer", "deployer"))
	askToken(t, cl, stepapi.TokenRequest{Service: "storage"})
	if err := c.Authority.CloseRecord(); err != nil {
		t.Fatal(err)
	}
	if status, body := cl.do("POST", "/token", stepapi.TokenRequest{Service: "storage"}); status != http.StatusInternalServerError || bytes.Contains(body, []byte("ott")) {
		t.Errorf("%d %s", status, body)
	}
}

func TestEnrollersInConfiguration(t *testing.T) {
	t.Parallel()
	c := enrolling(t, "")
	text, err := os.ReadFile(filepath.Join(c.Dir, "pki.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for list, want := range map[string]string{
		"{deployer: [storage]}":                   "",
		"{nobody: [storage]}":                     `enrollers: service "nobody" has no profile`,
		"{deployer: [nobody]}":                    `enrollers.deployer: service "nobody" has no profile`,
		"{deployer: []}":                          "enrollers.deployer: it lists no services",
		"{deployer: }":                            "enrollers.deployer: it lists no services",
		"{deployer: [deployer]}":                  `enrollers.deployer: "deployer" is an enroller itself`,
		"{deployer: [storage], storage: [short]}": `enrollers.deployer: "storage" is an enroller itself`,
		"{deployer: [ca]}":                        `enrollers.deployer: service "ca" has no profile`,
		"{serveronly: [storage]}":                 `profiles.serveronly.usages has no "client"`,
	} {
		edited := bytes.Replace(text, []byte("{deployer: [storage, short, workers]}"), []byte(list), 1)
		edited = bytes.Replace(edited, []byte("\nprofiles:\n"), []byte("\nprofiles:\n  serveronly: {names: [x], usages: [server]}\n"), 1)
		err := new(policy.Config).Decode(edited)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
	}
	inDoctor := func(want string) bool {
		return slices.ContainsFunc(doctor.Run(t.Context(), doctor.Options{Dir: c.Dir}), func(d doctor.Diagnosis) bool { return strings.Contains(d.Text, want) })
	}
	if !inDoctor("the enrolment keys for 1 enrollers can be used") {
		t.Error("doctor does not look at the enrolment key")
	}
	// The authority does not start, or go on with a new configuration, without the key.
	if err := os.Remove(filepath.Join(c.Dir, "secrets", "enrolment.jwe")); err != nil {
		t.Fatal(err)
	}
	if err := c.Authority.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "enrollers.deployer: choosing an enrolment key:") {
		t.Errorf("reload without the key: %v", err)
	}
	if !inDoctor("enrollers.deployer: choosing an enrolment key:") {
		t.Error("doctor does not miss the enrolment key")
	}
}

// Replicas have one key and one record: a token of one is accepted by another, and a
// revocation of the enroller at the third ends it at each of them.
func TestEnrollerAtReplicas(t *testing.T) {
	t.Parallel()
	three := replicas(t, catest.Options{Edit: func(text []byte) []byte { return append(text, "enrollers: {ingester: [storage]}\n"...) }})
	cert := enrol(t, three[0], "ingester", "ingester")
	sign := func(i int, token secret.String) (int, []byte) {
		return newClient(t, three[i], nil).do("POST", "/sign", signRequest(t, token, newKey(t), "storage", "storage"))
	}
	ask := stepapi.TokenRequest{Service: "storage", Names: []string{"storage"}}
	if status, body := sign(1, askToken(t, newClient(t, three[0], cert), ask)); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	late := askToken(t, newClient(t, three[1], cert), ask)
	three[2].Revoke(t, cert.Leaf.SerialNumber.String())
	if status, body := sign(0, late); status != http.StatusUnauthorized || !strings.Contains(message(t, body), "was revoked") {
		t.Errorf("after the revocation: %d %s", status, body)
	}
	if status, body := newClient(t, three[0], cert).do("POST", "/token", ask); status != http.StatusUnauthorized {
		t.Errorf("a token after the revocation: %d %s", status, body)
	}
	three[1].Check(t)
}
