package policy

import (
	"maps"
	"slices"

	"github.com/artstore/artstore-pki/ca/internal/denial"
)

// parseEnrollers refuses an enroller that may enrol another enroller. Somebody with a stolen
// certificate of the first could get certificates of the second, in a lineage that remains
// when the first is revoked.
func parseEnrollers(list map[string][]string, profiles map[string]*Service, bad *problems) map[string][]string {
	for _, service := range slices.Sorted(maps.Keys(list)) {
		at := "enrollers." + service
		if p := profiles[service]; p == nil {
			bad.add("enrollers: service %.80q has no profile", service)
		} else if !slices.Contains(usageNames(p.Usages), usageClient) {
			bad.add("%s: it shows its certificate as a client, and profiles.%s.usages has no %q", at, service, usageClient)
		}
		if len(list[service]) == 0 {
			bad.add("%s: it lists no services that it may enrol", at)
		}
		for _, other := range list[service] {
			if profiles[other] == nil {
				bad.add("%s: service %.80q has no profile", at, other)
			}
			if _, both := list[other]; both {
				bad.add("%s: %.80q is an enroller itself; enrol it by hand", at, other)
			}
		}
	}
	return list
}

// MayEnrol returns why a service may not make tokens for another one, or nil.
func (r *Rules) MayEnrol(service, other string) error {
	list, ok := r.Enrollers[service]
	if !ok {
		return denial.New(denial.Enroller, "service %.80q is not an enroller (pki.yaml, enrollers)", service)
	}
	if !slices.Contains(list, other) {
		return denial.New(denial.Enroller, "enroller %s may not enrol service %.80q (enrollers.%s)", service, other, service)
	}
	return nil
}
