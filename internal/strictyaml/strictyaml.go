// Package strictyaml decodes YAML that a person has written, strictly: a misspelt key that is
// ignored would be a rule without effect. Its errors are one line of text each, for the author of
// the file, with line and key.
//
//	err := strictyaml.Decode(data, &config)
//
// Invariants:
//
//   - An unknown key, a repeated key, a value of another type and a second document are errors
//     that name the line (TestErrorsNameLineAndKey).
//   - No error has a name of a Go type (TestErrorsNameLineAndKey, FuzzDecode).
package strictyaml

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

// Decode decodes one document. Errors are one line of text, and name line and key.
func Decode(data []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty")
		}
		return errors.New(Plain(err, data))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	return nil
}

var (
	unknownKey = regexp.MustCompile(`(?s)^(line [0-9]+: )field (.*) not found in type .*$`)
	// The library's report of a value of the wrong type. It shortens the value to seven characters and dots.
	wrongType = regexp.MustCompile("(?s)^line ([0-9]+): cannot unmarshal (.*?)(?: `(.*)`)? into (.+)$")
)

// Plain turns the library's report (several lines, Go type names, no keys) into one line for the
// author of the file, whose text is data.
func Plain(err error, data []byte) string {
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
			if key := unknownKey.FindStringSubmatch(text); key != nil {
				out[i] = fmt.Sprintf("%sunknown key %.80q", key[1], key[2])
			}
			continue
		}
		value := strings.TrimSuffix(m[3], "...")
		at, node := find(&doc, "", func(n *yaml.Node) bool {
			return strconv.Itoa(n.Line) == m[1] && n.ShortTag() == m[2] && strings.HasPrefix(n.Value, value)
		})
		switch {
		case node == nil: // the library reports something that it has made of the value
			out[i] = fmt.Sprintf("line %s: want %s", m[1], wantedType(m[4]))
		case at == "": // the document itself has no key
			out[i] = fmt.Sprintf("line %s: want %s, not %s", m[1], wantedType(m[4]), givenType(node))
		default:
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
	case goType == LengthOfTime:
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

// LengthOfTime stands for a Go type in [Mismatch].
const LengthOfTime = "length of time"

// Mismatch returns the report of a method UnmarshalYAML that cannot take a value, in the form of
// the library's. [Plain] finds the key for it. into is a Go type or [LengthOfTime].
func Mismatch(n *yaml.Node, into string) string {
	return fmt.Sprintf("line %d: cannot unmarshal %s `%.7s` into %s", n.Line, n.ShortTag(), n.Value, into)
}

// Duration is a length of time in the form of the flags of the commands: 36h, 14d or 2y.
type Duration time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := humantime.Parse(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{Mismatch(n, LengthOfTime)}}
	}
	*d = Duration(v)
	return nil
}

// Line returns the line of the value at a path of keys and indexes in a document that [Decode] has
// accepted, or of its innermost parent that exists.
func Line(data []byte, path ...any) int {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil || len(doc.Content) == 0 {
		return 1
	}
	at := doc.Content[0]
	line := at.Line
	for _, step := range path {
		next, key := child(at, step)
		if next == nil {
			return line
		}
		at, line = next, key.Line
	}
	return line
}

// child returns a value below n, and the node in whose line a reader finds it: that of its key in a
// mapping, and its own in a list.
func child(n *yaml.Node, step any) (value, key *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch step := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return n.Content[step], n.Content[step]
		}
	case string:
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1], n.Content[i]
			}
		}
	}
	return nil, nil
}
