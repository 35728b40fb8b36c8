package configedit_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/artstore/artstore-pki/ca/internal/configedit"
)

const fresh = `{"kid":"new, it's #1"}`

var until = time.Date(2026, 11, 30, 14, 0, 0, 0, time.UTC)

// before and after are the parts of a file that an edit of it changes.
var edits = map[string]struct{ before, after string }{
	"block": {
		"  - type: JWK # ours\n    name: enrolment\n    key: \"{\\\"kid\\\":\\\"old\\\"}\" # public\n    profiles: [a]\n",
		"  - type: JWK # ours\n    name: enrolment\n    key: '{\"kid\":\"new, it''s #1\"}' # public\n    previous: [{key: 'old', until: 2026-11-30T14:00:00Z}]\n    profiles: [a]\n",
	},
	"key first": {
		"  - key: 'it''s old'\n    type: JWK\n    name: \"enrolment\"\n",
		"  - key: '{\"kid\":\"new, it''s #1\"}'\n    previous: [{key: 'old', until: 2026-11-30T14:00:00Z}]\n    type: JWK\n    name: \"enrolment\"\n",
	},
	"braces": {
		"  - {type: JWK, name: enrolment, key: 'old', profiles: [a]}\n",
		"  - {type: JWK, name: enrolment, key: '{\"kid\":\"new, it''s #1\"}', previous: [{key: 'old', until: 2026-11-30T14:00:00Z}], profiles: [a]}\n",
	},
	"more than one line": {
		"  - type: JWK\n    previous: [{key: 'x ] y',\n        until: 2020-01-01T00:00:00Z}]\n    key: 'old\n      and older'\n    name: enrolment\n",
		"  - type: JWK\n    previous: [{key: 'old', until: 2026-11-30T14:00:00Z}]\n    key: '{\"kid\":\"new, it''s #1\"}'\n    name: enrolment\n",
	},
	"behind other letters": {
		"  - {type: JWK, name: 'größer', key: 'x'}\n  - {note: 'größer', type: JWK, name: enrolment, key: 'old'}\n",
		"  - {type: JWK, name: 'größer', key: 'x'}\n  - {note: 'größer', type: JWK, name: enrolment, key: '{\"kid\":\"new, it''s #1\"}', previous: [{key: 'old', until: 2026-11-30T14:00:00Z}]}\n",
	},
}

// TestSetKey edits each form, and changes no byte beside.
func TestSetKey(t *testing.T) {
	const head, tail = "# größer\nname: x\n\n# who may\nprovisioners:\n  - {type: X5C, name: enrolment}\n", "\n# the end\nprofiles: {a: {}}"
	for name, tc := range edits {
		got, err := configedit.SetKey([]byte(head+tc.before+tail), "enrolment", fresh, []configedit.Previous{{Key: "old", Until: until}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := head + tc.after + tail; string(got) != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
	got, err := configedit.SetKey([]byte("provisioners: [{type: JWK, name: enrolment, key: 'old', previous: [{key: x}]}]"), "enrolment", "new", nil)
	if want := "provisioners: [{type: JWK, name: enrolment, key: 'new', previous: []}]"; err != nil || string(got) != want {
		t.Errorf("nothing before: %s, %v", got, err)
	}
	got, err = configedit.SetKey([]byte("provisioners:\n- type: JWK\n  name: enrolment\n  key: 'old'"), "enrolment", "new", []configedit.Previous{{Key: "old", Until: until}})
	if want := "provisioners:\n- type: JWK\n  name: enrolment\n  key: 'new'\n  previous: [{key: 'old', until: 2026-11-30T14:00:00Z}]\n"; err != nil || string(got) != want {
		t.Errorf("at the end: %s, %v", got, err)
	}
}

// TestSetKeyRefuses: other forms are edited by people.
func TestSetKeyRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no YAML":         "a: [",
		"empty":           "",
		"no such":         "provisioners: [{type: JWK, name: other, key: 'old'}]",
		"another type":    "provisioners: [{type: X5C, name: enrolment, key: 'old'}]",
		"no key":          "provisioners: [{type: JWK, name: enrolment}]",
		"block scalar":    "provisioners:\n  - type: JWK\n    name: enrolment\n    key: |\n      old\n",
		"plain":           "provisioners: [{type: JWK, name: enrolment, key: old}]",
		"anchor":          "provisioners: [{type: JWK, name: enrolment, key: &k 'old'}]",
		"alias":           "x: &x {type: JWK, name: enrolment, key: 'old'}\nprovisioners: [*x]",
		"previous, block": "provisioners:\n  - type: JWK\n    name: enrolment\n    key: 'old'\n    previous:\n      - {key: x}\n",
		"comment within":  "provisioners:\n  - type: JWK\n    name: enrolment\n    key: 'old'\n    previous: [ # why\n      {key: x}]\n",
	} {
		if got, err := configedit.SetKey([]byte(text), "enrolment", "new", nil); !errors.Is(err, configedit.ErrForm) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// FuzzSetKey: whatever the file is, the edit is refused, or the result decodes to the same values
// with the new key at its place. Nothing panics.
func FuzzSetKey(f *testing.F) {
	for _, tc := range edits {
		f.Add("provisioners:\n" + tc.before)
	}
	f.Add("provisioners: [{type: JWK, name: enrolment, key: !!str 'a', previous: !!seq []}]")
	f.Fuzz(func(t *testing.T, text string) {
		var before, after map[string]any
		if yaml.Unmarshal([]byte(text), &before) != nil || strings.ContainsAny(text, "&*") { // a caller finds an alias that changes as well
			_, _ = configedit.SetKey([]byte(text), "enrolment", "new", nil)
			return
		}
		got, err := configedit.SetKey([]byte(text), "enrolment", fresh, []configedit.Previous{{Key: "old", Until: until}})
		if err != nil {
			return
		}
		if err := yaml.Unmarshal(got, &after); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		list, _ := before["provisioners"].([]any)
		for _, e := range list {
			odd, _ := e.(map[any]any) // of a mapping with a key that is no text
			entry, _ := e.(map[string]any)
			if entry["name"] == "enrolment" && entry["type"] == "JWK" || odd["name"] == "enrolment" && odd["type"] == "JWK" {
				old := []any{map[string]any{"key": "old", "until": until}}
				if odd != nil {
					odd["key"], odd["previous"] = fresh, old
				} else {
					entry["key"], entry["previous"] = fresh, old
				}
				break
			}
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
