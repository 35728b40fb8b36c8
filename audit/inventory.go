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

// inventory is what a run remembers of all certificates that it has seen: on disk, from
// servers, and in the record. Rows are not kept after they were written, so it has hashes
// and places. It belongs to the goroutine that makes rows.
type inventory struct {
	warn, crit threshold // as in criteria

	lists     []*cert.List
	uses      map[string]*listUse     // of lists that leaves have, by useKey
	useOfList map[*cert.List]*listUse // the same, by list
	omitted   omissions               // paths that walks have left out

	found   []foundCert
	current foundID            // of the row that is judged now
	owners  map[uint64]foundID // the first certificate of each public key, by its hash
	paired  map[string]bool    // files whose keys were judged with a certificate

	// These are of the record, which is read before the sources are asked.
	recorded map[cert.ID]recordEntry        // nil without a record
	issuers  map[string][]*cert.Certificate // certificates of the authority, by name in DER
	signers  map[cert.ID]bool               // the same
	lent     []*cert.Certificate            // its roots, for chains that have no other bundle
	asOf     time.Time                      // when it was read
	torn     bool                           // it could not be read to its end
	placed   map[*lineage]whereabouts       // of its lineages, in the other sources

	// These are of the other sources.
	looked bool                 // a leaf was found
	wire   bool                 // servers will be asked
	onDisk map[cert.ID]bool     // leaves in files
	newest map[uint64]placement // the youngest leaf in files for each nameHash
	young  map[uint64]bool      // nameHashes of leaves that are too young for the record
	seed   maphash.Seed
}

// recordEntry is one certificate of the record.
type recordEntry struct {
	line    *lineage
	revoked bool
}

// placement is a certificate with the place where it was found.
type placement struct {
	notBefore, notAfter time.Time
	place               string
}

func newInventory() *inventory {
	return &inventory{
		owners: map[uint64]foundID{}, paired: map[string]bool{}, uses: map[string]*listUse{}, useOfList: map[*cert.List]*listUse{},
		wire: true, issuers: map[string][]*cert.Certificate{}, placed: map[*lineage]whereabouts{}, signers: map[cert.ID]bool{}, onDisk: map[cert.ID]bool{}, newest: map[uint64]placement{}, young: map[uint64]bool{},
		seed: maphash.MakeSeed(),
	}
}

// preparer is a source that fills the inventory before any source is asked.
type preparer interface {
	// prepare fills v and returns the source to collect from.
	prepare(ctx context.Context, v *inventory) Source
}

// omitter and endpointer are the optional methods of a [Source].
type omitter interface {
	OmitTo(add func(path, reason string)) Source
}

type endpointer interface{ Endpoints() bool }

// prepare calls the optional methods of all sources, and returns the sources to collect
// from. v.wire stays false only if each source says that it asks no server.
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

// addRecorded adds one certificate of the record, and its issuer as an authority.
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

// authority adds a certificate of the authority whose record it is.
func (v *inventory) authority(c *cert.Certificate) {
	if !v.signers[c.ID()] {
		v.signers[c.ID()] = true
		v.issuers[string(c.RawSubject)] = append(v.issuers[string(c.RawSubject)], c)
	}
}

// derID returns the ID of a certificate without parsing it.
func derID(der []byte) cert.ID {
	sum := sha256.Sum256(der)
	return cert.ID(sum[:])
}

// nameHash returns a hash of the names of a certificate. Certificates with the same names
// are of one service, or of replicas of it.
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

// foundCert is a certificate with the place where it was found. Maps have its index.
type foundCert struct {
	name, place string
	isCA        bool
}

type foundID uint32

// hash returns a hash of the parts, or 0 if they are empty. The seed is random, so nobody
// can make certificates whose hashes collide.
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

// addKeys remembers the first certificate of each public key, and the files whose private
// keys were judged with a certificate.
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

// owner returns the first certificate with a public key, which is given as its
// SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
func (v *inventory) owner(public []byte) (first foundCert, known bool) {
	at, known := v.owners[v.hash(public)]
	if !known {
		return first, false
	}
	return v.found[at], true
}

// addFound remembers a leaf of another source than the record.
func (v *inventory) addFound(r *Row) {
	if r.Kind == kindRecord || !r.Leaf() || v.recorded == nil && !v.wire {
		return
	}
	v.looked = true
	id := r.Cert.ID()
	if e, known := v.recorded[id]; known {
		v.addPlacement(e.line, id, r)
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

// tooYoung reports whether a certificate may have been recorded after the record was read.
func (v *inventory) tooYoung(c *cert.Certificate) bool {
	return !lifetime.IssuedAt(c.NotBefore, c.NotAfter).Before(v.asOf.Add(-asOfMargin))
}

// asOfMargin allows for clocks that differ, and for the time between signing and recording.
const asOfMargin = time.Minute

// pastGrace reports whether a certificate was issued so long ago that it should be in use.
// Programs that renew write at once, and servers look at their files every few seconds, so
// the grace is a twentieth of the life, and five minutes at most.
func pastGrace(notBefore, notAfter, now time.Time) bool {
	issued := lifetime.IssuedAt(notBefore, notAfter)
	grace := min(5*time.Minute, notAfter.Sub(issued)/20)
	return now.Sub(issued) > grace
}

// listUse says how leaves use a list: those that were found beside it, or all if the list
// was given.
type listUse struct {
	used   bool // a leaf is judged by it
	lacked bool // a leaf that has it has no list of its own issuer
}
