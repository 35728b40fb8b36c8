package audit

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Explain writes everything a person asks of each certificate: who, until when,
// when it is renewed and why then, its chain, and what is wrong with it.
func (r *Report) Explain(out io.Writer) error {
	w := bufio.NewWriter(out)
	leaves := slices.ContainsFunc(r.Rows, func(r Row) bool { return r.leaf() })
	between := ""
	for i := range r.Rows {
		row := &r.Rows[i]
		if leaves && row.Cert != nil && row.Cert.IsCA && len(row.Findings) == 0 {
			continue // the trees have it
		}
		_, _ = fmt.Fprint(w, between) // Flush keeps the error
		between = "\n"
		row.explain(w)
	}
	return w.Flush()
}

func (r *Row) explain(w io.Writer) {
	cells := r.cells()
	_, _ = fmt.Fprintf(w, "%s: %s\n", cells[len(cells)-1], r.State)
	line := func(label, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "  %-12s %s\n", label, printable.Clean(fmt.Sprintf(format, args...)))
	}
	if r.Err != nil {
		line("error", "%v", r.Err)
	}
	if c := r.Cert; c != nil && r.Err != nil {
		line("name", "%s", name(c)) // the rest is unknown
		line("serial", "%s", pemfile.Serial(c))
		line("valid", "%s to %s, %s", at(c.NotBefore), at(c.NotAfter), left(c, r.Judged))
		line("fingerprint", "SHA-256 %s", pemfile.Fingerprint(c))
	} else if c != nil {
		r.who(line)
		line("valid", "%s to %s, %s", at(c.NotBefore), at(c.NotAfter), left(c, r.Judged))
		line("renewal", "%s", r.renewal())
		r.material(line)
		for i, text := range r.tree() {
			line(map[bool]string{true: "chain"}[i == 0], "%s", text)
		}
	}
	for _, f := range r.Findings {
		line("finding", "%s: %s; %s (%s)", f.Check, f.Text, f.Remedy, f.Cites)
	}
	if r.Err == nil && len(r.Findings) == 0 {
		line("findings", "none")
	}
}

func (r *Row) who(line func(string, string, ...any)) {
	c := r.Cert
	kind := "end entity"
	if c.IsCA {
		kind = "certificate authority"
	}
	line("name", "%s (%s)", name(c), kind)
	if names := pemfile.Names(c); len(names) > 0 {
		line("names", "%s", strings.Join(names, ", "))
	}
	line("issuer", "%s", issuerName(c))
	line("serial", "%s", pemfile.Serial(c))
}

// renewal says when and why then; certificates of authorities have procedures instead.
func (r *Row) renewal() string {
	c := r.Cert
	switch {
	case c.IsCA:
		return "by the authority's operator"
	case !r.renews():
		return fmt.Sprintf("by whoever made it: it lives %s, and nothing here says that a program renews it", span(life(c)))
	}
	from, to := lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
	when := "between"
	if r.Judged.After(to) {
		when = "was due between"
	}
	return fmt.Sprintf("%s %s and %s: at a random point from %.2f to %.2f of its life of %s, so that a fleet does not renew at once",
		when, at(from), at(to), lifetime.RenewFrom, lifetime.RenewTo, span(life(c)))
}

// material is the cryptography.
func (r *Row) material(line func(string, string, ...any)) {
	c := r.Cert
	if len(c.ExtKeyUsage) > 0 {
		line("usages", "%s", usages(c))
	}
	key := keyName(c)
	if r.Key != nil {
		fits := "fits"
		if !r.Key.Fits {
			fits = "does not fit"
		}
		key += fmt.Sprintf("; the private key in %s (mode %04o) %s", r.Key.Path, r.Key.Mode.Perm(), fits)
	}
	line("key", "%s", key)
	line("signature", "%s", c.SignatureAlgorithm)
	line("fingerprint", "SHA-256 %s", pemfile.Fingerprint(c))
	pin := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	line("key pin", "SHA-256 %s", base64.StdEncoding.EncodeToString(pin[:])) // as curl --pinnedpubkey takes it
	if r.TLS != nil {
		line("served over", "%s", strings.Join(nonEmpty(protocol(r.TLS), keyExchange(r.TLS)), ", "))
	}
}

// tree draws the chain from the leaf up to where it ends.
func (r *Row) tree() (out []string) {
	c := r.Cert
	rest := append(append([]*x509.Certificate{}, r.Chain...), r.Bundle...)
	for depth := 0; depth <= len(rest); depth++ {
		where := ""
		if depth > 0 {
			where = strings.Repeat("  ", depth-1) + "└ "
		}
		text := fmt.Sprintf("%s%s, until %s", where, name(c), at(c.NotAfter))
		for _, b := range r.Bundle {
			if b.Equal(c) {
				text += ", in the trust bundle"
			}
		}
		out = append(out, text)
		if selfIssued(c) {
			return out
		}
		next := issuerOf(c, rest)
		if next == nil {
			return append(out, strings.Repeat("  ", depth)+"└ "+issuerName(c)+", not here")
		}
		c = next
	}
	return out
}

func at(t time.Time) string { return t.Local().Format(time.DateTime) }

func left(c *x509.Certificate, now time.Time) string {
	d := c.NotAfter.Sub(now)
	if d <= 0 {
		return "over for " + span(d)
	}
	return span(d) + " left"
}

func keyName(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return c.PublicKeyAlgorithm.String()
}

func usages(c *x509.Certificate) string {
	var out []string
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			out = append(out, "server")
		case x509.ExtKeyUsageClientAuth:
			out = append(out, "client")
		case x509.ExtKeyUsageAny:
			out = append(out, "any")
		default:
			out = append(out, fmt.Sprintf("usage %d", u))
		}
	}
	return strings.Join(out, ", ")
}

func nonEmpty(list ...string) (out []string) {
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
