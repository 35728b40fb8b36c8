package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Input is where settings come from.
type Input struct {
	// Flags are those that were given, by name.
	Flags map[string][]string
	// Environ has NAME=value, as os.Environ returns it.
	Environ []string
	// File is YAML if it ends in .yaml or .yml, else lines of NAME=value; "" is none.
	File string
}

// Collected is the text that was found for each setting.
type Collected struct {
	// found is by Setting.Key.
	found map[string]assignment
	// problems are unknown names, contradictions, and a file that cannot be read.
	problems []error
}

// assignment is one text that one source gives to one setting.
type assignment struct {
	row    Setting
	text   string
	isPath bool
	origin string // "--flag", the variable, "file:line" or "default"
}

// Problem is one thing that is wrong with one setting.
type Problem struct {
	// Name is that of the variable, also where a flag or a file set it.
	Name string
	// Origin is what set it, "" if nothing did.
	Origin string
	// Text never contains a secret.
	Text string
}

// Error names the setting, and what set it where that is not the variable itself.
func (p *Problem) Error() string {
	if p.Origin == "" || p.Origin == p.Name {
		return p.Name + ": " + p.Text
	}
	return fmt.Sprintf("%s (%s): %s", p.Name, p.Origin, p.Text)
}

// Line is one setting as `config show` prints it.
type Line struct {
	Key      string
	Variable string
	Value    string // a secret as [redacted]
	Origin   string
}

// Collect reads all sources. It never fails: what is wrong is reported by
// [Collected.Problems] and [Collected.Parse], and the rest is there to be looked at.
func Collect(in Input) *Collected {
	s := &Collected{found: map[string]assignment{}}
	var defaults []assignment
	for _, r := range Table() {
		defaults = append(defaults, assignment{row: r, text: r.Default, origin: "default"})
	}
	s.overlay(defaults)
	s.overlay(s.fromFile(in.File))
	s.overlay(s.fromEnviron(in.Environ))
	s.overlay(fromFlags(in.Flags))
	return s
}

// overlay puts the assignments of one source over those of weaker sources. Two different
// texts for one setting in the same source are a problem: no rule could say which is meant.
func (s *Collected) overlay(layer []assignment) {
	said := map[string]assignment{}
	for _, a := range layer {
		before, twice := said[a.row.Key]
		if twice && (before.text != a.text || before.isPath != a.isPath) {
			s.problem(a.row, a.origin, "is set by "+before.origin+" too, to something else: want one of them")
			continue
		}
		said[a.row.Key] = a
		s.found[a.row.Key] = a
	}
}

// problem adds a problem of the setting r, whose value comes from origin.
func (s *Collected) problem(r Setting, origin, text string) {
	s.problems = append(s.problems, &Problem{Name: r.Variable(), Origin: origin, Text: text})
}

// Problems returns the mistakes in names and files, or nil. Values are not checked: [Collected.Parse]
// does that.
func (s *Collected) Problems() error { return errors.Join(s.problems...) }

// Lines returns all settings in the order of the table.
func (s *Collected) Lines() []Line {
	var out []Line
	for _, r := range Table() {
		a := s.found[r.Key]
		value := r.displayValue(a.text)
		if a.isPath {
			value = "file " + a.text
		}
		out = append(out, Line{Key: r.Key, Variable: r.Variable(), Value: value, Origin: a.origin})
	}
	return out
}

// fromFlags takes values from flags. A flag that was repeated is a list with blanks.
func fromFlags(flags map[string][]string) (out []assignment) {
	for _, r := range Table() {
		if given := flags[r.Flag]; r.Flag != "" && len(given) > 0 {
			out = append(out, assignment{row: r, text: strings.Join(given, " "), origin: "--" + r.Flag})
		}
		if given := flags[r.FileFlag]; r.FileFlag != "" && len(given) > 0 {
			out = append(out, assignment{row: r, text: strings.Join(given, " "), isPath: true, origin: "--" + r.FileFlag})
		}
	}
	return out
}

// ownPrefixes are used by nothing else, so an unknown name under them is an error.
// sharedPrefixes are also used by Kubernetes (STORAGE_ELEMENT_SERVICE_HOST) and by other
// programs (TLS_…), so only a near miss of a known name is.
var (
	ownPrefixes    = []string{"ADMIN_MODULE__", "SERVICE_ACCOUNT__", "STORAGE_ELEMENT__", "TLS__", "TOKEN__", "UPLOAD__"}
	sharedPrefixes = []string{"ADMIN_MODULE_", "SERVICE_ACCOUNT_", "STORAGE_ELEMENT_", "TLS_", "ARTSTORE_PKI_"}
)

// fromEnviron takes values from variables. An empty variable is not set.
func (s *Collected) fromEnviron(environ []string) (out []assignment) {
	known := variables()
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		v, ours := known[name]
		switch {
		case text == "":
		case ours:
			out = append(out, assignment{row: v.row, text: text, isPath: v.isPath, origin: name})
		case hasPrefix(name, ownPrefixes):
			s.problems = append(s.problems, &Problem{Name: name, Text: "no such setting" + suggestion(name, known, farMiss)})
		case hasPrefix(name, sharedPrefixes):
			if near := suggestion(name, known, nearMiss); near != "" {
				s.problems = append(s.problems, &Problem{Name: name, Text: "no such setting" + near})
			}
		}
	}
	return out
}

// hasPrefix reports whether name begins with one of the prefixes.
func hasPrefix(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// variable is the meaning of one name.
type variable struct {
	row Setting
	// isPath is true if text is the path of the file that holds the value.
	isPath bool
}

// variables returns all names of the environment, also those of files that hold values.
func variables() map[string]variable {
	out := map[string]variable{}
	for _, r := range Table() {
		for _, name := range r.Variables() {
			out[name] = variable{row: r}
			if r.FromFile() {
				out[name+FileSuffix] = variable{row: r, isPath: true}
			}
		}
	}
	return out
}
