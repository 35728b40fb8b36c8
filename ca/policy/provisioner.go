package policy

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/denial"
)

// Provisioner is one way to prove who may obtain a certificate. The three types
// here are all there are: the rest of smallstep's would bypass the profiles.
type Provisioner struct {
	// Type is JWK (tokens signed by Key), X5C (tokens signed by the key of a
	// certificate) or ACME (RFC 8555; one at most).
	Type string `yaml:"type"`
	// Name is the issuer claim of tokens, and a part of ACME's addresses.
	Name string `yaml:"name"`
	// Key is the public JWK as JSON. JWK only.
	Key string `yaml:"key,omitempty"`
	// Previous are keys that Key has replaced, 16 at most. Tokens that they have signed are
	// good before Until, so that those which were handed out are not lost. JWK only.
	Previous []struct {
		Key   string    `yaml:"key"`
		Until time.Time `yaml:"until"`
	} `yaml:"previous,omitempty"`
	// PublishEncryptedKey serves the password-encrypted private key to everyone, as
	// "step ca token" without --key expects it. Off by default: it can be
	// attacked offline. JWK only.
	PublishEncryptedKey bool `yaml:"publish_encrypted_key,omitempty"`
	// Roots is a PEM file of what a token's certificate must chain to, relative to
	// the state directory; empty means the authority's own roots. X5C only.
	Roots string `yaml:"roots,omitempty"`

	// Profiles are the services that its tokens are good for; a token for another one
	// is refused. Absent means all of them. JWK and X5C only: with ACME the profiles
	// say it themselves.
	Profiles []string `yaml:"profiles,omitempty"`

	ACMEOptions `yaml:",inline"`
}

// ACMEOptions say how names are proven. ACME only.
type ACMEOptions struct {
	// Challenges are http-01, dns-01, tls-alpn-01; empty means all three.
	Challenges []string `yaml:"challenges,omitempty"`
	// Resolver is the DNS server that is asked, host:port; empty means the system's.
	Resolver string `yaml:"resolver,omitempty"`
	// HTTPPort is where http-01 is answered; 0 means 80 (RFC 8555 §8.3).
	HTTPPort int `yaml:"http_port,omitempty"`
	// TLSPort is where tls-alpn-01 is answered; 0 means 443 (RFC 8737 §3).
	TLSPort int `yaml:"tls_port,omitempty"`
	// Networks are those of the clients, such as 10.0.0.0/8. The authority connects to no
	// other address for a challenge. Empty means all addresses but those of the
	// authority's own machine and link (loopback, link-local, unspecified, multicast).
	// 127.0.0.0/8 is for development: each program on the machine can prove any name then.
	Networks []string `yaml:"networks,omitempty"`
	// RequireEAB makes new accounts show a key from the operator (RFC 8555 §7.3.4).
	RequireEAB bool `yaml:"require_eab,omitempty"`
	// AccountsPerHour is how many accounts one address may make without such a key;
	// 0 means 100.
	AccountsPerHour int `yaml:"accounts_per_hour,omitempty"`
}

const defaultAccountsPerHour = 100

const (
	typeJWK  = "JWK"
	typeX5C  = "X5C"
	typeACME = "ACME"
)

var allChallenges = []string{"http-01", "dns-01", "tls-alpn-01"} // RFC 8555 §8, RFC 8737 §3

// provisioners are the valid form of the entries.
type provisioners struct {
	JWKs []JWK
	X5Cs []X5C
	ACME *ACME // nil if there is none
}

// EnrolmentKey returns the public key with this id, and the name of the JWK provisioner that
// has it. issuer is the name that a token says; empty means any. A key that another one has
// replaced counts until its time is over. key is nil if no provisioner has such a key, or
// several have.
func (p *provisioners) EnrolmentKey(kid, issuer string, now time.Time) (name string, key *jose.JSONWebKey) {
	found := 0
	for _, j := range p.JWKs {
		if issuer != "" && j.Name != issuer {
			continue
		}
		for _, k := range append([]previousKey{{j.Key, now.Add(1)}}, j.previous...) {
			if k.key.KeyID == kid && now.Before(k.until) {
				name, key = j.Name, k.key
				found++
			}
		}
	}
	if found != 1 {
		return "", nil
	}
	return name, key
}

// ScopeOf finds the provisioner of a token by its name.
func (p *provisioners) ScopeOf(name string) (s Scope, ok bool) {
	for _, j := range p.JWKs {
		if j.Name == name {
			return j.Scope, true
		}
	}
	for _, x := range p.X5Cs {
		if x.Name == name {
			return x.Scope, true
		}
	}
	return Scope{}, false
}

