package audit

import "github.com/artstore/artstore-pki/audit/cert"

// maxWaiting bounds the lists, in bytes, that wait for certificates of authorities.
const maxWaiting = 32 << 20

// heldLists are rows of lists until all authorities are known: the certificate of the
// issuer may lie anywhere.
type heldLists struct {
	rows    []Row
	size    int
	issuers map[string][]*cert.Certificate // by name in DER
	known   map[cert.ID]bool
	given   map[string]bool // places of lists that have a row already
	all     bool            // is known

	last [2]listKey // noted last
}

// noteIssuers takes those of a chain or trust bundle, which many rows share.
func (w *heldLists) noteIssuers(list []*cert.Certificate, which int) {
	if id := listKeyOf(list); w.last[which] != id {
		w.last[which] = id
		for _, c := range list {
			w.noteIssuer(c)
		}
	}
}

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

// add takes the row of a list. It returns false if there is no room, so that the row is
// judged by the authorities that are known.
func (w *heldLists) add(r *Row) bool {
	w.size += len(r.Document.List.Raw)
	if w.size > maxWaiting {
		return false
	}
	w.rows = append(w.rows, *r)
	return true
}
