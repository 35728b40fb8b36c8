package format

import (
	"bytes"
	"fmt"

	"github.com/artstore/artstore-pki/audit/internal/javastore"
)

// isJava reports whether data begins as a JKS or a JCEKS does.
func isJava(head []byte) bool { return javastore.Is(head) }

// parseJava reads a JKS or a JCEKS (package javastore). Its certificates are not
// encrypted; its keys are, and cannot be compared. Each entry is an object, whose chain
// belongs to its key.
func parseJava(data []byte, with *Context) (out []Part) {
	entries, err := javastore.Read(data)
	names := map[string]int{}
	for _, e := range entries {
		in := &Location{Object: unique(names, e.Alias)}
		for i, cert := range e.Chain {
			c, err := with.Known.Parse(bytes.Clone(cert))
			out = append(out, Part{Block: i + 1, Cert: c, Err: err, In: in})
		}
		if e.Key {
			out = append(out, Part{IsKey: true, Locked: true, In: in})
		}
	}
	if err != nil {
		out = append(out, Part{Err: err, In: &Location{Object: fmt.Sprintf("entry %d", len(entries)+1)}})
	}
	return out
}

// unique returns a name that no object before had: "name", "name (2)", "name (3)". names
// counts how often each name was given, and is changed. An empty name is "unnamed".
func unique(names map[string]int, name string) string {
	if name == "" {
		name = "unnamed"
	}
	names[name]++
	if n := names[name]; n > 1 {
		return fmt.Sprintf("%s (%d)", name, n)
	}
	return name
}
