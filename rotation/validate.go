package rotation

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// usage is a set of what a certificate may be used for, or of what this process uses its
// identity for. Once the process serves, a candidate without usageServer is refused, and
// likewise for clients.
type usage uint32

const (
	usageServer usage = 1 << iota
	usageClient
)

// examination is one candidate at the gate.
type examination struct {
	m        Material
	prev     *Generation // in effect, nil at the start
	need     usage
	now      time.Time
	bundle   *x509.CertPool
	warning  error    // why the bundle does not verify one of the chains
	warnings []string // faults of a chain that are tolerated
}

// validate is the gate: it makes a generation of a candidate, or returns why it refuses
// the candidate. prev is the generation in effect and lists are the revocations in
// effect; both are nil at the start. A leaf that is not valid yet passes: propose keeps
// it until it is valid. A fault of one of Material.Others is no reason to refuse the
// rest.
func validate(m Material, prev *Generation, lists *revocations, need usage) (*Generation, error) {
	e := &examination{m: m, prev: prev, need: need, now: time.Now()}
	if err := checkRoots(m.Roots); err != nil {
		return nil, err
	}
	own, err := checkPair(m.Certificate, need, e.now)
	if err != nil {
		return nil, err
	}
	if lists, err = readRevocations(m, own.chain, lists, e.now); err != nil {
		return nil, err
	}
	e.bundle = certs.Pool(m.Roots...)
	if e.warning, err = e.verifyChain(own, other{}); err != nil {
		return nil, err
	}
	g := assemble(m, own, lists)
	for i := range m.Others {
		g.others = append(g.others, e.newOther(i, prev.other(m.otherName(i))))
	}
	g.untrusted = e.warning
	g.warnings = slices.Concat(own.warnings, e.warnings, m.Faults)
	for _, o := range g.others {
		for _, p := range o.versions {
			for _, w := range p.warnings {
				g.warnings = append(g.warnings, o.name+": "+w)
			}
		}
	}
	return g, nil
}

// checkPair checks a certificate and its key by themselves, and orders the chain. Trust
// is checked by verifyChain.
func checkPair(c tls.Certificate, need usage, now time.Time) (certPair, error) {
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return certPair{}, errors.New("the private key is missing or cannot sign")
	}
	sent, err := parseChain(c.Certificate)
	if err != nil {
		return certPair{}, err
	}
	if !certs.Fits(sent[0], key) {
		return certPair{}, errors.New("the private key does not fit the leaf certificate")
	}
	if err := checkLeaf(sent[0], need, now); err != nil {
		return certPair{}, err
	}
	// Peers trust the roots that they have, and some peers give up at a certificate that
	// is not part of the chain: neither is sent (RFC 8446 §4.4.2).
	chain, ends, surplus := certs.Chain(sent)
	return certPair{c, key, chain, ends, chainWarnings(sent[0], surplus)}, nil
}

// chainWarnings returns faults that are logged only. To refuse the certificate for them
// would turn a small fault into an outage.
func chainWarnings(leaf *x509.Certificate, surplus []*x509.Certificate) (all []string) {
	if why := pubkey.Weak(leaf.PublicKey); why != "" {
		all = append(all, "the leaf has a weak key: "+why)
	}
	for _, c := range surplus {
		all = append(all, fmt.Sprintf("the certificate %s of %q is not part of the chain and is not sent", certs.Serial(c), c.Subject.CommonName))
	}
	return all
}

// parseChain parses a chain in DER. None at all is an error.
func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 {
		return nil, errors.New("the certificate is missing")
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate %d of the chain: %w", i+1, err)
		}
		chain[i] = c
	}
	return chain, nil
}

