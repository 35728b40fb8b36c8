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

// getLogHead answers GET /log/head with the newest signed head. Everybody may have it: it
// says how many entries there are and nothing of their contents, and each client that
// keeps a head can show later that the log was changed.
func (a *Authority) getLogHead(w http.ResponseWriter, _ *http.Request) error {
	h, err := a.currentHead()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(h.text) // the client may have gone
	return nil
}

// currentHead returns the newest signed head, or a 404 before the first event.
func (a *Authority) currentHead() (*signedHead, error) {
	h := a.head.Load()
	if h == nil {
		return nil, &denial.RequestError{Status: http.StatusNotFound, Text: "the log has no head yet"}
	}
	return h, nil
}

// addLogHead adds the newest head to the headers of an answer with a certificate. The
// head may be a second older than the certificate; the next head covers it.
func (a *Authority) addLogHead(w http.ResponseWriter) {
	if h := a.head.Load(); h != nil {
		w.Header().Set(stepapi.HeaderLogHead, h.header)
	}
}

// getLogProof answers GET /log/proof?from=&to= with a consistency proof
// (RFC 9162 §2.1.4), by which a client that keeps a head checks that the log of today
// begins with it. Every holder of a certificate may ask: the answer has hashes only.
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

// sizeParam returns a parameter that is a number of entries, or absent if it is missing.
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

// getLogEntry answers GET /log/entry/N of an auditor with an entry and its inclusion proof
// (RFC 9162 §2.1.3). An entry whose row was pruned has its hash only.
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
