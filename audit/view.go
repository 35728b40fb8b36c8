package audit

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// view is what a run knows of all that it has seen: on disk, on the wire, in the
// record. Rows are gone when they are written, so it keeps hashes, places and of
// the record what it keeps anyway. It belongs to the goroutine that makes rows.
type view struct {
	lists []*revocations

	// Of the record, read before anything else is looked at.
	recorded map[certID]entry          // nil without a record
	issuers  map[string][]*Certificate // who signed what is in it, by name in DER
	signers  map[certID]bool           // all of issuers
	asOf     time.Time                 // when it was read
	torn     bool                      // it could not be read to its end

	// Of what was found elsewhere.
	looked bool                // somewhere else than in the record
	wire   bool                // servers are among what will be looked at
	onDisk map[certID]bool     // leaves
	newest map[uint64]sighting // on disk, of each holder of names
	young  map[uint64]bool     // holders whose certificate is younger than what was read of the record
	seed   maphash.Seed
}

// certID is the beginning of a fingerprint.
type certID [16]byte

func (c *Certificate) id() certID { return certID(c.fingerprint[:]) }

// entry is one certificate of the record.
type entry struct {
	line    *lineage
	revoked bool
}

// sighting is a certificate where it lies.
type sighting struct {
	notBefore, notAfter time.Time
	place               string
}

func newView() *view {
	return &view{
		wire: true, issuers: map[string][]*Certificate{}, signers: map[certID]bool{}, onDisk: map[certID]bool{}, newest: map[uint64]sighting{}, young: map[uint64]bool{},
		seed: maphash.MakeSeed(),
	}
}

// preparer is a source that has something to say before any source is asked.
type preparer interface {
	// prepare tells v and returns the source to collect from.
	prepare(ctx context.Context, v *view) Source
}

// prepare asks all sources. Servers are expected, unless every source says that it has none.
func (v *view) prepare(ctx context.Context, sources []Source) (out []Source) {
	v.wire = false
	for _, s := range sources {
		if p, ok := s.(preparer); ok {
			s = p.prepare(ctx, v)
		} else {
			v.wire = true
		}
		out = append(out, s)
	}
	return out
}

// enter takes one certificate of the record.
func (v *view) enter(line *lineage, c *Recorded) {
	var signer cryptobyte.String
	chain := cryptobyte.String(c.Chain)
	if chain.ReadASN1Element(&signer, asn1.SEQUENCE) && !v.signers[derID(signer)] {
		v.signers[derID(signer)] = true
		if i, err := ParseCertificate(signer); err == nil {
			v.issuers[string(i.subject)] = append(v.issuers[string(i.subject)], i)
		}
	}
	v.recorded[derID(c.DER)] = entry{line, c.Revoked}
}

func derID(der []byte) certID {
	sum := sha256.Sum256(der)
	return certID(sum[:])
}

// holder hashes the names of a certificate: those who have the same are the same
// service, or replicas of it.
func (v *view) holder(c *Certificate) uint64 {
	var h maphash.Hash
	h.SetSeed(v.seed)
	_, _ = h.Write(c.subject) // never fails
	for _, name := range c.names {
		_, _ = h.WriteString(name)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// note remembers a leaf that was found outside of the record.
func (v *view) note(r *Row) {
	if r.Kind == kindRecord || !r.leaf() || v.recorded == nil && !v.wire {
		return
	}
	v.looked = true
	id := r.Cert.id()
	if e, known := v.recorded[id]; known {
		e.line.note(id, r)
	} else if v.recorded != nil && v.tooYoung(r.Cert) {
		v.young[v.holder(r.Cert)] = true
	}
	if r.Kind == kindEndpoint || !v.wire {
		return
	}
	v.onDisk[id] = true
	key := v.holder(r.Cert)
	if r.Cert.notBefore.After(v.newest[key].notBefore) {
		v.newest[key] = sighting{r.Cert.notBefore, r.Cert.notAfter, r.Place}
	}
}

// tooYoung reports whether a certificate may have come into the record after that was read.
func (v *view) tooYoung(c *Certificate) bool {
	return !lifetime.IssuedAt(c.notBefore, c.notAfter).Before(v.asOf.Add(-asOfMargin))
}

// asOfMargin is for clocks that differ, and for the time between signing and recording.
const asOfMargin = time.Minute

// settled is how long after its issue a certificate may not be in use yet:
// renewers write at once, servers look at their files every few seconds.
func settled(notBefore, notAfter, now time.Time) bool {
	issued := lifetime.IssuedAt(notBefore, notAfter)
	grace := min(5*time.Minute, notAfter.Sub(issued)/20)
	return now.Sub(issued) > grace
}
