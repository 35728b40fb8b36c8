package files

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

const (
	// The names that this project, Kubernetes secrets and cert-manager use.
	dirCert = "tls.crt"
	dirKey  = "tls.key"
	dirCA   = "ca.crt"
	dirCRL  = "crl.pem"
	dirKept = "crl.kept" // of package enroll
)

// Set names the files of one identity, in PEM. Every block must parse, be of the expected
// type and not be encrypted. Text may stand before a block, but not after the last.
//
// If Dir is set and Cert, Key and CA are not, they are tls.crt, tls.key and ca.crt. CRL
// is then crl.pem, if it exists, with crl.kept beside it, in which package enroll keeps
// the certificates that only earlier lists named. A set without CA, or with CA and CRL
// only, is half of an identity, for [rotation.Merge].
//
// Each of Others is judged by itself. If it is missing, torn or expired, its last good
// version stays in use until that expires, and is then left out. The own
// certificate is renewed meanwhile. A warning names the file, and
// [rotation.Identity.Status] has the state of each.
type Set struct {
	Dir    string        // what relative names are relative to; default: the working directory
	Cert   string        // leaf first, then its issuers
	Key    string        // PKCS#8, SEC 1 or PKCS#1; "" when Cert holds the key too
	CA     string        // trust bundle
	CRL    string        // one list per issuer, and intermediates that sign lists; named, it must exist
	Others []Pair        // more certificates, which a server chooses by name
	Poll   time.Duration // time between two polls; default 30 s
}

// Pair names one more certificate with its key, as Cert and Key of [Set].
type Pair struct{ Cert, Key string }

// resolvedSet is a valid Set, with defaults filled in and names joined to Dir.
type resolvedSet struct {
	pairs    []Pair   // the own first; empty for trust only. If Key is "", Cert has the key too
	ca, crl  string   // "" for none
	kept     string   // likewise
	optional []string // the files that may be missing
	poll     time.Duration
}

// resolve checks the set and fills in the defaults. It reads no file.
func (f Set) resolve() (resolvedSet, error) {
	p := resolvedSet{poll: f.Poll}
	if f.Dir != "" && f.Cert == "" && f.Key == "" && f.CA == "" {
		f.Cert, f.Key, f.CA = dirCert, dirKey, dirCA
		if f.CRL == "" {
			f.CRL = dirCRL
			p.kept = f.in(dirKept)
			p.optional = []string{f.in(dirCRL), p.kept}
		}
	}
	switch {
	case f.Poll < 0:
		return resolvedSet{}, fmt.Errorf("negative Poll %s", f.Poll)
	case f.Cert == "" && (f.Key != "" || len(f.Others) > 0):
		return resolvedSet{}, errors.New("want Cert beside Key or Others")
	case f.CA == "" && f.CRL != "":
		return resolvedSet{}, errors.New("want CA beside CRL")
	case f.Cert == "" && f.CA == "":
		return resolvedSet{}, errors.New("want Dir, Cert or CA")
	case f.Poll == 0:
		p.poll = defaultPoll
	}
	p.ca, p.crl = f.in(f.CA), f.in(f.CRL)
	if f.Cert == "" {
		return p, nil
	}
	for i, pair := range append([]Pair{{f.Cert, f.Key}}, f.Others...) {
		if pair.Cert == "" {
			return resolvedSet{}, fmt.Errorf("want Cert in Others[%d]", i-1)
		}
		pair = Pair{f.in(pair.Cert), f.in(pair.Key)}
		if pair.Key == pair.Cert {
			pair.Key = ""
		}
		p.pairs = append(p.pairs, pair)
	}
	return p, nil
}

// in joins a relative name to Dir; "" stays "".
func (f Set) in(name string) string {
	if name == "" || f.Dir == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(f.Dir, name)
}

// spare reports whether only the other certificates need this file.
func (p resolvedSet) spare(name string) bool {
	if name == p.ca || name == p.crl || name == p.kept || len(p.pairs) == 0 {
		return false
	}
	return name != p.pairs[0].Cert && name != p.pairs[0].Key
}

// secret reports whether this file has a private key.
func (p resolvedSet) secret(name string) bool {
	return slices.ContainsFunc(p.pairs, func(pair Pair) bool {
		return name == pair.Key || pair.Key == "" && name == pair.Cert
	})
}

// names returns all files, each once, in the order in which the digest of a snapshot
// covers them.
func (p resolvedSet) names() []string {
	var all, out []string
	for _, pair := range p.pairs {
		all = append(all, pair.Cert, pair.Key)
	}
	seen := map[string]bool{"": true}
	for _, n := range append(all, p.ca, p.crl, p.kept) {
		if !seen[n] {
			out = append(out, n)
		}
		seen[n] = true
	}
	return out
}
