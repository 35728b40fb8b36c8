package ca_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
)

// A value of the wrong type is reported with its line, its key and what is wanted
// there. The text has no Go types of the program.
func TestConfigTypes(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: map[string]policy.Profile{"ingester": {Names: []string{"ingester"}}}})
	text, err := os.ReadFile(filepath.Join(c.Dir, "pki.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ old, now, want string }{
		{`    names: ["ingester"]`, `    names: ingester`, `profiles.ingester.names: want a list, not "ingester"`},
		{`    names: ["ingester"]`, `    names: [{a: b}]`, `profiles.ingester.names[0]: want a text, not keys with values`},
		{`    names: ["ingester"]`, "    names: [ingester]\n    max_live: several certificates", `profiles.ingester.max_live: want a whole number, not "several certificates"`},
		{`    names: ["ingester"]`, "    names: [ingester]\n    acme: [maybe]", `profiles.ingester.acme: want true or false, not a list`},
		{`    names: ["ingester"]`, "    names: [ingester]\n    lifetime: 90d", `profiles.ingester.lifetime: want keys with values, not "90d"`},
		{`    names: ["ingester"]`, "    names: [ingester]\n    lifetime: {min: 5m, max: 90x}", `profiles.ingester.lifetime.max: want a length of time like 36h, 14d or 2y, not "90x"`},
		{`    names: ["ingester"]`, "    names: [ingester]\n    lifetime: {min: [5m]}", `profiles.ingester.lifetime.min: want a length of time like 36h, 14d or 2y, not a list`},
		{`    names: ["ingester"]`, "    names: [ingester]\n    lifetime: {maximum: 5m}", `unknown key "maximum"`},
		{`    names: ["ingester"]`, "    names: [ingester]\n    lifetime: {min: 5m, min: 6m}", `key "min" is there twice`},
		{`profiles:`, "limits: {per_address: {per_second: fast}}\nprofiles:", `limits.per_address.per_second: want a number, not "fast"`},
	} {
		changed := strings.Replace(string(text), tc.old, tc.now, 1)
		err := new(policy.Config).Decode([]byte(changed))
		if err == nil || !strings.Contains(err.Error(), "line ") || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "ca.") {
			t.Errorf("%s:\n got %v\nwant line N: %s", tc.now, err, tc.want)
		}
	}
}

// pki.yaml accepts the same lengths of time as the flags.
func TestConfigLengthsOfTime(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: map[string]policy.Profile{"ingester": {Names: []string{"ingester"}}}})
	c.Rewrite(t, func(b []byte) []byte {
		return []byte(strings.Replace(string(b), `    names: ["ingester"]`, "    names: [ingester]\n    lifetime: &long {default: 2w, max: 90d, min: , grace: 1d12h}", 1))
	})
	cfg, err := policy.Load(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	life := cfg.Profiles["ingester"].Lifetime
	const day = 24 * time.Hour
	if life.Default != 14*day || life.Max != 90*day || life.Min != 0 || life.Grace == nil || *life.Grace != 36*time.Hour {
		t.Errorf("default %s, max %s, min %s, grace %v", life.Default, life.Max, life.Min, life.Grace)
	}
}
