package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/artstore/artstore-pki/internal/fileperm"
)

// maxFile bounds each file that is read, in bytes.
const maxFile = 1 << 20

// entry is one key of a file with its text.
type entry struct {
	line int
	name string // section.name in YAML, else a variable
	text string
}

// lineError is something wrong at one line of the file.
type lineError struct {
	line int
	text string
}

// fromFile takes values from a file. Problems are reported in the order of the lines. A secret
// in a file that others can read is an error, because it is no secret.
func (s *Collected) fromFile(path string) (out []assignment) {
	if path == "" {
		return nil
	}
	data, info, err := readFile(path)
	if err != nil {
		s.problems = append(s.problems, fmt.Errorf("reading settings: %w", err))
		return nil
	}
	parse, known := parseEnvFile, variables()
	if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
		parse, known = parseYAML, keys()
	}
	entries, wrong := parse(data)
	for _, e := range entries {
		v, ours := known[e.name]
		switch {
		case !ours:
			wrong = append(wrong, lineError{e.line, fmt.Sprintf("no such setting: %.60q%s", e.name, suggestion(e.name, known, farMiss))})
		case v.row.secret && !v.isPath && fileperm.Exposed(info):
			wrong = append(wrong, lineError{e.line, fmt.Sprintf("%s is a secret, and mode %04o lets others read it: want 0600", v.row.Variable(), info.Mode().Perm())})
		case e.text != "":
			out = append(out, assignment{row: v.row, text: e.text, isPath: v.isPath, origin: fmt.Sprintf("%s:%d", path, e.line)})
		}
	}
	slices.SortStableFunc(wrong, func(a, b lineError) int { return a.line - b.line })
	for _, w := range wrong {
		s.problems = append(s.problems, fmt.Errorf("%s:%d: %s", path, w.line, w.text))
	}
	return out
}

// readFile reads at most maxFile bytes. info is that of the open file, so that its mode
// belongs to the bytes that were read.
func readFile(path string) (data []byte, info os.FileInfo, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return data, info, err
}

// keys returns all names of a YAML file, as section.name.
func keys() map[string]variable {
	out := map[string]variable{}
	for _, r := range Table() {
		out[r.Key] = variable{row: r}
		if r.FromFile() {
			out[r.Key+strings.ToLower(FileSuffix)] = variable{row: r, isPath: true}
		}
	}
	return out
}

// parseYAML reads sections of keys with plain values or lists of them. Anchors, aliases and
// deeper nesting are errors. It decodes to nodes, because nodes know their line, and a
// structure would drop unknown keys.
func parseYAML(data []byte) (out []entry, wrong []lineError) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) { // no document: nothing is set
			return nil, nil
		}
		return nil, []lineError{yamlError(err)}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, []lineError{{1, "more than one YAML document"}}
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	sections, err := pairs(root)
	if err != nil {
		return nil, []lineError{{root.Line, err.Error()}}
	}
	for _, section := range sections {
		settings, err := pairs(section.value)
		if err != nil {
			wrong = append(wrong, lineError{section.line, fmt.Sprintf("%.60q: %s", section.name, err)})
		}
		for _, s := range settings {
			text, err := plain(s.value)
			if err != nil {
				wrong = append(wrong, lineError{s.line, fmt.Sprintf("%.60q: %s", s.name, err)})
				continue
			}
			out = append(out, entry{s.line, section.name + "." + s.name, text})
		}
	}
	return out, wrong
}

// yamlLine is the beginning of an error of the YAML library, with the number of the line.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// yamlError drops what follows the first quote: the library quotes the file there, and that
// may be a secret.
func yamlError(err error) lineError {
	line := 1
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		line, _ = strconv.Atoi(m[1]) // digits
	}
	text, _, _ := strings.Cut(yamlLine.ReplaceAllString(err.Error(), ""), "`")
	return lineError{line, "not YAML: " + strings.TrimSpace(text)}
}

// pair is one key of a mapping with its value, and the line of the key.
type pair struct {
	line  int
	name  string
	value *yaml.Node
}

// pairs returns the keys and values of a mapping, in order.
func pairs(n *yaml.Node) (out []pair, err error) {
	if n.Kind != yaml.MappingNode {
		return nil, errors.New("want keys with values")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out = append(out, pair{n.Content[i].Line, n.Content[i].Value, n.Content[i+1]})
	}
	return out, nil
}

// plain returns the text of a scalar, or the texts of a list of scalars with blanks between.
func plain(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "", nil
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case n.Kind != yaml.SequenceNode:
		return "", errors.New("want a plain value")
	}
	var list []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode {
			return "", errors.New("want a list of plain values")
		}
		list = append(list, item.Value)
	}
	return strings.Join(list, " "), nil
}

// variableName is the form of a name in an environment file, as POSIX shells have it.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// parseEnvFile reads lines of NAME=value, as docker --env-file and systemd's EnvironmentFile
// do. Blank lines, comments (#) and a leading "export" are skipped, and one pair of quotes
// around a value is removed. Nothing is expanded, because client secrets contain dollar and
// percent signs.
func parseEnvFile(data []byte) (out []entry, wrong []lineError) {
	n := 0
	for raw := range strings.Lines(string(data)) {
		n++
		line := strings.TrimSpace(raw)
		if line == "" || line[0] == '#' {
			continue
		}
		name, text, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(strings.TrimPrefix(name, "export "))
		if !ok || !variableName.MatchString(name) {
			wrong = append(wrong, lineError{n, "want NAME=value"})
			continue
		}
		text, err := unquote(strings.TrimSpace(text))
		if err != nil {
			wrong = append(wrong, lineError{n, name + ": " + err.Error()})
			continue
		}
		out = append(out, entry{n, name, text})
	}
	return out, wrong
}

// unquote returns text without the pair of quotes around it, if there is one. It interprets
// nothing between them.
func unquote(text string) (string, error) {
	if text == "" || text[0] != '"' && text[0] != '\'' {
		return text, nil
	}
	if len(text) < 2 || text[len(text)-1] != text[0] {
		return "", errors.New("the closing quote is missing")
	}
	return text[1 : len(text)-1], nil
}
