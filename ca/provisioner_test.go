package ca_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// onlyFor restricts the enrolment key that Init has made to profiles.
func onlyFor(list string) func([]byte) []byte {
	return func(text []byte) []byte {
		return []byte(strings.Replace(string(text), "    name: \"enrolment\"\n", "    name: \"enrolment\"\n    profiles: "+list+"\n", 1))
	}
}

// A key that is restricted to profiles enrols their services only, and revokes
// certificates of these services only. NewToken refuses before the authority does.
func TestProvisionerProfiles(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: onlyFor("[storage, short]")})
	const refused = "provisioner enrolment is not for service \"ingester\" (provisioners, profiles of enrolment) (rule: profiles of the provisioner)"
	cl := newClient(t, c, nil)
	storage := enrol(t, c, "storage", "storage")

	if _, err := ca.StateDir(c.Dir).NewToken(t.Context(), ca.TokenOptions{Service: "ingester"}); err == nil || !strings.Contains(err.Error(), refused) {
		t.Errorf("token: %v", err)
	}
	forged, err := ca.TokenFor(c.Dir, "ingester", "ingester")
	if err != nil {
		t.Fatal(err)
	}
	if status, body := cl.do("POST", "/sign", signRequest(t, forged, newKey(t), "ingester", "ingester")); status != http.StatusForbidden || message(t, body) != refused {
		t.Errorf("sign: %d %s", status, body)
	}
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 10)
	if err != nil || len(events) != 1 || events[0].Rule != "profiles of the provisioner" || events[0].Service != "ingester" {
		t.Errorf("recorded: %+v, %v", events, err)
	}

	revoke := func(serial string) (int, string) {
		status, body := cl.do("POST", "/revoke", stepapi.RevokeRequest{Serial: serial, OTT: c.RevokeToken(t, serial).Expose(), Passive: true})
		return status, string(body)
	}
	ingester := enrolAfter(t, c, "ingester", "[storage, short, ingester]", "[storage, short]")
	if status, body := revoke(ingester); status != http.StatusForbidden || !strings.Contains(body, "profiles of the provisioner") {
		t.Errorf("revoking another's: %d %s", status, body)
	}
	if status, body := revoke(storage.Leaf.SerialNumber.String()); status != http.StatusOK {
		t.Errorf("revoking one of its own: %d %s", status, body)
	}
	c.Check(t)
}

// enrolAfter enrols a service while the enrolment key is for it, and returns the
// serial.
func enrolAfter(t *testing.T, c *catest.CA, service, with, without string) string {
	t.Helper()
	edit := func(from, to string) {
		c.Rewrite(t, func(text []byte) []byte {
			return []byte(strings.Replace(string(text), "profiles: "+from, "profiles: "+to, 1))
		})
		if err := c.Authority.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	edit(without, with)
	cert := enrol(t, c, service, service)
	edit(with, without)
	return cert.Leaf.SerialNumber.String()
}

// The same restriction holds for tokens of type X5C.
func TestX5CProfiles(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner("  - {type: X5C, name: holders, profiles: [short]}\n")})
	for service, want := range map[string]int{"short": http.StatusCreated, "storage": http.StatusForbidden} {
		holder := enrol(t, c, service, service)
		req := x5cToken(t, c, holder, "/sign", map[string]any{"sub": service, "sans": []string{service}}).request(t, newKey(t), service, service)
		status, body := newClient(t, c, nil).do("POST", "/sign", req)
		if status != want || status != http.StatusCreated && !strings.Contains(message(t, body), `provisioner holders is not for service "storage"`) {
			t.Errorf("%s: %d %s", service, status, body)
		}
	}
}

// addKey adds an enrolment key to pki.yaml. Its private half is in secrets/ only if
// here is set.
func addKey(t *testing.T, c *catest.CA, name, more string, here bool) {
	t.Helper()
	key, err := jose.GenerateJWK("EC", "P-256", "ES256", "sig", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	private, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := json.Marshal(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if here {
		if err := os.WriteFile(filepath.Join(c.Dir, "secrets", name+".jwe"), private, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.Rewrite(t, withProvisioner("  - {type: JWK, name: "+name+", key: '"+string(public)+"'"+more+"}\n"))
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Of several enrolment keys a token is signed with the first one that is for the
// service and has its private half here. A key that is named is used or refused.
func TestTokenChoosesItsKey(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	addKey(t, c, "elsewhere", "", false)
	addKey(t, c, "deploy", ", profiles: [storage]", true)
	for _, tc := range []struct{ service, provisioner, issuer, refused string }{
		{"storage", "", "deploy", ""},
		{"ingester", "", "enrolment", ""},
		{"storage", "enrolment", "enrolment", ""},
		{"ingester", "deploy", "", "provisioner deploy is not for service"},
		{"storage", "elsewhere", "", "reading the enrolment key"},
		{"storage", "nowhere", "", `provisioner "nowhere" of type JWK is not in pki.yaml`},
	} {
		token, err := ca.StateDir(c.Dir).NewToken(t.Context(), ca.TokenOptions{Service: tc.service, Provisioner: tc.provisioner})
		if tc.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%+v: %v", tc, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tc, err)
			continue
		}
		status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, token, newKey(t), tc.service, profiles()[tc.service].Names...))
		if status != http.StatusCreated {
			t.Fatalf("%+v: %d %s", tc, status, body)
		}
		got := slices.DeleteFunc(listAll(t, c), func(e record.Certificate) bool { return e.Service != tc.service })
		if got[0].Provisioner != tc.issuer {
			t.Errorf("%+v: signed by %q", tc, got[0].Provisioner)
		}
	}
}

// A list of profiles that could be misunderstood is refused.
func TestProvisionerProfilesInConfiguration(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	text, err := os.ReadFile(filepath.Join(c.Dir, "pki.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	own, _, _ := strings.Cut(string(text)[strings.Index(string(text), "  - type: JWK\n    name"):], "\n\n")
	for name, tc := range map[string]struct {
		edit func([]byte) []byte
		want string // empty: it is valid
	}{
		"listed":       {onlyFor("[storage]"), ""},
		"unknown":      {onlyFor("[storage, strage]"), `provisioners[0].profiles: service "strage" has no profile`},
		"empty":        {onlyFor("[]"), "provisioners[0].profiles: it is empty"},
		"no value":     {onlyFor("# [storage]"), "provisioners[0].profiles: it has no value"},
		"for ACME":     {withProvisioner("  - {type: ACME, name: acme, profiles: [storage]}\n"), "provisioners[0].profiles: it belongs to types JWK and X5C"},
		"one key":      {withProvisioner(strings.Replace(own, "enrolment", "other", 1) + "\n"), ""},
		"one key, two": {withProvisioner(strings.Replace(own, "name: \"enrolment\"", "name: other\n    profiles: [storage]", 1) + "\n"), "provisioners other and enrolment have the same key and different profiles"},
	} {
		err := new(policy.Config).Decode(tc.edit(text))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
