// Package configedit changes values in the text of a pki.yaml. What it does not change stays as
// people wrote it, to the byte: comments, blank lines, order and quotes.
//
//	text, err = configedit.SetKey(text, "enrolment", public, previous)
//
// An editor of text can hit the wrong place, for instance behind an anchor. So a caller
// decodes the result strictly and compares it with what it meant before it writes it.
//
// Invariants:
//
//   - A result decodes to the same values as before, except those that were set; otherwise
//     there is an error (TestSetKey, FuzzSetKey).
//   - What is not a value in quotes, or a list in brackets, is refused and not guessed
//     (TestSetKeyRefuses).
package configedit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// ErrForm reports that pki.yaml is valid and written in a form that is not edited here.
var ErrForm = errors.New("pki.yaml has to be edited by hand")

// Previous is a key that was replaced: a public JWK, and the time until which its tokens are
// good.
type Previous struct {
	Key   string
	Until time.Time
}

// replacement is text for a part of the file; offsets count bytes.
type replacement struct {
	from, to int
	text     string
}

// SetKey returns text with another key, and other previous keys, of the provisioner of type
// JWK that has the name. key is a public JWK as JSON. A file without such a provisioner, or
// in another form than "key: '…'", is [ErrForm].
func SetKey(text []byte, provisioner, key string, previous []Previous) ([]byte, error) {
	entry, err := findProvisioner(text, provisioner)
	if err != nil {
		return nil, err
	}
	value := valueOf(entry, "key")
	if value == nil {
		return nil, fmt.Errorf("%w: provisioner %s has no key", ErrForm, provisioner)
	}
	from, to, err := quotedSpan(text, value)
	if err != nil {
		return nil, fmt.Errorf("%w: the key of provisioner %s is not in quotes", ErrForm, provisioner)
	}
	edits := []replacement{{from, to, quote(key)}}
	list := valueOf(entry, "previous")
	switch {
	case list != nil:
		from, to, err := bracketSpan(text, list)
		if err != nil {
			return nil, fmt.Errorf("%w: previous of provisioner %s is not a list in brackets", ErrForm, provisioner)
		}
		edits = append(edits, replacement{from, to, format(previous)})
	case len(previous) > 0:
		edits = append(edits, insertion(text, entry, to, "previous: "+format(previous)))
	}
	return apply(text, edits), nil
}

// apply makes the replacements, which do not overlap.
func apply(text []byte, edits []replacement) []byte {
	out := bytes.Clone(text)
	if len(edits) == 2 && edits[0].from > edits[1].from {
		edits[0], edits[1] = edits[1], edits[0]
	}
	for i := len(edits) - 1; i >= 0; i-- { // from behind, so that offsets stay right
		e := edits[i]
		out = append(append(bytes.Clone(out[:e.from]), e.text...), out[e.to:]...)
	}
	return out
}

// insertion puts one more key behind the value that ends at the offset: in the same braces, or
// in a line of its own.
func insertion(text []byte, entry *yaml.Node, behind int, line string) replacement {
	if entry.Style&yaml.FlowStyle != 0 {
		return replacement{behind, behind, ", " + line}
	}
	indent := strings.Repeat(" ", entry.Content[0].Column-1)
	if end := bytes.IndexByte(text[behind:], '\n'); end >= 0 {
		at := behind + end + 1
		return replacement{at, at, indent + line + "\n"}
	}
	return replacement{len(text), len(text), "\n" + indent + line + "\n"}
}

// findProvisioner returns the mapping of a provisioner.
func findProvisioner(text []byte, name string) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%w: it is not YAML", ErrForm)
	}
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		if list := valueOf(doc.Content[0], "provisioners"); list != nil && list.Kind == yaml.SequenceNode {
			for _, entry := range list.Content {
				n, kind := valueOf(entry, "name"), valueOf(entry, "type")
				if n != nil && n.Value == name && kind != nil && kind.Value == "JWK" {
					return entry, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("%w: provisioner %.80q of type JWK is not in it, or is an alias", ErrForm, name)
}

// valueOf returns the value of a key of a mapping, nil if there is none.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	if mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// offset is where a node begins, in bytes. Lines and columns of nodes count from 1, and
// columns are characters.
func offset(text []byte, n *yaml.Node) (int, bool) {
	at := 0
	for range n.Line - 1 {
		end := bytes.IndexByte(text[at:], '\n')
		if end < 0 {
			return 0, false
		}
		at += end + 1
	}
	for range n.Column - 1 {
		if at >= len(text) {
			return 0, false
		}
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return at, at < len(text)
}

// quotedSpan returns where a scalar in single or double quotes (YAML 1.2 §7.3) begins and ends.
func quotedSpan(text []byte, n *yaml.Node) (from, to int, err error) {
	from, ok := offset(text, n)
	if !ok || n.Kind != yaml.ScalarNode || n.Anchor != "" {
		return 0, 0, ErrForm
	}
	if to = endOfQuotes(text, from); to < 0 {
		return 0, 0, ErrForm
	}
	return from, to, nil
}

// endOfQuotes returns the offset behind the quotes that begin at from, -1 if there are none.
func endOfQuotes(text []byte, from int) int {
	quote := text[from]
	if quote != '\'' && quote != '"' {
		return -1
	}
	for i := from + 1; i < len(text); i++ {
		switch {
		case quote == '"' && text[i] == '\\':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++ // a quote within single quotes is written twice
		case text[i] == quote:
			return i + 1
		}
	}
	return -1
}

// bracketSpan returns where a list in brackets (YAML 1.2 §7.4.1) begins and ends.
func bracketSpan(text []byte, n *yaml.Node) (from, to int, err error) {
	from, ok := offset(text, n)
	if !ok || n.Kind != yaml.SequenceNode || n.Anchor != "" || text[from] != '[' {
		return 0, 0, ErrForm
	}
	depth := 0
	for i := from; i < len(text); i++ {
		switch text[i] {
		case '\'', '"':
			end := endOfQuotes(text, i)
			if end < 0 {
				return 0, 0, ErrForm
			}
			i = end - 1
		case '#':
			return 0, 0, ErrForm // a comment would be lost
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				return from, i + 1, nil
			}
		}
	}
	return 0, 0, ErrForm
}

// quote writes a text in single quotes.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// format writes previous keys as a list in brackets, on one line.
func format(list []Previous) string {
	parts := make([]string, 0, len(list))
	for _, p := range list {
		parts = append(parts, fmt.Sprintf("{key: %s, until: %s}", quote(p.Key), p.Until.UTC().Format(time.RFC3339)))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
