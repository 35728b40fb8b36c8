package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
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

// profile is the inner form of Profile: names canonical, usages parsed.
type profile struct {
	service  string
	names    []string
	usages   []x509.ExtKeyUsage
	keyTypes []string
	life     lifetimes
	acme     bool
	maxLive  int
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
	if len(p.Names) == 0 {
		bad.add("%s: want at least one name", at)
	}
	for _, text := range p.Names {
		name, err := names.Canonical(text)
		if err != nil {
			bad.add("%s: %v", at, err)
			continue
		}
		out.names = append(out.names, name)
	}
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

// allows returns why not, with the rule that decides, or nil.
func (p *profile) allows(names []string, key crypto.PublicKey) error {
	if len(names) == 0 {
		return refuse(ruleNames, "no name asked for")
	}
	for _, n := range names {
		if !slices.Contains(p.names, n) {
			return refuse(ruleNames, "%q is not a name of service %s (profiles.%s.names)", n, p.service, p.service)
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
