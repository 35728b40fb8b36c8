package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/denial"
)

// CheckACMEName returns why ACME does not prove a canonical name, or nil. Whether the
// name fits the type of an identifier is not checked here.
func CheckACMEName(name string) error {
	addr, notAddr := netip.ParseAddr(name)
	switch {
	case strings.Contains(name, "_"): // not in the preferred name syntax, which RFC 5280 §4.2.1.6 requires
		return denial.New(denial.ACME, "%q has an underscore, which no host name has", name)
	// The authority would connect to itself, and every program on its machine could prove the name.
	case name == "localhost" || strings.HasSuffix(name, ".localhost"), notAddr == nil && (addr.IsLoopback() || addr.IsUnspecified()):
		return denial.New(denial.Loopback, "%q is the machine of the authority", name)
	}
	return nil
}

// Unprovable returns a line for each name of a profile with acme: true that no order can
// have. URIs are left out: ACME has no identifiers for them, so nobody expects it.
func (r *Rules) Unprovable() (out []string) {
	for _, service := range slices.Sorted(maps.Keys(r.Services)) {
		p := r.Services[service]
		for _, name := range p.Names {
			if err := CheckACMEName(name); p.ACME && err != nil && !strings.Contains(name, "://") {
				out = append(out, fmt.Sprintf("profiles.%s has acme: true, but ACME does not prove one of its names: %v", service, err))
			}
		}
	}
	return out
}
