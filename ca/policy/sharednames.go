package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The names of the authority do not identify it, because services may share them. Clients of
// this project check for [stepapi.AuthorityPurpose] in its certificate. step and smallstep's
// libraries do not: they accept any server with a certificate under the root for the host of
// the URL.

// SharedNames returns a line for the profiles that can obtain names of the authority itself;
// profiles with the same names share a line. This is no error: on a developer's machine
// everything is localhost, and services on the machine of the authority share its host.
func (r *Rules) SharedNames() (out []string) {
	services := map[string][]string{} // by the names in common
	for _, service := range slices.Sorted(maps.Keys(r.Services)) {
		var shared []string
		for _, n := range r.Own.Names {
			if p := r.Services[service]; p.has(n) || p.coversByWildcard(n) {
				shared = append(shared, n)
			}
		}
		if len(shared) > 0 {
			key := strings.Join(shared, ", ")
			services[key] = append(services[key], service)
		}
	}
	for _, shared := range slices.Sorted(maps.Keys(services)) {
		out = append(out, fmt.Sprintf("%s of dns_names can be obtained by %s: step and smallstep's libraries cannot tell these services from the authority; let clients on other machines use a name that no profile has",
			shared, strings.Join(services[shared], ", ")))
	}
	return out
}
