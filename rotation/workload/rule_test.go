package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/internal/unixsocket"
)

func TestRuleSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	ids := []string{"a"}
	many := make([]string, maxIdentities+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, c := range map[string]struct {
		rule Rule
		want string // "" is none
	}{
		"a number":            {Rule{User: "1000", Identities: ids}, ""},
		"root":                {Rule{User: "root", Group: "root", Identities: ids}, ""},
		"a group alone":       {Rule{Group: "4294967294", Identities: ids}, ""},
		"a file":              {Rule{User: "0", Executable: "/usr/bin/x", Identities: ids}, ""},
		"all":                 {Rule{User: "0", Identities: many[:maxIdentities]}, ""},
		"nothing":             {Rule{}, "neither a user nor a group"},
		"a file alone":        {Rule{Executable: "/usr/bin/x", Identities: ids}, "neither a user nor a group"},
		"no such user":        {Rule{User: "nobody-of-this-name", Identities: ids}, `finding the user "nobody-of-this-name"`},
		"no such group":       {Rule{Group: "nobody-of-this-name", Identities: ids}, `finding the group "nobody-of-this-name"`},
		"a negative number":   {Rule{User: "-1", Identities: ids}, `finding the user "-1"`},
		"minus one":           {Rule{User: "4294967295", Identities: ids}, "neither a name nor an id"},
		"too large":           {Rule{Group: "4294967296", Identities: ids}, "neither a name nor an id"},
		"hexadecimal":         {Rule{User: "0x10", Identities: ids}, "neither a name nor an id"},
		"a blank":             {Rule{User: "0 ", Identities: ids}, "neither a name nor an id"},
		"the overflow user":   {Rule{User: "65534", Identities: ids}, "each user of another user namespace"},
		"nobody":              {Rule{User: "nobody", Identities: ids}, "each user of another user namespace"},
		"the overflow group":  {Rule{Group: "65534", Identities: ids}, "each group of another user namespace"},
		"a relative file":     {Rule{User: "0", Executable: "x", Identities: ids}, "absolute"},
		"a long way to it":    {Rule{User: "0", Executable: "/usr/../bin/x", Identities: ids}, "shortest form"},
		"no identity":         {Rule{User: "0"}, "no identity"},
		"one twice":           {Rule{User: "0", Identities: []string{"a", "b", "a"}}, `"a" twice`},
		"too many":            {Rule{User: "0", Identities: many}, "64 are the most"},
		"an empty name":       {Rule{User: "0", Identities: []string{""}}, "no name of an identity"},
		"a name of two lines": {Rule{User: "0", Identities: []string{"a\nb"}}, "no name of an identity"},
		"not UTF-8":           {Rule{User: "0", Identities: []string{"\xff"}}, "no name of an identity"},
		"a long name":         {Rule{User: "0", Identities: []string{strings.Repeat("x", maxName+1)}}, "no name of an identity"},
	} {
		t.Run(name, func(t *testing.T) {
			switch err := c.rule.Check(); {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	var set Rules
	if err := set.Set(make([]Rule, maxRules+1)); err == nil || !strings.Contains(err.Error(), "256 are the most") {
		t.Errorf("too many rules: %v", err)
	}
	if err := set.Set([]Rule{{User: "1000", Identities: ids}, {}}); err == nil || !strings.Contains(err.Error(), "rule 2: it names neither") || set.current() != nil {
		t.Errorf("a bad rule: %v, in effect %v", err, set.current())
	}
}

// Contract: text is either refused, or a rule that is for one user or one group and never for
// those of other namespaces. Its names can be sent as hints.
func FuzzRule(f *testing.F) {
	for _, seed := range [][4]string{
		{"1000", "", "", "storage"}, {"root", "0", "/usr/bin/env", "a"}, {"", "65534", "", "a"}, {"0x0", "", "", ""},
		{"00", "", "/", "a"}, {"4294967295", "", "", "a"}, {"", "", "/x", "a"}, {"１", "", "", "\xff"}, {"+1", "-1", "//", "\u202e"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, user, group, executable, identity string) {
		p, err := Rule{User: user, Group: group, Executable: executable, Identities: []string{identity}}.parse()
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("the error is no text: %q", err)
			}
			return
		}
		if p.uid == nil && p.gid == nil {
			t.Error("a rule for everyone")
		}
		if (p.uid == nil) != (user == "") || (p.gid == nil) != (group == "") || p.executable != executable || !slices.Equal(p.identities, []string{identity}) {
			t.Errorf("%+v is another rule", p)
		}
		for _, foreign := range []uint32{overflowID, 1<<32 - 1} {
			if p.mayMatch(unixsocket.Peer{UID: foreign, GID: foreign}) {
				t.Errorf("it matches %d", foreign)
			}
		}
		if !utf8.ValidString(identity) {
			t.Errorf("%q cannot be sent", identity)
		}
	})
}
