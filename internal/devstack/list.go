package devstack

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Sizes of a page, as ArtStore's two Storage Elements have them.
const (
	// pythonPage is the default and the maximum.
	pythonPage = 100
	goPage     = 50
	goPageMax  = 1000
)

// window is the part of the list that a request asks for.
type window struct{ offset, limit int }

// serveList answers with a page of what is stored, the newest first.
func (s *Storage) serveList(w http.ResponseWriter, r *http.Request) {
	if _, p := s.authorise(r, scopeRead); p != noProblem {
		s.fail(w, p, "")
		return
	}
	if bad := s.faults.choose("list"); bad != nil {
		if status := bad.apply(r.Context()); status != 0 {
			s.failStatus(w, status)
			return
		}
	}
	query := r.URL.Query()
	part, err := s.cfg.Dialect.window(query)
	if err != nil {
		writeError(w, s.cfg.Dialect, s.cfg.Dialect.badQuery(err))
		return
	}
	all, _ := s.files.list()
	if status := query.Get("status"); s.cfg.Dialect == golang && status != "" && status != "active" {
		all = nil // files that are deleted here are gone
	}
	slices.SortFunc(all, func(a, b *metadata) int {
		return cmp.Or(b.UploadedAt.Compare(a.UploadedAt), cmp.Compare(a.ID, b.ID))
	})
	from := min(part.offset, len(all))
	to := min(from+part.limit, len(all))
	writeJSON(w, http.StatusOK, s.cfg.Dialect.listed(all[from:to], part, len(all)))
}

// listed is the body of a list in the dialect. The list is never null.
func (d Dialect) listed(page []*metadata, part window, total int) map[string]any {
	entries := make([]map[string]any, 0, len(page))
	for _, m := range page {
		entries = append(entries, d.described(m))
	}
	if d == golang {
		return map[string]any{
			"items": entries, "total": total, "limit": part.limit, "offset": part.offset, "has_more": part.offset+part.limit < total,
		}
	}
	for i, m := range page { // what a list says of a file, and a look-up here does not
		entries[i]["created_at"], entries[i]["created_by_username"] = m.UploadedAt.Format(time.RFC3339Nano), m.UploadedBy
	}
	return map[string]any{"total": total, "files": entries}
}

// window reads offset and limit, or skip and limit. A limit that is too large is lowered by
// the Python dialect, and refused by the Go one.
func (d Dialect) window(query url.Values) (window, error) {
	offset, limit := "skip", pythonPage
	if d == golang {
		offset, limit = "offset", goPage
	}
	part := window{limit: limit}
	for name, to := range map[string]*int{offset: &part.offset, "limit": &part.limit} {
		if query.Get(name) == "" {
			continue
		}
		n, err := strconv.Atoi(query.Get(name))
		if err != nil || n < 0 {
			return window{}, fmt.Errorf("%s is not a number from 0 up", name)
		}
		*to = n
	}
	if d == python {
		part.limit = min(part.limit, pythonPage)
		return part, nil
	}
	if part.limit < 1 || part.limit > goPageMax {
		return window{}, fmt.Errorf("limit is not between 1 and %d", goPageMax)
	}
	return part, nil
}

// badQuery returns the answer to a list whose window cannot be read, in the dialect.
func (d Dialect) badQuery(err error) answer {
	if d == golang {
		return answer{http.StatusBadRequest, "VALIDATION_ERROR", err.Error()}
	}
	return answer{http.StatusUnprocessableEntity, "", err.Error()}
}
