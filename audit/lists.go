package audit

import "github.com/artstore/artstore-pki/audit/cert"

// maxWaiting bounds the lists that wait, in bytes.
const maxWaiting = 32 << 20

// heldLists are the rows of lists that wait until all authorities are known, because the
// certificate of the issuer of a list may be found anywhere.
type heldLists struct {
	rows    []Row
	size    int                            // of the lists in rows, in bytes
	issuers map[string][]*cert.Certificate // authorities that were found, by name in DER
	known   map[cert.ID]bool               // the same
	given   map[string]bool                // places of lists that have a row already
	all     bool                           // all authorities are known

	last [2]listKey // the chain and the bundle that were noted last
}

// noteIssuers remembers the authorities of a chain (which is 0) or of a bundle (1). Rows
// that follow each other often share these, so the same list is skipped.
func (w *heldLists) noteIssuers(list []*cert.Certificate, which int) {
	if id := listKeyOf(list); w.last[which] != id {
		w.last[which] = id
		for _, c := range list {
			w.noteIssuer(c)
		}
	}
}

// noteIssuer remembers a certificate if it is an authority's. c may be nil.
func (w *heldLists) noteIssuer(c *cert.Certificate) {
	if c == nil || !c.IsCA || w.known[c.ID()] {
		return
	}
	if w.issuers == nil {
		w.issuers, w.known = map[string][]*cert.Certificate{}, map[cert.ID]bool{}
	}
	w.known[c.ID()] = true
	w.issuers[string(c.RawSubject)] = append(w.issuers[string(c.RawSubject)], c)
}

// add keeps the row of a list. It returns false if there is no room: then the caller must
// judge the row with the authorities that are known so far.
func (w *heldLists) add(r *Row) bool {
	w.size += len(r.Document.List.Raw)
	if w.size > maxWaiting {
		return false
	}
	w.rows = append(w.rows, *r)
	return true
}
