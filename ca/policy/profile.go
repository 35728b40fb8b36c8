package policy

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	usageServer = "server"
	usageClient = "client"
)

// maxCommonName is the most that a common name may have (RFC 5280 appendix A.1,
// ub-common-name). Service names are ASCII, where characters are bytes.
const maxCommonName = 64

// Service is the valid form of a Profile: names are canonical, usages parsed, and
// defaults filled in. [Profile] says what the fields mean.
type Service struct {
	Name       string
	Names      []string
	Usages     []x509.ExtKeyUsage
	Lifetimes  Lifetimes
	ACME       bool
	MaxLive    int
	MaxLineage int // certificates of one lineage that may be valid at a time

	wildcards []string
	patterns  []names.Pattern
	keyTypes  []string
}

func (p Profile) parse(service string, outer Lifetimes, bad *problems) *Service {
	at := "profiles." + service
	if service == AuthorityService {
		at = "dns_names"
	}
	out := &Service{Name: service, keyTypes: p.KeyTypes, Lifetimes: p.Lifetime.WithDefaults(outer), ACME: p.ACME}
	if !names.IsDNS(strings.ToLower(service)) {
		bad.add("%s: a service name has letters, digits, dots, hyphens and underscores", at)
	}
	if len(service) > maxCommonName {
		bad.add("%s: a service name has at most %d characters, because it is the common name of certificates; this one has %d", at, maxCommonName, len(service))
	}
	p.parseNames(at, out, bad)
	usages := p.Usages
	if len(usages) == 0 {
		usages = []string{usageServer, usageClient}
	}
	for _, u := range usages {
		switch u {
		case usageServer:
			out.Usages = append(out.Usages, x509.ExtKeyUsageServerAuth)
		case usageClient:
			out.Usages = append(out.Usages, x509.ExtKeyUsageClientAuth)
		default:
			bad.add("%s.usages: %q is neither %s nor %s", at, u, usageServer, usageClient)
		}
	}
	if out.MaxLive = p.MaxLive; out.MaxLive == 0 {
		out.MaxLive = defaultMaxLive
	}
	if p.MaxLive < 0 {
		bad.add("%s.max_live: %d is less than 0", at, p.MaxLive)
	}
	out.MaxLineage = p.parseMaxLineage(at, bad)
	if len(out.keyTypes) == 0 {
		out.keyTypes = keytype.Default
	}
	checkKeyTypes(bad, at+".key_types", p.KeyTypes)
	if service != AuthorityService {
		out.Lifetimes.validate(bad, at+".lifetime")
	}
	return out
}

func checkKeyTypes(bad *problems, at string, kinds []string) {
	for _, k := range kinds {
		if !slices.Contains(keytype.All, k) {
			bad.add("%s: %q is none of %s", at, k, strings.Join(keytype.All, ", "))
		}
	}
}

// Grace is how long a certificate that lived for life can be renewed after its end.
func (p *Service) Grace(life time.Duration) time.Duration {
	if p.Lifetimes.Grace != nil {
		return *p.Lifetimes.Grace
	}
	return lifetime.Grace(life)
}

// parseNames reads names, patterns and wildcards of a profile. Wildcards have a key of their
// own. Otherwise an asterisk that was meant as a pattern would allow certificates for all
// names below a suffix.
func (p Profile) parseNames(at string, out *Service, bad *problems) {
	if len(p.Names)+len(p.Patterns)+len(p.Wildcards) == 0 {
		bad.add("%s: want at least one name", at)
	}
	for _, text := range p.Names {
		name, err := names.Canonical(text)
		switch {
		case err != nil:
			bad.add("%s: %v", at, err)
		case names.IsWildcard(name):
			bad.add("%s: name %.80q is a wildcard: it belongs into wildcards, if certificates are to carry it as it is, or into patterns, if it stands for single names", at, name)
		default:
			out.Names = append(out.Names, name)
		}
	}
	for _, text := range p.Patterns {
		pattern, err := names.ParsePattern(text)
		if err != nil {
			bad.add("%s.patterns: %v", at, err)
			continue
		}
		out.patterns = append(out.patterns, pattern)
	}
	for _, text := range p.Wildcards {
		name, err := names.Canonical(text)
		if err == nil && !names.IsWildcard(name) {
			err = fmt.Errorf("name %.80q is not of the form *.SUFFIX", text)
		}
		if err != nil {
			bad.add("%s.wildcards: %v", at, err)
			continue
		}
		out.wildcards = append(out.wildcards, name)
	}
}

// Allows returns nil if the profile has all the canonical names and the kind of key, or else a
// denial that names the rule. A nil key is not checked.
func (p *Service) Allows(asked []string, key crypto.PublicKey) error {
	if len(asked) == 0 {
		return denial.New(denial.Names, "no name asked for")
	}
	for _, n := range asked {
		if !p.has(n) {
			return denial.New(denial.Names, "%q is not a name of service %s (%s)", n, p.Name, p.keysFor(n))
		}
	}
	if key == nil { // the service makes its key after the token
		return nil
	}
	kind := keytype.Of(key)
	if !slices.Contains(p.keyTypes, kind) {
		return denial.New(denial.KeyType, "key type %s is none of %s (profiles.%s.key_types)", kind, strings.Join(p.keyTypes, ", "), p.Name)
	}
	return nil
}

