package ca

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/internal/pemfile"
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

	acmeOptions `yaml:",inline"`
}

// acmeOptions say how names are proven. ACME only.
type acmeOptions struct {
	// Challenges are http-01, dns-01, tls-alpn-01; empty means all three.
	Challenges []string `yaml:"challenges,omitempty"`
	// Resolver is the DNS server that is asked, host:port; empty means the system's.
	Resolver string `yaml:"resolver,omitempty"`
	// HTTPPort is where http-01 is answered; 0 means 80, as RFC 8555 has it.
	HTTPPort int `yaml:"http_port,omitempty"`
	// TLSPort is where tls-alpn-01 is answered; 0 means 443, as RFC 8737 has it.
	TLSPort int `yaml:"tls_port,omitempty"`
	// Networks are where clients are, such as 10.0.0.0/8: challenges are looked for
	// there and nowhere else. Empty means everywhere but at addresses of the
	// authority's own machine and link (loopback, link-local, unspecified, multicast).
	// 127.0.0.0/8 here is for development: whoever shares the machine proves anything.
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

var allChallenges = []string{string(provisioner.HTTP_01), string(provisioner.DNS_01), string(provisioner.TLS_ALPN_01)}

// provisioners are the inner form.
type provisioners struct {
	jwks []jwk
	x5cs []x5c
	acme *acmeRules // nil: there is none
}

// only returns the one JWK provisioner whose key has this id; nil if several have, or none.
func (p *provisioners) only(kid string) (found *jwk) {
	for i := range p.jwks {
		if p.jwks[i].key.KeyID == kid {
			if found != nil {
				return nil
			}
			found = &p.jwks[i]
		}
	}
	return found
}

// scopeOf finds the provisioner of a token.
func (p *provisioners) scopeOf(name string) (scope, error) {
	for _, j := range p.jwks {
		if j.name == name {
			return j.scope, nil
		}
	}
	for _, x := range p.x5cs {
		if x.name == name {
			return x.scope, nil
		}
	}
	return scope{}, errProvisioner
}

type jwk struct {
	scope
	key     *jose.JSONWebKey // public, with key id
	publish bool
}

type x5c struct {
	scope
	file  string              // of roots; empty: they are the authority's own
	roots []*x509.Certificate // read when the state is published
}

// scope is which services the tokens of a provisioner are good for.
type scope struct {
	name     string
	profiles []string // that its tokens are good for; nil means all
}

// serves returns why a token of the provisioner is not good for a service, or nil.
func (s scope) serves(service string) error {
	if s.profiles == nil || slices.Contains(s.profiles, service) {
		return nil
	}
	return refuse(ruleProvisioner, "provisioner %s is not for service %.80q (provisioners, profiles of %s)", s.name, service, s.name)
}

type acmeRules struct {
	name              string
	challenges        []string
	resolver          string
	httpPort, tlsPort string
	networks          []netip.Prefix
	requireEAB        bool
	accountsPerHour   int
}

// The name is part of a file name and of addresses.
var provisionerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

func parseProvisioners(list []Provisioner, profiles map[string]*profile, bad *problems) (out provisioners) {
	taken := make(map[string]bool)
	for i, p := range list {
		at := fmt.Sprintf("provisioners[%d]", i)
		if !provisionerName.MatchString(p.Name) || taken[p.Name] {
			bad.add("%s.name: %q is empty, taken or has characters other than letters, digits and . _ @ -", at, p.Name)
		}
		taken[p.Name] = true
		p.foreign(at, bad)
		who := p.scope(at, profiles, bad)
		switch p.Type {
		case typeJWK:
			out.jwks = p.jwk(at, out.jwks, who, bad)
		case typeX5C:
			out.x5cs = append(out.x5cs, x5c{scope: who, file: p.Roots})
		case typeACME:
			if out.acme != nil {
				bad.add("%s: a second one of type %s", at, typeACME)
			}
			out.acme = p.acme(at, bad)
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

// checkShared finds two provisioners with one key and different profiles: whoever
// has the key says of a token which of the two it is by, so the narrower list
// would not hold.
func (p *provisioners) checkShared(bad *problems) {
	first := make(map[string]jwk)
	for _, j := range p.jwks {
		sum, err := j.key.Thumbprint(crypto.SHA256) // not the key id, which anybody chooses
		if err != nil {
			bad.add("provisioner %s: key: not a JWK in JSON", j.name)
			continue
		}
		other, shared := first[string(sum)]
		if !shared {
			first[string(sum)] = j
		} else if !sameSet(j.profiles, other.profiles) {
			bad.add("provisioners %s and %s have the same key and different profiles: make a key for each", other.name, j.name)
		}
	}
}

func sameSet(a, b []string) bool {
	return (a == nil) == (b == nil) && difference(a, b) == ""
}

// foreign finds settings of another type: ignored, they would be rules that do not hold.
func (p Provisioner) foreign(at string, bad *problems) {
	for _, f := range []struct {
		key, of string
		set     bool
	}{
		{"key", typeJWK, p.Key != ""},
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

// scope refuses a list that is there and empty: it reads like no service at
// all, and absent means every service.
func (p Provisioner) scope(at string, profiles map[string]*profile, bad *problems) scope {
	if p.Profiles != nil && len(p.Profiles) == 0 {
		bad.add("%s.profiles: it is empty; list services, or leave the key out for all of them", at)
	}
	for _, service := range p.Profiles {
		if profiles[service] == nil {
			bad.add("%s.profiles: service %.80q has no profile", at, service)
		}
	}
	return scope{p.Name, p.Profiles}
}

func (p Provisioner) jwk(at string, list []jwk, who scope, bad *problems) []jwk {
	key := new(jose.JSONWebKey)
	err := key.UnmarshalJSON([]byte(p.Key))
	switch {
	case err != nil || !key.Valid():
		bad.add("%s.key: not a JWK in JSON", at)
	case !key.IsPublic():
		bad.add("%s.key: this is a private key; it must not be here", at)
	case key.KeyID == "":
		bad.add("%s.key: has no kid", at)
	default:
		list = append(list, jwk{who, key, p.PublishEncryptedKey})
	}
	return list
}

func (p Provisioner) acme(at string, bad *problems) *acmeRules {
	out := &acmeRules{name: p.Name, challenges: p.Challenges, resolver: p.Resolver, requireEAB: p.RequireEAB, accountsPerHour: p.AccountsPerHour}
	for _, c := range p.Challenges {
		if !slices.Contains(allChallenges, c) {
			bad.add("%s.challenges: %q is none of %s", at, c, strings.Join(allChallenges, ", "))
		}
	}
	if len(out.challenges) == 0 {
		out.challenges = allChallenges
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
		out.networks = append(out.networks, n)
	}
	if p.AccountsPerHour < 0 || p.AccountsPerHour > 1e6 {
		bad.add("%s.accounts_per_hour: want a number from 0 to 1000000", at)
	}
	if out.accountsPerHour == 0 {
		out.accountsPerHour = defaultAccountsPerHour
	}
	out.httpPort, out.tlsPort = port("http_port", p.HTTPPort, 80), port("tls_port", p.TLSPort, 443)
	return out
}

// provisioners gives each one the form in which smallstep tells clients what
// there is, and finds the one of ACME.
func (a *Authority) provisioners(st *state) (list provisioner.List, err error) {
	for _, p := range st.rules.jwks {
		j := &provisioner.JWK{Type: typeJWK, Name: p.name, Key: p.key}
		if p.publish {
			if j.EncryptedKey, err = a.files.readJWE(p.name); err != nil {
				return nil, fmt.Errorf("publishing the encrypted key: %w", err)
			}
		}
		list = append(list, j)
	}
	for i, p := range st.rules.x5cs {
		if p.roots, err = a.rootsOf(st, p); err != nil {
			return nil, err
		}
		st.rules.x5cs[i] = p
		list = append(list, &provisioner.X5C{Type: typeX5C, Name: p.name, Roots: pemfile.EncodeCertificates(p.roots)})
	}
	if p := st.rules.acme; p != nil {
		out := &provisioner.ACME{Type: typeACME, Name: p.name}
		for _, c := range p.challenges {
			out.Challenges = append(out.Challenges, provisioner.ACMEChallenge(c))
		}
		list = append(list, out)
	}
	return list, nil
}

// rootsOf reads what certificates in tokens chain to. A file that is not sound
// fails the reload: an empty list would be nobody's, and half of one a surprise.
func (a *Authority) rootsOf(st *state, p x5c) ([]*x509.Certificate, error) {
	if p.file == "" {
		return st.roots, nil
	}
	path := p.file
	if !filepath.IsAbs(path) {
		path = a.files.path(path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the roots of provisioner %s: %w", p.name, err)
	}
	roots, err := pemfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading the roots of provisioner %s: %s: %w", p.name, path, err)
	}
	if len(roots) == 0 || slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return !c.IsCA }) {
		return nil, fmt.Errorf("reading the roots of provisioner %s: %s: want certificates of authorities", p.name, path)
	}
	return roots, nil
}
