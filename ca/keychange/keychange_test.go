package keychange_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/keychange"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func profiles() map[string]policy.Profile {
	return map[string]policy.Profile{"storage": {Names: []string{"storage"}}}
}

// ask sends a request to the authority, and returns status and body of the answer.
func ask(t *testing.T, c *catest.CA, method, path string, body []byte) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: certs.Pool(c.Roots()...), MinVersion: tls.VersionTLS13}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+stepapi.Prefix+path, bytes.NewReader(body))
	must(t, err)
	resp, err := client.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// enrol uses a token for service storage, and returns the status.
func enrol(t *testing.T, c *catest.CA, token secret.String) int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "storage"}, DNSNames: []string{"storage"}}, key)
	must(t, err)
	body, err := json.Marshal(stepapi.SignRequest{CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), OTT: token.Expose()})
	must(t, err)
	status, _ := ask(t, c, "POST", stepapi.PathSign, body)
	return status
}

// rotate gives the provisioner a new key, and reloads the authority.
func rotate(t *testing.T, c *catest.CA, keep time.Duration) keychange.EnrolmentResult {
	t.Helper()
	made, err := keychange.EnrolmentKey(t.Context(), keychange.EnrolmentOptions{Dir: c.Dir, Keep: keep})
	must(t, err)
	must(t, c.Authority.Reload(t.Context()))
	return made
}

// TestEnrolmentKeyOverlaps: tokens that were handed out stay good for their time, and new ones are
// signed with the new key at once. step sees the new key. After the time, the old key is unknown.
func TestEnrolmentKeyOverlaps(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	before, err := os.ReadFile(filepath.Join(c.Dir, "pki.yaml"))
	must(t, err)
	handedOut, unused := c.Token(t, "storage"), c.Token(t, "storage")
	made := rotate(t, c, keychange.LongestToken)
	for what, token := range map[string]secret.String{"old": handedOut, "new": c.Token(t, "storage")} {
		if status := enrol(t, c, token); status != http.StatusCreated {
			t.Errorf("a token of the %s key: %d", what, status)
		}
	}
	if _, list := ask(t, c, "GET", "/provisioners", nil); !strings.Contains(list, made.KeyID) || strings.Contains(list, made.Replaced) {
		t.Errorf("step sees %s", list)
	}
	cfg, err := policy.Load(c.Dir)
	must(t, err)
	rules, err := cfg.Parse()
	must(t, err)
	for end, want := range map[time.Duration]bool{-time.Second: true, 0: false, time.Hour: false} {
		if _, key := rules.EnrolmentKey(made.Replaced, "enrolment", made.Until.Add(end)); (key != nil) != want {
			t.Errorf("the old key %s after its end: good %v", end, key != nil)
		}
	}
	after, err := os.ReadFile(filepath.Join(c.Dir, "pki.yaml"))
	must(t, err)
	if lines := difference(string(before), string(after)); len(lines) != 2 {
		t.Errorf("lines of pki.yaml that changed: %q", lines)
	}
	if until := time.Until(made.Until); until > keychange.LongestToken || until < keychange.LongestToken-time.Minute {
		t.Errorf("good for %s", until)
	}
	rotate(t, c, 0)
	if status := enrol(t, c, unused); status != http.StatusUnauthorized {
		t.Errorf("a token of the first key, after the second was stolen: %d", status)
	}
	c.Check(t)
}

// difference returns the lines of b that a does not have.
func difference(a, b string) (out []string) {
	has := map[string]bool{}
	for line := range strings.Lines(a) {
		has[line] = true
	}
	for line := range strings.Lines(b) {
		if !has[line] {
			out = append(out, line)
		}
	}
	return out
}

// TestEnrolmentKeyAtOnce: nothing that a stolen key has signed is good after the reload.
func TestEnrolmentKeyAtOnce(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	stolen := c.Token(t, "storage")
	rotate(t, c, 0)
	if status := enrol(t, c, stolen); status != http.StatusUnauthorized {
		t.Errorf("a token of the stolen key: %d", status)
	}
	if status := enrol(t, c, c.Token(t, "storage")); status != http.StatusCreated {
		t.Errorf("a token of the new key: %d", status)
	}
}