// has reports whether a canonical name is one of the profile.
func (p *Service) has(name string) bool {
	if names.IsWildcard(name) {
		return slices.Contains(p.wildcards, name)
	}
	return slices.Contains(p.Names, name) || slices.ContainsFunc(p.patterns, func(pattern names.Pattern) bool { return pattern.Match(name) })
}

// coversByWildcard reports whether a certificate for a wildcard of the profile is
// good for a name.
func (p *Service) coversByWildcard(name string) bool {
	_, suffix, ok := strings.Cut(name, ".")
	return ok && slices.Contains(p.wildcards, "*."+suffix)
}

// keysFor returns the keys of pki.yaml under which a name could be allowed.
func (p *Service) keysFor(name string) string {
	at := "profiles." + p.Name
	switch {
	case names.IsWildcard(name):
		return at + ".wildcards"
	case len(p.patterns) > 0:
		return at + ".names, " + at + ".patterns"
	}
	return at + ".names"
}

// IsOwnHost reports whether a host is one of dns_names.
func (r *Rules) IsOwnHost(host string) bool {
	if slices.Contains(r.Own.Names, host) { // usually the host is canonical already
		return true
	}
	name, err := names.Canonical(host)
	return err == nil && slices.Contains(r.Own.Names, name)
}

// Allowing returns the profiles that have all of some canonical names, by service.
func (r *Rules) Allowing(asked []string) (out []*Service) {
	for _, service := range slices.Sorted(maps.Keys(r.Services)) {
		if p := r.Services[service]; p.Allows(asked, nil) == nil {
			out = append(out, p)
		}
	}
	return out
}

const maxOverlaps = 20 // warnings; the first ones are enough to find the cause

// Overlaps returns a line for each two profiles that have names in common through a pattern or
// a wildcard. A name that two profiles list is intended, such as localhost. But a pattern may
// cover a name that somebody adds to another profile a year later.
func (r *Rules) Overlaps() (out []string) {
	var claims []names.Claim
	for _, service := range slices.Sorted(maps.Keys(r.Services)) {
		p := r.Services[service]
		claims = append(claims, names.Claim{Owner: service, Names: slices.Concat(p.Names, p.wildcards), Patterns: p.patterns})
	}
	for _, o := range names.Overlaps(claims, maxOverlaps) {
		out = append(out, fmt.Sprintf("%s of profiles.%s and %s of profiles.%s have names in common: either service can obtain them, and ACME refuses them to orders that name no profile", o.Text, o.Owner, o.With, o.Other))
	}
	return out
}

const (
	defaultMaxLive = 10_000

	// defaultMaxLineage is reached only by a loop or a thief. A service that renews at two
	// thirds of the life has two live certificates. Instances that share a copy of one
	// certificate, and each renew it, have 1.6 each.
	defaultMaxLineage = 50
	// mostMaxLineage bounds what each renewal counts, and what a revocation of the
	// lineage writes in one transaction.
	mostMaxLineage = 1000
)

func (p Profile) parseMaxLineage(at string, bad *problems) int {
	if p.MaxLivePerLineage < 0 || p.MaxLivePerLineage > mostMaxLineage {
		bad.add("%s.max_live_per_lineage: %d is not between 1 and %d", at, p.MaxLivePerLineage, mostMaxLineage)
	}
	if p.MaxLivePerLineage == 0 {
		return defaultMaxLineage
	}
	return p.MaxLivePerLineage
}

// NamesUntil returns how long names count as proven, which were proven for a certificate that
// ends at end. A name can move to another machine, and lifetime.max bounds how long the
// former machine can still renew.
func (p *Service) NamesUntil(proven, end time.Time) time.Time {
	if until := proven.Add(p.Lifetimes.Max).Truncate(time.Second); until.After(end) {
		return until
	}
	return end
}

// TokenNames returns the names that an enrolment token for a service is good for: those
// that were asked for, or all of its profile. It is a denial if one is not in the profile.
func (r *Rules) TokenNames(service string, asked []string) ([]string, error) {
	p, ok := r.Services[service]
	if !ok {
		return nil, denial.New(denial.Profile, "service %.80q has no profile", service)
	}
	if len(asked) == 0 && len(p.Names) > 0 {
		return p.Names, nil
	}
	if len(asked) == 0 {
		return nil, denial.New(denial.Names, "profiles.%s.names is empty, so a token must say which names it is for", service)
	}
	list, err := names.CanonicalAll(asked)
	if err != nil {
		return nil, err
	}
	return list, p.Allows(list, nil)
}
