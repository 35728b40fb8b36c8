package strictyaml_test

import (
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/strictyaml"
)

type config struct {
	Name  string              `yaml:"name"`
	Wait  strictyaml.Duration `yaml:"wait"`
	Count int                 `yaml:"count"`
	List  []config            `yaml:"list"`
}

func TestErrorsNameLineAndKey(t *testing.T) {
	for text, want := range map[string]string{
		"nam: x\n":                          `line 1: unknown key "nam"`,
		"name: x\nlist:\n- wiat: 3s\n":      `line 3: unknown key "wiat"`,
		"name: x\ncount: many\n":            `line 2: count: want a whole number, not "many"`,
		"name: [a]\n":                       `line 1: name: want a text, not a list`,
		"list:\n- name: x\n  wait: soon\n":  `line 3: list[0].wait: want a length of time like 36h, 14d or 2y, not "soon"`,
		"!<4> <<<0":                         `line 1: want keys with values, not "<<<0"`,
		"text\n":                            `line 1: want keys with values, not "text"`,
		"\"a\\nb c\": x\n":                  `line 1: unknown key "a\nb c"`,
		"list: x\n":                         `line 1: list: want a list, not "x"`,
		"name: x\n---\nname: y\n":           "more than one YAML document",
		"":                                  "the file is empty",
		"name: x\nname: y\n":                `line 2: mapping key "name" already defined at line 1`,
		"nam: x\ncount: many\nlist: {a: b}": `line 1: unknown key "nam"; line 2: count: want a whole number, not "many"; line 3: list: want a list, not keys with values`,
	} {
		err := strictyaml.Decode([]byte(text), new(config))
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n%v\nwant\n%s", text, err, want)
		}
	}
}

func TestDecode(t *testing.T) {
	const text = "name: x\nlist:\n  - wait: 1d12h\n  - &a\n    name: second\n  - *a\n"
	var c config
	if err := strictyaml.Decode([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if c.Name != "x" || time.Duration(c.List[0].Wait) != 36*time.Hour || c.List[2].Name != "second" {
		t.Errorf("got %+v", c)
	}
	for line, path := range map[int][]any{1: {"name"}, 2: {"list"}, 3: {"list", 0, "wait"}, 5: {"list", 2, "name"}} {
		if got := strictyaml.Line([]byte(text), path...); got != line {
			t.Errorf("%v is in line %d, want %d", path, got, line)
		}
	}
	for _, path := range [][]any{{"list", 0, "absent"}, {"list", 0, 7}} {
		if got := strictyaml.Line([]byte(text), path...); got != 3 {
			t.Errorf("%v, which does not exist: line %d, want that of its parent", path, got)
		}
	}
	if got := strictyaml.Line([]byte("\t"), "x"); got != 1 {
		t.Errorf("no YAML: line %d", got)
	}
}

// Contract: any text is decoded or refused with one line without a name of Go.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: x\nlist:\n- wait: 3s\n"))
	f.Add([]byte("nam: [a, {b: c}]\ncount: *x\n"))
	f.Add([]byte("!<4> <<<0"))
	f.Add([]byte("0 000000:"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := strictyaml.Decode(data, new(config))
		if err != nil && (strings.Contains(err.Error(), "strictyaml_test.") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %v", data, err)
		}
		_ = strictyaml.Line(data, "list", 0, "wait")
	})
}
