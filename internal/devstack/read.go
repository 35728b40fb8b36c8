package devstack

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
)

// minDownloadRate bounds the time of a download: its average must be so many bytes per second.
const minDownloadRate = 64 << 10

// authorise verifies the token of a request. Handlers call it first, so that the answer to a
// request without a valid token tells nothing about files.
func (s *Storage) authorise(r *http.Request, scope string) (*tokenInfo, problem) {
	v, err := s.tokens.verify(r, s.cfg.RequireBound)
	switch {
	case errors.Is(err, errNoKeys):
		return nil, problemNoKeys
	case err != nil:
		if r.Context().Err() == nil {
			s.log.Info("request refused", "err", err)
		}
		return nil, problemUnauthorized
	case !v.may(scope):
		return nil, problemForbidden
	}
	return v, noProblem
}

// serveMetadata answers with what is stored about one file, and not with its content.
func (s *Storage) serveMetadata(w http.ResponseWriter, r *http.Request) {
	if _, p := s.authorise(r, scopeRead); p != noProblem {
		s.fail(w, p, "")
		return
	}
	m := s.files.get(chi.URLParam(r, "id"))
	if m == nil {
		s.fail(w, problemNotFound, "")
		return
	}
	writeJSON(w, http.StatusOK, s.cfg.Dialect.described(m))
}

// serveDelete deletes a file, in mode edit only.
func (s *Storage) serveDelete(w http.ResponseWriter, r *http.Request) {
	_, p := s.authorise(r, scopeWrite)
	id := chi.URLParam(r, "id")
	switch {
	case p != noProblem:
	case s.cfg.Mode != modeEdit:
		p = problemMode
	case s.files.get(id) == nil:
		p = problemNotFound
	default:
		if err := s.files.remove(id); err != nil {
			s.log.Error("file not removed", "err", err)
			p = problemInternal
		}
	}
	if p != noProblem {
		s.fail(w, p, string(s.cfg.Mode))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveDownload sends the content, or parts of it (RFC 9110 §14). The entity tag is the
// SHA-256, so that a client can resume with If-Range.
func (s *Storage) serveDownload(w http.ResponseWriter, r *http.Request) {
	_, p := s.authorise(r, scopeRead)
	if p == noProblem && s.cfg.Mode == modeAR {
		p = problemMode
	}
	if p != noProblem {
		s.fail(w, p, string(s.cfg.Mode))
		return
	}
	m := s.files.get(chi.URLParam(r, "id"))
	if m == nil {
		s.fail(w, problemNotFound, "")
		return
	}
	f, err := s.files.open(m.ID)
	if err != nil {
		s.log.Error("file not readable", "err", err)
		s.fail(w, problemInternal, "")
		return
	}
	defer func() { _ = f.Close() }() // only read from
	bad := s.faults.choose("download")
	if bad != nil && bad.AfterBytes == 0 && bad.Kind != "trickle" {
		if status := bad.apply(r.Context()); status != 0 {
			s.failStatus(w, status)
			return
		}
	}
	patience := s.cfg.BodyIdle + time.Duration(m.Size/minDownloadRate)*time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience)) // fails for the recorder of a test only
	h := w.Header()
	h.Set("Content-Type", m.ContentType)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": m.Name}))
	// The type is what an uploader said. A browser must not guess another one and run it.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", `"`+m.SHA256+`"`)
	var content io.ReadSeeker = f
	if bad != nil && (bad.AfterBytes > 0 || bad.Kind == "trickle") {
		content = struct {
			io.Reader
			io.Seeker
		}{&faultyBody{Reader: f, ctx: r.Context(), fault: bad, left: bad.AfterBytes}, f}
	}
	http.ServeContent(w, r, "", m.UploadedAt, content)
}

// serveInfo needs no token, like the service that it stands for. Some members have two names:
// the two dialects name them differently.
func (s *Storage) serveInfo(w http.ResponseWriter, _ *http.Request) {
	all, used := s.files.list()
	writeJSON(w, http.StatusOK, map[string]any{
		"storage_id": s.id, "element_id": s.id, "name": "storage-element", "display_name": "Storage Element", "version": version,
		"mode": s.cfg.Mode, "status": "online", "storage_type": "local", "priority": priorityIncrement,
		"capacity_bytes": s.cfg.Capacity, "used_bytes": used, "file_count": len(all), "timestamp": time.Now().UTC(),
		"capacity":     map[string]int64{"total_bytes": s.cfg.Capacity, "used_bytes": used, "available_bytes": s.cfg.Capacity - used},
		"replica_mode": "standalone",
	})
}

// serveCapacity needs no token, like the service that it stands for. Sizes are in bytes.
func (s *Storage) serveCapacity(w http.ResponseWriter, _ *http.Request) {
	_, used := s.files.list()
	writeJSON(w, http.StatusOK, map[string]any{
		"storage_id": s.id, "mode": s.cfg.Mode, "health": "healthy", "backend": "local", "last_update": time.Now().UTC(),
		"capacity": map[string]any{
			"total": s.cfg.Capacity, "used": used, "available": s.cfg.Capacity - used,
			"percent_used": 100 * float64(used) / float64(s.cfg.Capacity),
		},
	})
}

// serveLive answers 200 as long as the process answers.
func (s *Storage) serveLive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"status": "ok", "timestamp": time.Now().UTC(), "checks": map[string]string{"process": "running"}, "version": version, "service": "storage-element",
	})
}

// Ready returns nil once tokens can be checked. Asked before the first fetch of the key set is
// over, it waits for that.
func (s *Storage) Ready(ctx context.Context) error {
	if s.tokens.keys.Load() == nil {
		_ = s.tokens.refresh(ctx, minJWKSInterval) // its failure shows below
	}
	if s.tokens.keys.Load() == nil {
		return errNoKeys
	}
	return nil
}

// serveReady is 503 while tokens cannot be checked: an upload would be refused.
func (s *Storage) serveReady(w http.ResponseWriter, r *http.Request) {
	if s.Ready(r.Context()) != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not_ready"})
		return
	}
	if s.cfg.Dialect == golang { // as ArtStore's does; the Python one does not look at its disk
		if err := s.files.writable(); err != nil {
			writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "fail", "checks": map[string]string{"filesystem": err.Error()}})
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}
