package report

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// textRenderer writes an explanation of each certificate: names, dates, when it is renewed
// and why then, chain and findings; the worst first. It is for a few certificates, and
// keeps all rows until the end. An authority has an explanation of its own only if it has
// a finding, because the chains of the leaves show it.
type textRenderer struct {
	out  io.Writer
	rows []audit.Row
}

// Row implements [audit.Renderer].
func (e *textRenderer) Row(r *audit.Row) error {
	e.rows = append(e.rows, *r)
	return nil
}

// End implements [audit.Renderer].
func (e *textRenderer) End(s *audit.Summary) error {
	slices.SortStableFunc(e.rows, worstFirst)
	w := bufio.NewWriter(e.out)
	leaves := slices.ContainsFunc(e.rows, func(r audit.Row) bool { return r.Leaf() })
	between := ""
	if text := s.Moment(time.DateTime, time.Local); text != "" {
		_, _ = fmt.Fprintf(w, "%s\n\n", text) // Flush keeps the error
	}
	for i := range e.rows {
		row := &e.rows[i]
		if leaves && row.Cert != nil && row.Cert.IsCA && len(row.Findings) == 0 {
			continue // the chain of a leaf shows it
		}
		_, _ = fmt.Fprint(w, between) // Flush keeps the error
		between = "\n"
		writeRow(row, w)
	}
	if !s.Complete {
		_, _ = fmt.Fprintf(w, "\n%s\n", interrupted)
	}
	return w.Flush()
}

// worstFirst orders rows by rank, then by the date of their end, then by place.
func worstFirst(a, b audit.Row) int {
	return cmp.Or(cmp.Compare(b.Rank(), a.Rank()), a.End().Compare(b.End()), cmp.Compare(a.Place, b.Place))
}

// writeRow writes a headline with place and state, and a line for each thing that is
// known. A certificate that was read in part has its dates and no more.
func writeRow(r *audit.Row, w io.Writer) {
	cells := cellsOf(r)
	_, _ = fmt.Fprintf(w, "%s: %s\n", cells[len(cells)-1], r.State)
	line := func(label, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "  %-12s %s\n", label, printable.Cell(fmt.Sprintf(format, args...)))
	}
	if r.Err != nil {
		line("error", "%s", printable.Shorten(r.Err.Error(), maxPhrase))
	}
	if r.Document != nil {
		writeDocument(r.Document, line, r.Judged)
	}
	if c := r.Cert; c != nil && r.Err != nil {
		line("name", "%s", printable.Shorten(c.Name, maxName)) // other fields could not be read
		line("serial", "%s", printable.Shorten(c.Serial, maxName))
		line("valid", "%s to %s, %s", humantime.Stamp(c.NotBefore), humantime.Stamp(c.NotAfter), left(c, r.Judged))
		line("fingerprint", "SHA-256 %s", c.HexFingerprint())
	} else if c != nil {
		writeSubject(r, line)
		line("valid", "%s to %s, %s", humantime.Stamp(c.NotBefore), humantime.Stamp(c.NotAfter), left(c, r.Judged))
		line("renewal", "%s", renewalOf(r))
		writeKey(r, line)
		for i, text := range treeOf(r) {
			line(map[bool]string{true: "chain"}[i == 0], "%s", text)
		}
	}
	for _, f := range r.Findings {
		label := "finding"
		if f.Severity == audit.Info {
			label = "to know"
		}
		line(label, "%s: %s; %s (%s)", f.Check, printable.Shorten(f.Text, maxPhrase), f.Remedy, f.Cites)
	}
	if len(r.Accepted) > 0 {
		line("accepted", "%s", strings.Join(r.Accepted, ", "))
	}
	if r.Err == nil && r.Severity() < audit.Warn {
		line("findings", "none")
	}
}

// writeSubject writes the lines that identify a certificate.
func writeSubject(r *audit.Row, line func(string, string, ...any)) {
	c := r.Cert
	kind := "end entity"
	if c.IsCA {
		kind = "certificate authority"
	}
	line("name", "%s (%s)", printable.Shorten(c.Name, maxName), kind)
	if len(c.Names) > 0 {
		line("names", "%s", shortenList(c.Names, ", "))
	}
	line("issuer", "%s", printable.Shorten(c.IssuerName, maxName))
	line("serial", "%s", printable.Shorten(c.Serial, maxName))
}

