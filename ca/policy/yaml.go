package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/artstore/artstore-pki/internal/humantime"
)

// decodeYAML decodes one document strictly: a misspelt key that is ignored would be a rule
// without effect. Errors are one line of text, and name line and key.
func decodeYAML(data []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty")
		}
		return errors.New(plainYAML(err, data))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	return nil
}

var (
	unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)
	// The library's report of a value of the wrong type. It shortens the value to seven characters and dots.
	wrongType = regexp.MustCompile("(?s)^line ([0-9]+): cannot unmarshal (!!\\S+)(?: `(.*)`)? into (.+)$")
)

// plainYAML turns the library's report (several lines, Go type names, no keys)
// into one line for the author of the file.
func plainYAML(err error, data []byte) string {
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	if badTime, isTime := errors.AsType[*time.ParseError](err); isTime { // the library does not say where
		return fmt.Sprintf("want %s, not %.80q", wantedType("time.Time"), badTime.Value)
	}
	if !ok {
		return strings.TrimPrefix(err.Error(), "yaml: ")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil { // it was parsed before
		return err.Error()
	}
	out := slices.Clone(wrong.Errors)
	for i, text := range out {
		m := wrongType.FindStringSubmatch(text)
		if m == nil {
			out[i] = unknownKey.ReplaceAllString(text, `unknown key "$1"`)
			continue
		}
		value := strings.TrimSuffix(m[3], "...")
		at, node := find(&doc, "", func(n *yaml.Node) bool {
			return strconv.Itoa(n.Line) == m[1] && n.ShortTag() == m[2] && strings.HasPrefix(n.Value, value)
		})
		if node != nil {
			out[i] = fmt.Sprintf("line %s: %s: want %s, not %s", m[1], at, wantedType(m[4]), givenType(node))
		}
	}
	return strings.Join(out, "; ")
}

// find returns the innermost value for which meant is true, and its key, such as
// profiles.ingester.names[0]; nil if there is none. An outer mapping may fit too, because it
// begins in the line of its first value.
func find(n *yaml.Node, at string, meant func(*yaml.Node) bool) (string, *yaml.Node) {
	for i, child := range n.Content {
		key := at
		switch n.Kind {
		case yaml.MappingNode:
			if i%2 == 0 {
				continue // a key
			}
			key = strings.TrimPrefix(at+"."+n.Content[i-1].Value, ".")
		case yaml.SequenceNode:
			key = fmt.Sprintf("%s[%d]", at, i)
		}
		if path, found := find(child, key, meant); found != nil {
			return path, found
		}
	}
	if meant(n) {
		return at, n
	}
	return "", nil
}

func wantedType(goType string) string {
	switch goType = strings.TrimPrefix(goType, "*"); {
	case goType == "string":
		return "a text"
	case goType == lengthOfTime:
		return "a length of time like 36h, 14d or 2y"
	case goType == "time.Time":
		return "a time like 2026-11-30T14:00:00Z"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"):
		return "a whole number"
	case strings.HasPrefix(goType, "float"):
		return "a number"
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	}
	return "keys with values"
}

func givenType(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "keys with values"
	}
	return fmt.Sprintf("%.80q", n.Value)
}

// lengthOfTime stands for a Go type in the reports of [Lifetimes.UnmarshalYAML].
const lengthOfTime = "length of time"

// UnmarshalYAML reads lengths of time in the form of the flags of the commands. The strict mode
// of the decoder does not apply inside of this method, so the method refuses unknown and
// repeated keys. Its errors have the form of the library's, in which [plainYAML] finds keys.
func (l *Lifetimes) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return &yaml.TypeError{Errors: []string{cannotUnmarshal(n, "lifetimes")}}
	}
	var wrong []string
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if problem := l.set(key.Value, value); problem != "" {
			wrong = append(wrong, problem)
		}
		if seen[key.Value] {
			wrong = append(wrong, fmt.Sprintf("line %d: key %q is there twice", key.Line, key.Value))
		}
		seen[key.Value] = true
	}
	if len(wrong) > 0 {
		return &yaml.TypeError{Errors: wrong}
	}
	return nil
}

func cannotUnmarshal(n *yaml.Node, into string) string {
	return fmt.Sprintf("line %d: cannot unmarshal %s `%.7s` into %s", n.Line, n.ShortTag(), n.Value, into)
}

// set takes the value of one key, or says what is wrong with it.
func (l *Lifetimes) set(key string, value *yaml.Node) (problem string) {
	grace := new(time.Duration)
	into, known := map[string]*time.Duration{"default": &l.Default, "min": &l.Min, "max": &l.Max, "grace": grace}[key]
	if !known {
		return fmt.Sprintf("line %d: unknown key %q", value.Line, key)
	}
	if value.ShortTag() == "!!null" {
		return ""
	}
	d, err := humantime.Parse(value.Value)
	if err != nil || value.Kind != yaml.ScalarNode {
		return cannotUnmarshal(value, lengthOfTime)
	}
	if *into = d; into == grace {
		l.Grace = grace
	}
	return ""
}