// checkLeaf refuses a leaf that peers would refuse, or that cannot be used for what this
// process needs.
func checkLeaf(leaf *x509.Certificate, need usage, now time.Time) error {
	if leaf.IsCA {
		return errors.New("the first certificate is a CA, want the leaf first")
	}
	if !now.Before(leaf.NotAfter) {
		return fmt.Errorf("the leaf expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return errors.New("the leaf has a key usage without digitalSignature (RFC 8446 §4.4.2.2)")
	}
	has := usages(leaf)
	switch {
	case has == 0:
		return errors.New("the leaf has neither clientAuth nor serverAuth among its extended key usages")
	case need&usageServer&^has != 0:
		return errors.New("the leaf lacks serverAuth, and this identity serves")
	case need&usageClient&^has != 0:
		return errors.New("the leaf lacks clientAuth, and this identity connects to others")
	}
	return nil
}

// usages returns what a leaf may be used for. A certificate without the extension may be
// used for everything (RFC 5280 §4.2.1.12).
func usages(leaf *x509.Certificate) usage {
	if len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0 {
		return usageServer | usageClient
	}
	var u usage
	for _, k := range leaf.ExtKeyUsage {
		switch k {
		case x509.ExtKeyUsageAny:
			u |= usageServer | usageClient
		case x509.ExtKeyUsageServerAuth:
			u |= usageServer
		case x509.ExtKeyUsageClientAuth:
			u |= usageClient
		}
	}
	return u
}

// checkRoots refuses an empty bundle, which verifies no peer, and a bundle with a
// certificate that is no CA: as a root, crypto/x509 would accept that certificate of a peer
// without an issuer.
func checkRoots(roots []*x509.Certificate) error {
	if len(roots) == 0 {
		return errors.New("the trust bundle is empty")
	}
	for i, c := range roots {
		if c == nil || !c.IsCA {
			return fmt.Errorf("certificate %d of the trust bundle is no CA", i+1)
		}
	}
	return nil
}

// verifyChain verifies the chain to the bundle. If the bundle does not know the issuer of
// the last certificate, there are two possible reasons. The chain may be truncated,
// because its file was read or written halfway: then it is refused. Or the bundle may
// have other roots now: then it is published, with the reason as warning.
//
// The chain counts as truncated if the missing issuer is an intermediate that peers got
// until now, with the own certificate or with earlier versions of this one. It counts as
// whole if its last certificate is an intermediate, or was signed by a root that came
// with the chain or is in the bundle of the generation in effect.
func (e *examination) verifyChain(p certPair, before other) (warning, refusal error) {
	at := clampToValidity(p.chain[0], e.now)
	paths, verr := verify(p.chain, x509.VerifyOptions{Roots: e.bundle, CurrentTime: at, KeyUsages: anyUsage})
	switch {
	case verr == nil:
		return nil, e.checkIssuerUsages(paths)
	case !is[x509.UnknownAuthorityError](verr):
		return nil, fmt.Errorf("verifying the chain: %w", verr)
	}
	top := p.chain[len(p.chain)-1]
	signs := func(c *x509.Certificate) bool { return certs.Issued(c, top) }
	if slices.ContainsFunc(e.sentSoFar(before), signs) {
		return nil, errors.New("the chain is truncated: it ends before an intermediate that is in use")
	}
	seen := slices.ContainsFunc(p.ends, signs) || e.prev != nil && slices.ContainsFunc(e.prev.roots, signs)
	if len(p.chain) == 1 {
		if !seen {
			return nil, errors.New("the issuer of the leaf is neither in the chain nor in the trust bundle")
		}
		return verr, nil
	}
	// Apart from the bundle, everything must hold: dates, path length, name constraints.
	above := certs.Pool(top)
	if _, err := verify(p.chain, x509.VerifyOptions{Roots: above, CurrentTime: at, KeyUsages: anyUsage}); err != nil {
		return nil, fmt.Errorf("verifying the chain: %w", err)
	}
	return verr, nil
}

// checkIssuerUsages refuses a chain whose issuers do not permit what this process uses
// the leaf for: its peers would refuse the chain. If the issuers permit less than the
// leaf says, but all that is needed, that is a warning.
func (e *examination) checkIssuerUsages(paths [][]*x509.Certificate) error {
	var permitted usage
	for _, path := range paths {
		if certs.Permits(path, x509.ExtKeyUsageServerAuth) {
			permitted |= usageServer
		}
		if certs.Permits(path, x509.ExtKeyUsageClientAuth) {
			permitted |= usageClient
		}
	}
	has, need := usages(paths[0][0]), e.need
	permitted &= has
	const partly = "an issuer of a certificate does not permit all that the certificate may be used for (extended key usage)"
	if has != permitted && !slices.Contains(e.warnings, partly) {
		e.warnings = append(e.warnings, partly)
	}
	switch {
	case permitted == 0:
		return errors.New("an issuer of the leaf permits neither clientAuth nor serverAuth (extended key usage)")
	case need&usageServer&^permitted != 0:
		return errors.New("an issuer of the leaf does not permit serverAuth, and this identity serves")
	case need&usageClient&^permitted != 0:
		return errors.New("an issuer of the leaf does not permit clientAuth, and this identity connects to others")
	}
	return nil
}

// sentSoFar returns the intermediates that peers got until now.
func (e *examination) sentSoFar(before other) (issuers []*x509.Certificate) {
	if e.prev != nil {
		issuers = slices.Clone(e.prev.own.chain[1:])
	}
	for _, p := range before.versions {
		issuers = append(issuers, p.chain[1:]...)
	}
	return issuers
}
