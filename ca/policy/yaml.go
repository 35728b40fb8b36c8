package policy

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/strictyaml"
)

// UnmarshalYAML reads lengths of time in the form of the flags of the commands. The strict mode
// of the decoder does not apply inside of this method, so the method refuses unknown and
// repeated keys. Its errors have the form of the library's, in which [strictyaml.Plain] finds keys.
func (l *Lifetimes) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return &yaml.TypeError{Errors: []string{strictyaml.Mismatch(n, "lifetimes")}}
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
		return strictyaml.Mismatch(value, strictyaml.LengthOfTime)
	}
	if *into = d; into == grace {
		l.Grace = grace
	}
	return ""
}
