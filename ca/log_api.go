package ca

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-chi/chi/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// getLogHead answers the newest signed head, to everyone: it says how many
// entries there are and nothing of what is in them, and the more keep it the
// better.
func (a *Authority) getLogHead(w http.ResponseWriter, _ *http.Request) error {
	h, err := a.currentHead()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(h.text) // the client may have gone
	return nil
}

func (a *Authority) currentHead() (*signedHead, error) {
	h := a.head.Load()
	if h == nil {
		return nil, &denial.RequestError{Status: http.StatusNotFound, Text: "the log has no head yet"}
	}
	return h, nil
}

// addLogHead sends the head along with a certificate. The head may be up to a second
// older than the certificate; the next head covers it.
func (a *Authority) addLogHead(w http.ResponseWriter) {
	if h := a.head.Load(); h != nil {
		w.Header().Set(stepapi.HeaderLogHead, h.header)
	}
}

// getLogProof answers ?from=&to= to every peer with a certificate of this
// authority: a peer that keeps a head can check that the log of today begins with it. The
// answer is hashes only.
func (a *Authority) getLogProof(w http.ResponseWriter, r *http.Request) error {
	if _, _, err := a.verifyPeer(r.Context(), r.TLS); err != nil {
		return err
	}
	h, err := a.currentHead()
	if err != nil {
		return err
	}
	q, err := parameters(r.URL.RawQuery, "from", "to")
	if err != nil {
		return err
	}
	from, err := sizeParam(q, "from", 0)
	if err != nil {
		return err
	}
	to, err := sizeParam(q, "to", h.Size)
	if err != nil {
		return err
	}
	if from < 1 || from > to || to > h.Size {
		return denial.BadRequest("from and to: want 1 ≤ from ≤ to ≤ %d, the size of the log", h.Size)
	}
	proof, err := a.record.LogConsistency(r.Context(), h.Head, from, to)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, stepapi.LogProof{From: from, To: to, Head: string(h.text), Hashes: raw(proof)})
	return nil
}

func sizeParam(q url.Values, key string, absent int64) (int64, error) {
	text := q.Get(key)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, denial.BadRequest("%s: not a number of entries", key)
	}
	return n, nil
}

// getLogEntry answers an entry with its inclusion proof to auditors.
func (a *Authority) getLogEntry(w http.ResponseWriter, r *http.Request) error {
	if err := a.authorizeReading(r); err != nil {
		return err
	}
	h, err := a.currentHead()
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(chi.URLParam(r, "index"), 10, 64)
	if err != nil || index < 0 || index >= h.Size {
		return &denial.RequestError{Status: http.StatusNotFound, Text: fmt.Sprintf("want an index below %d, the size of the log", h.Size)}
	}
	e, err := a.record.LogEntry(r.Context(), h.Head, index)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, stepapi.LogEntry{
		Index: index, Leaf: e.Leaf[:], Entry: e.Payload, Pruned: e.Payload == nil, Head: string(h.text), Hashes: raw(e.Proof),
	})
	return nil
}

func raw(hashes []tlog.Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	return out
}
