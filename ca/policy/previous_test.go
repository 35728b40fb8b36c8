package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/policy"
)

// publicKey is a new key as pki.yaml has it.
func publicKey(t *testing.T) string {
	t.Helper()
	key, err := jose.GenerateJWK("EC", "P-256", "ES256", "sig", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public()
	text, err := public.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPreviousKeys: a key that was replaced ends at a time, is no key of another provisioner, and
// is not the key that replaced it.
func TestPreviousKeys(t *testing.T) {
	const form = "name: x\naddress: 127.0.0.1:0\ndns_names: [localhost]\nprofiles: {a: {names: [a]}, b: {names: [b]}}\nprovisioners:\n" +
		"  - {type: JWK, name: one, key: '%s', previous: [%s]}\n  - {type: JWK, name: two, key: '%s', profiles: [a]}\n"
	one, two, old := publicKey(t), publicKey(t), publicKey(t)
	for name, tc := range map[string]struct{ previous, want string }{
		"none":          {"", ""},
		"one":           {"{key: '" + old + "', until: 2026-11-30T14:00:00Z}", ""},
		"in quotes":     {"{key: '" + old + "', until: '2026-11-30T14:00:00+01:00'}", ""},
		"no time":       {"{key: '" + old + "'}", "provisioners[0].previous[0].until: want the time at which the key ends"},
		"no such time":  {"{key: '" + old + "', until: tomorrow}", "a time like 2026-11-30T14:00:00Z"},
		"no key":        {"{until: 2026-11-30T14:00:00Z}", "provisioners[0].previous[0].key: not a JWK"},
		"unknown value": {"{key: '" + old + "', since: 2026-11-30T14:00:00Z}", `unknown key "since"`},
		"its own":       {"{key: '" + one + "', until: 2026-11-30T14:00:00Z}", "provisioner one: previous: a key is there twice"},
		"another's":     {"{key: '" + two + "', until: 2026-11-30T14:00:00Z}", "provisioners one and two have the same key and different profiles"},
		"many":          {strings.Repeat("{key: x, until: 2026-11-30T14:00:00Z}, ", 17), "provisioners[0].previous: more than 16 keys"},
	} {
		err := new(policy.Config).Decode(fmt.Appendf(nil, form, one, tc.previous, two))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
