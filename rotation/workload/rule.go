package workload

import (
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

const (
	maxRules      = 256
	maxIdentities = 64  // of one rule: all of them go into one message
	maxName       = 255 // bytes of the name of an identity
)

// overflowID is what the kernel shows for users and groups that do not exist in the user
// namespace of this process (user_namespaces(7)). A rule with it would be for all of them.
const overflowID = 65534

// Rule says which identities the programs of a user or group get. A caller gets those of all
// rules that match it, in the order of the rules; the first one is its default.
//
// A rule has User or Group, and may have both. The fields that are set must all match.
type Rule struct {
	// User is a name in /etc/passwd or a number: the effective user of the process that has
	// connected. 65534 is refused, because it stands for each user of another user namespace.
	User string
	// Group is a name in /etc/group or a number: the effective group of that process.
	// Supplementary groups are not looked at.
	Group string
	// Executable is the absolute path of the file that this process must run. It tells the
	// programs of one user apart; it does not protect them from each other, since a user controls
	// all programs that run as that user. See docs/design/0039-workload-api.md.
	Executable string
	// Identities are names in [Identities], at least one.
	Identities []string
}

// Rules are the rules of a server. The zero value gives nobody anything. All methods are safe for
// concurrent use.
type Rules struct {
	valid atomic.Pointer[[]rule] // nil is none

	mu      sync.Mutex // guards servers
	servers map[*listener]bool
}

// Set replaces the rules, at most 256. Names of users and groups are looked up now. If one of the
// rules is wrong, the error has its number, counted from 1, and the rules before stay in effect.
//
// A server that runs applies them before Set returns. Connections stay open: a stream gets a message
// if its caller gets other identities than before, and ends with PermissionDenied if it gets none.
func (r *Rules) Set(rules []Rule) error {
	valid, err := parseRules(rules)
	if err != nil {
		return fmt.Errorf("setting the rules of the Workload API: %w", err)
	}
	r.valid.Store(&valid)
	r.mu.Lock()
	servers := make([]*listener, 0, len(r.servers))
	for l := range r.servers {
		servers = append(servers, l)
	}
	r.mu.Unlock()
	for _, l := range servers {
		l.decideAll()
	}
	return nil
}

// current returns the rules in effect. Two calls return the same pointer if Set was not called between
// them.
func (r *Rules) current() *[]rule { return r.valid.Load() }

// tell lets a server know of later rules, until stop is called.
func (r *Rules) tell(l *listener) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers == nil {
		r.servers = map[*listener]bool{}
	}
	r.servers[l] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.servers, l)
	}
}

// rule is a valid Rule.
type rule struct {
	uid, gid   *uint32 // nil matches all
	executable string  // "" matches all
	identities []string
}

// parseRules returns the rules, or an error that names the first one that is wrong, counted
// from 1.
func parseRules(rules []Rule) ([]rule, error) {
	if len(rules) > maxRules {
		return nil, fmt.Errorf("there are %d rules, and %d are the most", len(rules), maxRules)
	}
	parsed := make([]rule, 0, len(rules))
	for i, r := range rules {
		p, err := r.parse()
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		parsed = append(parsed, p)
	}
	return parsed, nil
}

// Check returns why the rule is not valid, or nil. It looks up names of users and groups.
func (r Rule) Check() error {
	_, err := r.parse()
	return err
}

func (r Rule) parse() (rule, error) {
	p := rule{executable: r.Executable, identities: slices.Clone(r.Identities)}
	if r.User == "" && r.Group == "" {
		return rule{}, errors.New("it names neither a user nor a group")
	}
	var err error
	if p.uid, err = parseID("user", r.User, lookUpUser); err != nil {
		return rule{}, err
	}
	if p.gid, err = parseID("group", r.Group, lookUpGroup); err != nil {
		return rule{}, err
	}
	if r.Executable != "" && (!filepath.IsAbs(r.Executable) || filepath.Clean(r.Executable) != r.Executable) {
		return rule{}, fmt.Errorf("the executable %q is not an absolute path in its shortest form", r.Executable)
	}
	return p, checkNames(r.Identities)
}

// checkNames judges the names of identities. They are sent as hints, which are UTF-8.
func checkNames(names []string) error {
	switch {
	case len(names) == 0:
		return errors.New("it names no identity")
	case len(names) > maxIdentities:
		return fmt.Errorf("it names %d identities, and %d are the most", len(names), maxIdentities)
	}
	for i, name := range names {
		switch {
		case name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, printable.Hidden):
			return fmt.Errorf("%q is no name of an identity: it has 1 to %d bytes of printable text", name, maxName)
		case slices.Contains(names[:i], name):
			return fmt.Errorf("it names the identity %q twice", name)
		}
	}
	return nil
}

func lookUpUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookUpGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// parseID returns the id of a user or group; nil for "". Text that begins with a digit is a number.
func parseID(kind, text string, lookUp func(string) (string, error)) (*uint32, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // nil is the valid value of a field that is not set
	}
	number := text
	if text[0] < '0' || text[0] > '9' {
		var err error
		if number, err = lookUp(text); err != nil {
			return nil, fmt.Errorf("finding the %s %q: %s", kind, text, printable.Clean(err.Error())) // os/user repeats the text as it is
		}
	}
	n, err := strconv.ParseUint(number, 10, 32)
	switch {
	case err != nil || n == 1<<32-1: // (uid_t)-1 means "none" in system calls
		return nil, fmt.Errorf("the %s %q is neither a name nor an id", kind, text)
	case n == overflowID:
		return nil, fmt.Errorf("the %s %q has the id %d, which the kernel shows for each %s of another user namespace", kind, text, n, kind)
	}
	id := uint32(n)
	return &id, nil
}

// mayMatch reports whether the ids match. The executable is not looked at.
func (r rule) mayMatch(p unixsocket.Peer) bool {
	return (r.uid == nil || *r.uid == p.UID) && (r.gid == nil || *r.gid == p.GID)
}