// TestEnrolmentKeyElsewhere: the private half of a key may be on another machine, and the file here
// may have that of a pki.yaml from before. Either way the new key is here, and alone in the file.
func TestEnrolmentKeyElsewhere(t *testing.T) {
	t.Parallel()
	c, other := catest.Start(t, catest.Options{Profiles: profiles()}), catest.Start(t, catest.Options{})
	path := filepath.Join(c.Dir, "secrets", "enrolment.jwe")
	foreign, err := os.ReadFile(filepath.Join(other.Dir, "secrets", "enrolment.jwe"))
	must(t, err)
	for name, arrange := range map[string]func() error{
		"elsewhere": func() error { return os.Remove(path) },
		"another":   func() error { return os.WriteFile(path, foreign, 0o600) },
	} {
		must(t, arrange())
		rotate(t, c, 0)
		if data, err := os.ReadFile(path); err != nil || strings.Count(string(data), `"d":`) != 1 {
			t.Errorf("%s: other keys in the file, %v", name, err)
		}
		if status := enrol(t, c, c.Token(t, "storage")); status != http.StatusCreated {
			t.Errorf("%s: a token of the new key: %d", name, status)
		}
	}
}

// TestEnrolmentKeyCrashes keeps what is on the disk before each write, which is what a crash leaves
// there. From each state the authority starts, doctor finds nothing, a token is signed with the key
// of pki.yaml, the record has the event of each key in effect, and the same call succeeds.
func TestEnrolmentKeyCrashes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Profiles: profiles()})
	must(t, err)
	var states []string
	opt := keychange.EnrolmentOptions{Dir: dir, Keep: keychange.LongestToken}
	opt.BeforeWrite(func() error {
		state := filepath.Join(t.TempDir(), "ca")
		states = append(states, state)
		return os.CopyFS(state, os.DirFS(dir))
	})
	made, err := keychange.EnrolmentKey(t.Context(), opt)
	must(t, err)
	if len(states) != 4 {
		t.Errorf("%d writes", len(states))
	}
	for i, state := range append(states, dir) {
		if kid := inEffect(t, state); (kid == made.KeyID) != (i >= 3) {
			t.Errorf("before write %d, key %s is in effect", i, kid)
		}
		again, err := keychange.EnrolmentKey(t.Context(), keychange.EnrolmentOptions{Dir: state, Keep: keychange.LongestToken})
		must(t, err)
		if kid := inEffect(t, state); kid != again.KeyID {
			t.Errorf("before write %d, and once more: key %s is in effect, and %s was made", i, kid, again.KeyID)
		}
		if data, err := os.ReadFile(again.File); err != nil || strings.Count(string(data), `"d":`) != 1 {
			t.Errorf("before write %d, and once more: %s has other keys, %v", i, again.File, err)
		}
	}
}

// inEffect starts the authority and returns the id of the key that signs tokens.
func inEffect(t *testing.T, dir string) (kid string) {
	t.Helper()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, a.Close())
	for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: dir, Log: true}) {
		if d.Severity == doctor.Error && d.Check != "permissions" { // a copy has modes of its own
			t.Errorf("doctor: %s: %s", d.Check, d.Text)
		}
	}
	token, err := ca.StateDir(dir).NewToken(t.Context(), ca.TokenOptions{Service: "storage"})
	must(t, err)
	parsed, err := jose.ParseSigned(token.Expose())
	must(t, err)
	kid = parsed.Headers[0].KeyID
	cfg, err := policy.Load(dir)
	must(t, err)
	rules, err := cfg.Parse()
	must(t, err)
	_, key := rules.EnrolmentKey(kid, "enrolment", time.Now())
	if key == nil || parsed.Claims(key, &jose.Claims{}) != nil || rules.JWKs[0].Key.KeyID != kid {
		t.Errorf("a token is signed with a key that pki.yaml does not name: %s", kid)
	}
	if events := changes(t, dir); len(cfg.Provisioners[0].Previous) > 0 && !strings.Contains(events[len(events)-1].Detail, "key "+kid+";") {
		t.Errorf("key %s is in effect; the record tells of %+v", kid, events)
	}
	return kid
}

