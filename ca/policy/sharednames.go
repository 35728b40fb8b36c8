package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The names of the authority are known to be no way to tell it from others. Clients
// of this project look for [stepapi.AuthorityPurpose] in its certificate; step and
// smallstep's libraries know of no such mark, and believe whoever has a certificate
// under the root for the host of the URL.

// SharedNames says which profiles can obtain names of the authority itself, one line
// for all that can obtain the same ones. It is no error: on a developer's machine
// everything is localhost, and services beside the authority share its host.
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