// renewalOf says when a certificate is renewed, and why at that time. Nothing renews the
// certificate of an authority automatically.
func renewalOf(r *audit.Row) string {
	c := r.Cert
	switch {
	case r.Authority():
		return "by the authority's operator"
	case !r.AutoRenewed():
		return fmt.Sprintf("by whoever made it: it lives %s, and nothing here says that a program renews it", humantime.Short(c.Life()))
	}
	from, to := lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
	when := "between"
	if r.Judged.After(to) {
		when = "was due between"
	}
	return fmt.Sprintf("%s %s and %s: at a random point from %.2f to %.2f of its life of %s, so that a fleet does not renew at once",
		when, humantime.Stamp(from), humantime.Stamp(to), lifetime.RenewFrom, lifetime.RenewTo, humantime.Short(c.Life()))
}

// writeKey writes the lines about usages, key, signature and fingerprints.
func writeKey(r *audit.Row, line func(string, string, ...any)) {
	c := r.Cert
	if len(c.ExtKeyUsage) > 0 {
		line("usages", "%s", usages(c))
	}
	key := c.Key.String()
	if r.Key != nil {
		fits := "fits"
		switch {
		case r.Key.Opaque:
			fits = "was not compared: " + r.Key.WhyOpaque()
		case !r.Key.Fits:
			fits = "does not fit"
		}
		key += fmt.Sprintf("; the private key in %s (mode %04o) %s", r.Key.Path, r.Key.Mode.Perm(), fits)
	}
	line("key", "%s", key)
	line("signature", "%s", c.SignatureName)
	line("fingerprint", "SHA-256 %s", c.HexFingerprint())
	pin := sha256.Sum256(c.PublicKeyInfo)
	line("key pin", "SHA-256 %s", base64.StdEncoding.EncodeToString(pin[:])) // as curl --pinnedpubkey takes it
	if r.TLS != nil {
		line("served over", "%s", strings.Join(nonEmpty(r.Protocol(), r.KeyExchange()), ", "))
	}
}

// treeOf draws the chain, a line for each certificate, from the leaf up to where it ends:
// at a root, or at an issuer that is absent. The loop ends although certificates can
// issue each other in a circle: no chain is longer than the certificates there are.
func treeOf(r *audit.Row) (out []string) {
	c := r.Cert
	rest := slices.Concat(r.Chain, r.Bundle)
	for depth := 0; depth <= len(rest); depth++ {
		where := ""
		if depth > 0 {
			where = strings.Repeat("  ", depth-1) + "└ "
		}
		text := fmt.Sprintf("%s%s, until %s", where, printable.Shorten(c.Name, maxName), humantime.Stamp(c.NotAfter))
		for _, b := range r.Bundle {
			if b.Fingerprint == c.Fingerprint {
				text += ", in the trust bundle"
			}
		}
		out = append(out, text)
		if c.SelfIssued() {
			return out
		}
		next := c.IssuerIn(rest)
		if next == nil {
			end := ", not here"
			if slices.ContainsFunc(rest, func(i *cert.Certificate) bool { return bytes.Equal(i.RawSubject, c.RawIssuer) }) {
				end = ", which is here and does not verify it"
			}
			return append(out, strings.Repeat("  ", depth)+"└ "+printable.Shorten(c.IssuerName, maxName)+end)
		}
		c = next
	}
	return out
}

// left returns a clause about the time that is left, or since when the certificate is over.
func left(c *cert.Certificate, now time.Time) string {
	d := humantime.Short(humantime.Between(now, c.NotAfter))
	if now.Before(c.NotAfter) {
		return d + " left"
	}
	return "over for " + d
}

// usages names the extended key usages (RFC 5280 §4.2.1.12), by words where TLS looks at them.
func usages(c *cert.Certificate) string {
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

// nonEmpty returns the texts that are not empty.
func nonEmpty(list ...string) (out []string) {
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// writeDocument writes the lines of a document.
func writeDocument(d *cert.Document, line func(string, string, ...any), now time.Time) {
	line("kind", "%s", d.What)
	line("name", "%s", d.Name)
	if valid := validity(d, now); valid != "" {
		line("valid", "%s", valid)
	}
	for _, one := range d.Details {
		line(one.Label, "%s", one.Text)
	}
}

// validity describes the dates of a document, "" if it has none. SSH certificates and
// tokens may have no end.
func validity(d *cert.Document, now time.Time) string {
	var parts []string
	if !d.From.IsZero() {
		parts = append(parts, "from "+humantime.Stamp(d.From))
	}
	switch {
	case d.Until.IsZero() && d.From.IsZero():
		return ""
	case d.Until.IsZero():
		parts = append(parts, "without an end")
	case now.Before(d.Until):
		parts = append(parts, "to "+humantime.Stamp(d.Until)+", "+humantime.Short(humantime.Between(now, d.Until))+" left")
	default:
		parts = append(parts, "to "+humantime.Stamp(d.Until)+", over for "+humantime.Short(humantime.Between(d.Until, now)))
	}
	return strings.Join(parts, " ")
}
