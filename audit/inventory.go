package audit

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// inventory is what a run knows of all that it has seen: on disk, on the wire, in the
// record. Rows are gone when they are written, so it keeps hashes, places and of
// the record what it keeps anyway. It belongs to the goroutine that makes rows.
type inventory struct {
	warn, crit threshold // of ends

	lists     []*cert.List
	uses      map[string]*listUse     // of lists that leaves have, by place and signature
	useOfList map[*cert.List]*listUse // the same
	omitted   omissions               // by walks

	found   []foundCert
	current foundID            // of the row that is judged
	owners  map[uint64]foundID // the first certificate of each public key, by its hash
	paired  map[string]bool    // files whose keys were judged with a certificate

	// Of the record, read before anything else is looked at.
	recorded map[cert.ID]recordEntry        // nil without a record
	issuers  map[string][]*cert.Certificate // who signed what is in it, by name in DER
	signers  map[cert.ID]bool               // all of issuers
	lent     []*cert.Certificate            // roots, to judge chains by that have no other bundle
	asOf     time.Time                      // when it was read
	torn     bool                           // it could not be read to its end

	// Of what was found elsewhere.
	looked bool                 // somewhere else than in the record
	wire   bool                 // servers are among what will be looked at
	onDisk map[cert.ID]bool     // leaves
	newest map[uint64]placement // on disk, of each holder of names
	young  map[uint64]bool      // holders whose certificate is younger than what was read of the record
	seed   maphash.Seed
}

// recordEntry is one certificate of the record.
type recordEntry struct {
	line    *lineage
	revoked bool
}

// placement is a certificate where it lies.
type placement struct {
	notBefore, notAfter time.Time
	place               string
}

func newInventory() *inventory {
	return &inventory{
		owners: map[uint64]foundID{}, paired: map[string]bool{}, uses: map[string]*listUse{}, useOfList: map[*cert.List]*listUse{},
		wire: true, issuers: map[string][]*cert.Certificate{}, signers: map[cert.ID]bool{}, onDisk: map[cert.ID]bool{}, newest: map[uint64]placement{}, young: map[uint64]bool{},
		seed: maphash.MakeSeed(),
	}
}

// preparer is a source that has something to say before any source is asked.
type preparer interface {
	// prepare tells v and returns the source to collect from.
	prepare(ctx context.Context, v *inventory) Source
}

// omitter and endpointer are the optional methods of a [Source].
type omitter interface {
	OmitTo(add func(path, reason string)) Source
}

type endpointer interface{ Endpoints() bool }

// prepare asks all sources. Servers are expected, unless every source says that it has none.
func (v *inventory) prepare(ctx context.Context, sources []Source) (out []Source) {
	v.wire = false
	for _, s := range sources {
		if o, ok := s.(omitter); ok {
			s = o.OmitTo(v.omitted.add)
		}
		if p, ok := s.(preparer); ok {
			s = p.prepare(ctx, v)
		} else if e, ok := s.(endpointer); !ok || e.Endpoints() {
			v.wire = true
		}
		out = append(out, s)
	}
	return out
}

// addRecorded takes one certificate of the record.
func (v *inventory) addRecorded(line *lineage, c *Recorded) {
	var signer cryptobyte.String
	chain := cryptobyte.String(c.Chain)
	if chain.ReadASN1Element(&signer, asn1.SEQUENCE) && !v.signers[derID(signer)] {
		if i, err := cert.Parse(signer); err == nil {
			v.authority(i)
		}
	}
	v.recorded[derID(c.DER)] = recordEntry{line, c.Revoked}
}

// authority takes a certificate of the authority whose record it is.
func (v *inventory) authority(c *cert.Certificate) {
	if !v.signers[c.ID()] {
		v.signers[c.ID()] = true
		v.issuers[string(c.RawSubject)] = append(v.issuers[string(c.RawSubject)], c)
	}
}

func derID(der []byte) cert.ID {
	sum := sha256.Sum256(der)
	return cert.ID(sum[:])
}

// nameHash hashes the names of a certificate: those who have the same are the same
// service, or replicas of it.
func (v *inventory) nameHash(c *cert.Certificate) uint64 {
	var h maphash.Hash
	h.SetSeed(v.seed)
	_, _ = h.Write(c.RawSubject) // never fails
	for _, name := range c.Names {
		_, _ = h.WriteString(name)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// foundCert is a certificate where it was found; a number stands for it in maps.
type foundCert struct {
	name, place string
	isCA        bool
}

type foundID uint32

// hash is zero for nothing. Who could make two that are alike does not know the seed.
func (v *inventory) hash(parts ...[]byte) uint64 {
	var h maphash.Hash
	h.SetSeed(v.seed)
	size := 0
	for _, p := range parts {
		size += len(p)
		_, _ = h.Write(p) // never fails
		_ = h.WriteByte(0)
	}
	if size == 0 {
		return 0
	}
	return h.Sum64()
}

// addKeys remembers whose a public key is, and that a private one was judged.
func (v *inventory) addKeys(r *Row) {
	if !r.parsed() {
		return
	}
	v.current = foundID(len(v.found)) //nolint:gosec // G115: four billion certificates are not audited
	v.found = append(v.found, foundCert{r.Cert.Name, r.Place, r.Cert.IsCA})
	key := v.hash(r.Cert.PublicKeyInfo)
	if _, known := v.owners[key]; !known {
		v.owners[key] = v.current
	}
	if r.Key != nil {
		v.paired[r.Key.Path] = true
	}
}

// owner is the first certificate with a public key, given as its SubjectPublicKeyInfo.
func (v *inventory) owner(public []byte) (first foundCert, known bool) {
	at, known := v.owners[v.hash(public)]
	if !known {
		return first, false
	}
	return v.found[at], true
}

// addFound remembers a leaf that was found outside of the record.
func (v *inventory) addFound(r *Row) {
	if r.Kind == kindRecord || !r.Leaf() || v.recorded == nil && !v.wire {
		return
	}
	v.looked = true
	id := r.Cert.ID()
	if e, known := v.recorded[id]; known {
		e.line.addPlacement(id, r)
	} else if v.recorded != nil && v.tooYoung(r.Cert) {
		v.young[v.nameHash(r.Cert)] = true
	}
	if r.Kind == KindEndpoint || !v.wire {
		return
	}
	v.onDisk[id] = true
	key := v.nameHash(r.Cert)
	if r.Cert.NotBefore.After(v.newest[key].notBefore) {
		v.newest[key] = placement{r.Cert.NotBefore, r.Cert.NotAfter, r.Place}
	}
}

// tooYoung reports whether a certificate may have come into the record after that was read.
func (v *inventory) tooYoung(c *cert.Certificate) bool {
	return !lifetime.IssuedAt(c.NotBefore, c.NotAfter).Before(v.asOf.Add(-asOfMargin))
}

// asOfMargin is for clocks that differ, and for the time between signing and recording.
const asOfMargin = time.Minute

// pastGrace is how long after its issue a certificate may not be in use yet:
// renewers write at once, servers look at their files every few seconds.
func pastGrace(notBefore, notAfter, now time.Time) bool {
	issued := lifetime.IssuedAt(notBefore, notAfter)
	grace := min(5*time.Minute, notAfter.Sub(issued)/20)
	return now.Sub(issued) > grace
}

// listUse is what the leaves beside a list, or all where it was given, have of it.
type listUse struct {
	used   bool
	lacked bool // a leaf has this list and others, and none of its issuer
}