// JWK is a provisioner of enrolment tokens.
type JWK struct {
	Scope
	// Key is public and has a key id.
	Key *jose.JSONWebKey
	// Publish serves the encrypted private key to everyone.
	Publish bool

	previous []previousKey
}

// previousKey is a key that was replaced.
type previousKey struct {
	key   *jose.JSONWebKey
	until time.Time // from then on its tokens are refused
}

const maxPrevious = 16 // of a provisioner; each is compared with each token

// X5C is a provisioner of tokens that the key of a certificate signs.
type X5C struct {
	Scope
	// File has the roots; empty means the authority's own.
	File string
	// Roots are read by the authority when it takes the rules into use.
	Roots []*x509.Certificate
}

// Scope says for which services a provisioner may enrol.
type Scope struct {
	// Name is that of the provisioner.
	Name string
	// Services are those that its tokens are good for; nil means all.
	Services []string
}

// Serves returns why a token of the provisioner is not good for a service, or nil.
func (s Scope) Serves(service string) error {
	if s.Services == nil || slices.Contains(s.Services, service) {
		return nil
	}
	return denial.New(denial.Provisioner, "provisioner %s is not for service %.80q (provisioners, profiles of %s)", s.Name, service, s.Name)
}

// ACME is the provisioner of type ACME. Its fields are those of [ACMEOptions], with
// their defaults filled in.
type ACME struct {
	Name              string
	Challenges        []string
	Resolver          string // empty means the system's
	HTTPPort, TLSPort string
	Networks          []netip.Prefix // empty means everywhere but on the own machine and link
	RequireEAB        bool
	AccountsPerHour   int
}

// The name is part of a file name and of addresses.
var provisionerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

func parseProvisioners(list []Provisioner, profiles map[string]*Service, bad *problems) (out provisioners) {
	taken := make(map[string]bool)
	for i, p := range list {
		at := fmt.Sprintf("provisioners[%d]", i)
		if !provisionerName.MatchString(p.Name) || taken[p.Name] {
			bad.add("%s.name: %q is empty, taken or has characters other than letters, digits and . _ @ -", at, p.Name)
		}
		taken[p.Name] = true
		p.checkUnused(at, bad)
		who := p.parseScope(at, profiles, bad)
		switch p.Type {
		case typeJWK:
			out.JWKs = p.parseJWK(at, out.JWKs, who, bad)
		case typeX5C:
			out.X5Cs = append(out.X5Cs, X5C{Scope: who, File: p.Roots})
		case typeACME:
			if out.ACME != nil {
				bad.add("%s: a second one of type %s", at, typeACME)
			}
			out.ACME = p.parseACME(at, bad)
		default:
			bad.add("%s.type: %q is not supported, only %s, %s and %s are", at, p.Type, typeJWK, typeX5C, typeACME)
		}
	}
	if len(list) == 0 {
		bad.add("provisioners: want at least one")
	}
	out.checkShared(bad)
	return out
}

// checkShared refuses two provisioners with one key and different profiles. The holder of the
// key chooses by which of the two a token is, so the narrower list would have no effect.
func (p *provisioners) checkShared(bad *problems) {
	first := make(map[string]JWK)
	for _, j := range p.JWKs {
		for _, k := range append([]previousKey{{key: j.Key}}, j.previous...) {
			sum, err := k.key.Thumbprint(crypto.SHA256) // not the key id, which the author of the key chooses
			if err != nil {
				bad.add("provisioner %s: key: not a JWK in JSON", j.Name)
				continue
			}
			other, shared := first[string(sum)]
			switch {
			case !shared:
				first[string(sum)] = j
			case other.Name == j.Name:
				bad.add("provisioner %s: previous: a key is there twice", j.Name)
			case !sameSet(j.Services, other.Services):
				bad.add("provisioners %s and %s have the same key and different profiles: make a key for each", other.Name, j.Name)
			}
		}
	}
}

func sameSet(a, b []string) bool {
	return (a == nil) == (b == nil) && difference(a, b) == ""
}

