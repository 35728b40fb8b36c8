package audit

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// explanation writes everything a person asks of each certificate: who, until
// when, when it is renewed and why then, its chain, and what is wrong with it,
// worst first. It is for few certificates, and keeps them all.
type explanation struct {
	out  io.Writer
	rows []Row
}

// Row implements [Renderer].
func (e *explanation) Row(r *Row) error {
	e.rows = append(e.rows, *r)
	return nil
}

// End implements [Renderer].
func (e *explanation) End(*Summary) error {
	slices.SortStableFunc(e.rows, worstFirst)
	w := bufio.NewWriter(e.out)
	leaves := slices.ContainsFunc(e.rows, func(r Row) bool { return r.leaf() })
	between := ""
	for i := range e.rows {
		row := &e.rows[i]
		if leaves && row.Cert != nil && row.Cert.isCA && len(row.Findings) == 0 {
			continue // the trees have it
		}
		_, _ = fmt.Fprint(w, between) // Flush keeps the error
		between = "\n"
		row.explain(w)
	}
	return w.Flush()
}

func worstFirst(a, b Row) int {
	return cmp.Or(cmp.Compare(b.rank(), a.rank()), a.end().Compare(b.end()), cmp.Compare(a.Place, b.Place))
}

func (r *Row) explain(w io.Writer) {
	cells := r.cells()
	_, _ = fmt.Fprintf(w, "%s: %s\n", cells[len(cells)-1], r.State)
	line := func(label, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "  %-12s %s\n", label, cell(fmt.Sprintf(format, args...)))
	}
	if r.Err != nil {
		line("error", "%v", r.Err)
	}
	if r.doc != nil {
		r.doc.explain(line, r.Judged)
	}
	if c := r.Cert; c != nil && r.Err != nil {
		line("name", "%s", c.name) // the rest is unknown
		line("serial", "%s", c.serial)
		line("valid", "%s to %s, %s", at(c.notBefore), at(c.notAfter), left(c, r.Judged))
		line("fingerprint", "SHA-256 %s", c.hexFingerprint())
	} else if c != nil {
		r.who(line)
		line("valid", "%s to %s, %s", at(c.notBefore), at(c.notAfter), left(c, r.Judged))
		line("renewal", "%s", r.renewal())
		r.material(line)
		for i, text := range r.tree() {
			line(map[bool]string{true: "chain"}[i == 0], "%s", text)
		}
	}
	for _, f := range r.Findings {
		label := "finding"
		if f.Severity == Info {
			label = "to know"
		}
		line(label, "%s: %s; %s (%s)", f.Check, f.Text, f.Remedy, f.Cites)
	}
	if len(r.Accepted) > 0 {
		line("accepted", "%s", strings.Join(r.Accepted, ", "))
	}
	if r.Err == nil && r.Severity() < Warn {
		line("findings", "none")
	}
}

func (r *Row) who(line func(string, string, ...any)) {
	c := r.Cert
	kind := "end entity"
	if c.isCA {
		kind = "certificate authority"
	}
	line("name", "%s (%s)", c.name, kind)
	if len(c.names) > 0 {
		line("names", "%s", strings.Join(c.names, ", "))
	}
	line("issuer", "%s", c.issuerName)
	line("serial", "%s", c.serial)
}

// renewal says when and why then; certificates of authorities have procedures instead.
func (r *Row) renewal() string {
	c := r.Cert
	switch {
	case c.isCA:
		return "by the authority's operator"
	case !r.renews():
		return fmt.Sprintf("by whoever made it: it lives %s, and nothing here says that a program renews it", span(life(c)))
	}
	from, to := lifetime.RenewalWindow(c.notBefore, c.notAfter)
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
	if len(c.usages) > 0 {
		line("usages", "%s", usages(c))
	}
	key := c.key.String()
	if r.Key != nil {
		fits := "fits"
		if !r.Key.Fits {
			fits = "does not fit"
		}
		key += fmt.Sprintf("; the private key in %s (mode %04o) %s", r.Key.Path, r.Key.Mode.Perm(), fits)
	}
	line("key", "%s", key)
	line("signature", "%s", c.signature)
	line("fingerprint", "SHA-256 %s", c.hexFingerprint())
	pin := sha256.Sum256(c.public)
	line("key pin", "SHA-256 %s", base64.StdEncoding.EncodeToString(pin[:])) // as curl --pinnedpubkey takes it
	if r.TLS != nil {
		line("served over", "%s", strings.Join(nonEmpty(protocol(r.TLS), keyExchange(r.TLS)), ", "))
	}
}

// tree draws the chain from the leaf up to where it ends.
func (r *Row) tree() (out []string) {
	c := r.Cert
	rest := slices.Concat(r.Chain, r.Bundle)
	for depth := 0; depth <= len(rest); depth++ {
		where := ""
		if depth > 0 {
			where = strings.Repeat("  ", depth-1) + "└ "
		}
		text := fmt.Sprintf("%s%s, until %s", where, c.name, at(c.notAfter))
		for _, b := range r.Bundle {
			if b.fingerprint == c.fingerprint {
				text += ", in the trust bundle"
			}
		}
		out = append(out, text)
		if c.selfIssued() {
			return out
		}
		next := issuerOf(c, rest)
		if next == nil {
			return append(out, strings.Repeat("  ", depth)+"└ "+c.issuerName+", not here")
		}
		c = next
	}
	return out
}

func at(t time.Time) string { return t.Local().Format(time.DateTime) }

func left(c *Certificate, now time.Time) string {
	d := c.notAfter.Sub(now)
	if d <= 0 {
		return "over for " + span(d)
	}
	return span(d) + " left"
}

func usages(c *Certificate) string {
	var out []string
	for _, u := range c.usages {
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
