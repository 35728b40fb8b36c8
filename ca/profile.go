package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	usageServer = "server"
	usageClient = "client"
)

// Key types by the names that pki.yaml and init use.
const (
	keyP256    = "EC-P256"
	keyP384    = "EC-P384"
	keyEd25519 = "Ed25519"
	keyRSA2048 = "RSA-2048"
	keyRSA3072 = "RSA-3072"
	keyRSA4096 = "RSA-4096"
)

var (
	allKeyTypes     = []string{keyP256, keyP384, keyEd25519, keyRSA2048, keyRSA3072, keyRSA4096}
	defaultKeyTypes = []string{keyP256, keyP384, keyEd25519, keyRSA3072, keyRSA4096}
)

// maxCommonName is the most that a common name may have (RFC 5280 appendix A.1,
// ub-common-name). Service names are ASCII, where characters are bytes.
const maxCommonName = 64

// profile is the inner form of Profile: names canonical, usages parsed.
type profile struct {
	service   string
	names     []string
	wildcards []string
	patterns  []names.Pattern
	usages    []x509.ExtKeyUsage
	keyTypes  []string
	life      lifetimes
	acme      bool
	maxLive   int

	maxLineage int
}

func (p Profile) parse(service string, outer lifetimes, bad *problems) *profile {
	at := "profiles." + service
	if service == ownService {
		at = "dns_names"
	}
	out := &profile{service: service, keyTypes: p.KeyTypes, life: p.Lifetime.or(outer), acme: p.ACME}
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
			out.usages = append(out.usages, x509.ExtKeyUsageServerAuth)
		case usageClient:
			out.usages = append(out.usages, x509.ExtKeyUsageClientAuth)
		default:
			bad.add("%s.usages: %q is neither %s nor %s", at, u, usageServer, usageClient)
		}
	}
	if out.maxLive = p.MaxLive; out.maxLive == 0 {
		out.maxLive = defaultMaxLive
	}
	if p.MaxLive < 0 {
		bad.add("%s.max_live: %d is less than 0", at, p.MaxLive)
	}
	out.maxLineage = p.parseMaxLineage(at, bad)
	if len(out.keyTypes) == 0 {
		out.keyTypes = defaultKeyTypes
	}
	for _, k := range out.keyTypes {
		if !slices.Contains(allKeyTypes, k) {
			bad.add("%s.key_types: %q is none of %s", at, k, strings.Join(allKeyTypes, ", "))
		}
	}
	if service != ownService {
		out.life.check(bad, at+".lifetime")
	}
	return out
}

// grace is how long a certificate that lived for life can be renewed after its end.
func (p *profile) grace(life time.Duration) time.Duration {
	if p.life.Grace != nil {
		return *p.life.Grace
	}
	return lifetime.Grace(life)
}

// parseNames reads what a certificate of the profile may be for. A wildcard has a
// key of its own, so that nobody gets a certificate for all names below a suffix
// by an asterisk that was meant as a pattern.
func (p Profile) parseNames(at string, out *profile, bad *problems) {
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
			out.names = append(out.names, name)
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

// allows returns why not, with the rule that decides, or nil.
func (p *profile) allows(asked []string, key crypto.PublicKey) error {
	if len(asked) == 0 {
		return refuse(ruleNames, "no name asked for")
	}
	for _, n := range asked {
		if !p.has(n) {
			return refuse(ruleNames, "%q is not a name of service %s (%s)", n, p.service, p.keysFor(n))
		}
	}
	if key == nil { // a token is made before the key
		return nil
	}
	kind := keyType(key)
	if !slices.Contains(p.keyTypes, kind) {
		return refuse(ruleKey, "key type %s is none of %s (profiles.%s.key_types)", kind, strings.Join(p.keyTypes, ", "), p.service)
	}
	return nil
}

// has reports whether a canonical name is one of the profile.
func (p *profile) has(name string) bool {
	if names.IsWildcard(name) {
		return slices.Contains(p.wildcards, name)
	}
	return slices.Contains(p.names, name) || slices.ContainsFunc(p.patterns, func(pattern names.Pattern) bool { return pattern.Match(name) })
}

// coversByWildcard reports whether a certificate for a wildcard of the profile is
// good for a name.
func (p *profile) coversByWildcard(name string) bool {
	_, suffix, ok := strings.Cut(name, ".")
	return ok && slices.Contains(p.wildcards, "*."+suffix)
}

// keysFor says where in pki.yaml a name would have to be.
func (p *profile) keysFor(name string) string {
	at := "profiles." + p.service
	switch {
	case names.IsWildcard(name):
		return at + ".wildcards"
	case len(p.patterns) > 0:
		return at + ".names, " + at + ".patterns"
	}
	return at + ".names"
}

// allowing returns the profiles that have all of some canonical names, by service.
func (r *rules) allowing(asked []string) (out []*profile) {
	for _, service := range slices.Sorted(maps.Keys(r.profiles)) {
		if p := r.profiles[service]; p.allows(asked, nil) == nil {
			out = append(out, p)
		}
	}
	return out
}

const maxOverlaps = 20 // that are warned of; the first ones are enough to find the cause

// overlaps says which profiles have names in common through a pattern or a
// wildcard. What two profiles list by name is meant so, as localhost is; a pattern
// can take in a name that somebody adds to another profile a year later.
func (r *rules) overlaps() (out []string) {
	var claims []names.Claim
	for _, service := range slices.Sorted(maps.Keys(r.profiles)) {
		p := r.profiles[service]
		claims = append(claims, names.Claim{Owner: service, Names: slices.Concat(p.names, p.wildcards), Patterns: p.patterns})
	}
	for _, o := range names.Overlaps(claims, maxOverlaps) {
		out = append(out, fmt.Sprintf("%s of profiles.%s and %s of profiles.%s have names in common: either service can obtain them, and ACME refuses them to orders that name no profile", o.Text, o.Owner, o.With, o.Other))
	}
	return out
}

func keyType(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return keyP256
		case elliptic.P384():
			return keyP384
		}
		return "EC-" + k.Curve.Params().Name
	case ed25519.PublicKey:
		return keyEd25519
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	}
	return fmt.Sprintf("%T", key)
}