func changes(t *testing.T, dir string) []record.Event {
	t.Helper()
	r, err := ca.StateDir(dir).OpenRecord(t.Context())
	must(t, err)
	defer func() { _ = r.Close() }()
	events, err := r.Events(t.Context(), kinds.KeyChanged, 0, 100)
	must(t, err)
	return events
}

// TestEnrolmentKeyRefuses: what is refused has written nothing.
func TestEnrolmentKeyRefuses(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := setup.Init(t.Context(), setup.Options{Dir: dir, Profiles: profiles()})
	must(t, err)
	config := filepath.Join(dir, "pki.yaml")
	text, err := os.ReadFile(config)
	must(t, err)
	key, err := os.ReadFile(filepath.Join(dir, "secrets", "enrolment.jwe"))
	must(t, err)
	for name, tc := range map[string]struct {
		opt  keychange.EnrolmentOptions
		edit func(string) string
		want error
	}{
		"wrong password": {keychange.EnrolmentOptions{Password: secret.New("another password")}, nil, ca.ErrWrongPassword},
		"unknown":        {keychange.EnrolmentOptions{Provisioner: "other"}, nil, keychange.ErrProvisioner},
		"too long":       {keychange.EnrolmentOptions{Keep: keychange.LongestKeep + 1}, nil, keychange.ErrKeep},
		"form": {keychange.EnrolmentOptions{}, func(s string) string {
			_, rest, _ := strings.Cut(s, `    key: "`)
			value, _, _ := strings.Cut(rest, "\"\n")
			return strings.Replace(s, `"`+value+`"`, "|-\n      "+strings.ReplaceAll(value, `\"`, `"`), 1)
		}, keychange.ErrForm},
	} {
		now := text
		if tc.edit != nil {
			now = []byte(tc.edit(string(text)))
		}
		must(t, os.WriteFile(config, now, 0o600))
		tc.opt.Dir = dir
		if _, err := keychange.EnrolmentKey(t.Context(), tc.opt); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(config); err != nil || !bytes.Equal(after, now) {
			t.Errorf("%s: pki.yaml was changed, %v", name, err)
		}
		if after, err := os.ReadFile(filepath.Join(dir, "secrets", "enrolment.jwe")); err != nil || !bytes.Equal(after, key) {
			t.Errorf("%s: the key was changed, %v", name, err)
		}
	}
	// Somebody edits the file while the key is made.
	must(t, os.WriteFile(config, text, 0o600))
	opt, writes := keychange.EnrolmentOptions{Dir: dir}, 0
	opt.BeforeWrite(func() error {
		if writes++; writes == 3 {
			return os.WriteFile(config, append(text, "# more\n"...), 0o600)
		}
		return nil
	})
	if _, err := keychange.EnrolmentKey(t.Context(), opt); !errors.Is(err, keychange.ErrEdited) {
		t.Errorf("edited meanwhile: %v", err)
	}
}

// TestPassword changes the password beside a running authority. It goes on, and a reload takes the
// new password from the file that it reads anyway.
func TestPassword(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := setup.Init(t.Context(), setup.Options{Dir: dir, Profiles: profiles()})
	must(t, err)
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer func() { must(t, a.Close()) }()
	opt := keychange.PasswordOptions{Dir: dir, New: secret.New("short")}
	if _, err := keychange.Password(t.Context(), opt); !errors.Is(err, setup.ErrPassword) {
		t.Errorf("a short one: %v", err)
	}
	opt.New = secret.New("the new password")
	done, err := keychange.Password(t.Context(), opt)
	if err != nil || len(done.Changed) != 4 {
		t.Fatalf("%+v, %v", done, err)
	}
	must(t, a.Reload(t.Context()))
	must(t, a.Ready(t.Context()))
	opt.Password, opt.Roots = secret.New("of no key at all"), true
	opt.New = secret.New("another one")
	if _, err := keychange.Password(t.Context(), opt); !errors.Is(err, keychange.ErrNoRootKey) {
		t.Errorf("of the root, with another password: %v", err)
	}
}