// checkUnused refuses settings of another type. The author of pki.yaml would rely on them,
// and they would have no effect.
func (p Provisioner) checkUnused(at string, bad *problems) {
	for _, f := range []struct {
		key, of string
		set     bool
	}{
		{"key", typeJWK, p.Key != ""},
		{"previous", typeJWK, len(p.Previous) > 0},
		{"publish_encrypted_key", typeJWK, p.PublishEncryptedKey},
		{"roots", typeX5C, p.Roots != ""},
		{"challenges", typeACME, len(p.Challenges) > 0},
		{"resolver", typeACME, p.Resolver != ""},
		{"http_port", typeACME, p.HTTPPort != 0},
		{"tls_port", typeACME, p.TLSPort != 0},
		{"networks", typeACME, len(p.Networks) > 0},
		{"require_eab", typeACME, p.RequireEAB},
		{"accounts_per_hour", typeACME, p.AccountsPerHour != 0},
	} {
		if f.set && f.of != p.Type {
			bad.add("%s.%s: it belongs to type %s", at, f.key, f.of)
		}
	}
	if p.Type == typeACME && p.Profiles != nil {
		bad.add("%s.profiles: it belongs to types %s and %s; a profile is open to %s if it says acme: true", at, typeJWK, typeX5C, typeACME)
	}
}

// parseScope refuses an empty list. A reader would take it for no service, but an absent list
// means every service, and the two are easily confused.
func (p Provisioner) parseScope(at string, profiles map[string]*Service, bad *problems) Scope {
	if p.Profiles != nil && len(p.Profiles) == 0 {
		bad.add("%s.profiles: it is empty; list services, or leave the key out for all of them", at)
	}
	for _, service := range p.Profiles {
		if profiles[service] == nil {
			bad.add("%s.profiles: service %.80q has no profile", at, service)
		}
	}
	return Scope{p.Name, p.Profiles}
}

func (p Provisioner) parseJWK(at string, list []JWK, who Scope, bad *problems) []JWK {
	key := parsePublic(at+".key", p.Key, bad)
	if len(p.Previous) > maxPrevious {
		bad.add("%s.previous: more than %d keys; remove those whose time is over", at, maxPrevious)
		return list
	}
	var previous []previousKey
	for i, k := range p.Previous {
		where := fmt.Sprintf("%s.previous[%d]", at, i)
		if k.Until.IsZero() {
			bad.add("%s.until: want the time at which the key ends, such as 2026-11-30T14:00:00Z", where)
		}
		if old := parsePublic(where+".key", k.Key, bad); old != nil {
			previous = append(previous, previousKey{old, k.Until})
		}
	}
	if key == nil {
		return list
	}
	return append(list, JWK{who, key, p.PublishEncryptedKey, previous})
}

// parsePublic returns a public JWK with a key id, or nil after it has added what is wrong.
func parsePublic(at, text string, bad *problems) *jose.JSONWebKey {
	key := new(jose.JSONWebKey)
	err := key.UnmarshalJSON([]byte(text))
	switch {
	case err != nil || !key.Valid():
		bad.add("%s: not a JWK in JSON", at)
	case !key.IsPublic():
		bad.add("%s: this is a private key; it must not be here", at)
	case key.KeyID == "":
		bad.add("%s: has no kid", at)
	default:
		return key
	}
	return nil
}

func (p Provisioner) parseACME(at string, bad *problems) *ACME {
	out := &ACME{Name: p.Name, Challenges: p.Challenges, Resolver: p.Resolver, RequireEAB: p.RequireEAB, AccountsPerHour: p.AccountsPerHour}
	for _, c := range p.Challenges {
		if !slices.Contains(allChallenges, c) {
			bad.add("%s.challenges: %q is none of %s", at, c, strings.Join(allChallenges, ", "))
		}
	}
	if len(out.Challenges) == 0 {
		out.Challenges = allChallenges
	}
	if p.Resolver != "" {
		checkAddress(bad, at+".resolver", p.Resolver)
	}
	port := func(key string, n, usual int) string {
		if n < 0 || n > 65535 {
			bad.add("%s.%s: %d is not a port", at, key, n)
		}
		if n == 0 {
			n = usual
		}
		return strconv.Itoa(n)
	}
	for _, text := range p.Networks {
		n, err := netip.ParsePrefix(text)
		if err != nil || n != n.Masked() {
			bad.add("%s.networks: %q is not a network such as 10.0.0.0/8", at, text)
			continue
		}
		out.Networks = append(out.Networks, n)
	}
	if p.AccountsPerHour < 0 || p.AccountsPerHour > 1e6 {
		bad.add("%s.accounts_per_hour: want a number from 0 to 1000000", at)
	}
	if out.AccountsPerHour == 0 {
		out.AccountsPerHour = defaultAccountsPerHour
	}
	out.HTTPPort, out.TLSPort = port("http_port", p.HTTPPort, 80), port("tls_port", p.TLSPort, 443)
	return out
}

// ACMEServices are the services with acme: true.
func (r *Rules) ACMEServices() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(r.Services)), func(s string) bool { return !r.Services[s].ACME })
}
