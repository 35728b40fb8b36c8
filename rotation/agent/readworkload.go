package agent

import (
	"cmp"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/artstore/artstore-pki/rotation/workload"
)

const maxRules = 256 // as many as a server takes

// The form of workload_api in the file.
type (
	fileWorkload struct {
		Socket string     `yaml:"socket"`
		Group  string     `yaml:"group"`
		Rules  []fileRule `yaml:"rules"`
	}
	fileRule struct {
		User       string   `yaml:"user"`
		Group      string   `yaml:"group"`
		Executable string   `yaml:"executable"`
		Identities []string `yaml:"identities"`
	}
)

// workloadAPI returns what workload_api means. Users and groups must exist already, unlike those of
// files: a rule for a name that somebody else gets later would be for him.
func (p *parser) workloadAPI(f fileWorkload, c Config) *WorkloadAPI {
	w := &WorkloadAPI{Socket: workload.Socket{Path: f.Socket}}
	switch {
	case !filepath.IsAbs(f.Socket):
		p.fault([]any{"workload_api", "socket"}, "want an absolute path, not %q", f.Socket)
	case filepath.Clean(f.Socket) == filepath.Clean(cmp.Or(c.Socket, ".")):
		p.fault([]any{"workload_api", "socket"}, "%s is the control socket: want another path", f.Socket)
	}
	if f.Group != "" {
		gid, err := groupID(f.Group)
		if w.Socket.Group = gid; err != nil {
			p.fault([]any{"workload_api", "group"}, "%v", err)
		}
	}
	if len(f.Rules) > maxRules {
		p.fault([]any{"workload_api", "rules"}, "want at most %d rules, not %d", maxRules, len(f.Rules))
		return w
	}
	for i, r := range f.Rules {
		p.rule(f.Rules, i, c)
		w.Rules = append(w.Rules, workload.Rule(r))
	}
	return w
}

// rule checks a rule: in itself, against those before it, and that its identities exist.
func (p *parser) rule(all []fileRule, i int, c Config) {
	at := []any{"workload_api", "rules", i}
	r := all[i]
	if err := workload.Rule(r).Check(); err != nil {
		p.fault(at, "%v", err)
	}
	first := slices.IndexFunc(all, func(o fileRule) bool {
		return o.User == r.User && o.Group == r.Group && o.Executable == r.Executable
	})
	if first < i {
		p.fault(at, "rules[%d] is for the same programs: want one rule with all their identities", first)
	}
	for n, name := range r.Identities {
		if !slices.ContainsFunc(c.Identities, func(i Identity) bool { return i.Name == name }) {
			p.fault(append(at[:len(at):len(at)], "identities", n), "there is no identity %q", name)
		}
	}
}

// groupID returns the number of a group that is named by name or number. That of root cannot be named,
// because 0 stands for everybody in a [workload.Socket].
func groupID(text string) (int, error) {
	gid, err := strconv.Atoi(text)
	if err != nil {
		g, err := user.LookupGroup(text)
		if err != nil {
			return 0, fmt.Errorf("there is no group %q", text)
		}
		gid, _ = strconv.Atoi(g.Gid) // a number where there are Unix sockets with groups
	}
	if gid <= 0 || gid >= 1<<32-1 {
		return 0, fmt.Errorf("want the name or number of a group other than root, not %q", text)
	}
	return gid, nil
}
