package devstack

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/uuid"
)

const (
	maxRegistration = 64 << 10
	// maxRegistrations bounds the memory, because registrations are kept in memory only.
	maxRegistrations = 100_000
	// priorityIncrement is the step between elements in ArtStore's compose file.
	priorityIncrement = 100
)

// registry is the Admin Module's list of Storage Elements and of files. Files are kept in
// memory until the process ends. A real Admin Module has a database for them; nothing here
// depends on it.
type registry struct {
	elements []element

	mu    sync.Mutex
	files map[string]registration
}

// element has its members under the names of both dialects, such as url and api_url.
type element struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	URL      string `json:"url"`
	APIURL   string `json:"api_url"`
	Mode     string `json:"mode"`
	Status   string `json:"status"`
	Priority int    `json:"priority"`
}

// registration is what both dialects require; the rest of the body is ignored.
type registration struct {
	FileID    string    `json:"file_id"`
	Name      string    `json:"original_filename"`
	Size      int64     `json:"size"`
	Checksum  string    `json:"checksum"`
	ElementID string    `json:"storage_element_id"`
	CreatedAt time.Time `json:"created_at"`
}

// newRegistry returns a registry of the elements at urls, the first of which is preferred.
func newRegistry(urls []string) *registry {
	reg := &registry{files: map[string]registration{}, elements: []element{}}
	for i, u := range urls {
		id := uuid.New()
		reg.elements = append(reg.elements, element{
			ID: id, Name: "storage-element", URL: u, APIURL: u, Mode: string(modeRW), Status: "online", Priority: (i + 1) * priorityIncrement,
		})
	}
	return reg
}

var errRegistration = errors.New("file_id and original_filename are required")

// parseRegistration reads the body of a file's registration.
func parseRegistration(body []byte) (registration, error) {
	var reg registration
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&reg); err != nil {
		return registration{}, errRegistration
	}
	if reg.FileID == "" || reg.Name == "" || reg.Size < 0 {
		return registration{}, errRegistration
	}
	return reg, nil
}

// serveElements answers with the list of Storage Elements.
func (a *Admin) serveElements(w http.ResponseWriter, r *http.Request) {
	if !a.bearer(w, r) {
		return
	}
	items := a.registry.elements
	writeJSON(w, http.StatusOK, map[string]any{"items": items, "storage_elements": items, "total": len(items)})
}

// serveRegister keeps the registration of a file. It needs a token of this module.
func (a *Admin) serveRegister(w http.ResponseWriter, r *http.Request) {
	if !a.bearer(w, r) {
		return
	}
	body, ok := readBody(w, r, maxRegistration)
	if !ok {
		writeJSON(w, http.StatusRequestEntityTooLarge, map[string]string{"detail": "Request too large"})
		return
	}
	reg, err := parseRegistration(body)
	if err != nil {
		writeJSON(w, http.StatusUnprocessableEntity, map[string]string{"detail": err.Error()})
		return
	}
	reg.CreatedAt = time.Now().UTC()
	if status := a.registry.add(reg); status != http.StatusCreated {
		writeJSON(w, status, map[string]string{"detail": "File is already registered, or there are too many"})
		return
	}
	writeJSON(w, http.StatusCreated, reg)
}

// add keeps a registration and returns the status of the answer.
func (reg *registry) add(f registration) (status int) {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if _, there := reg.files[f.FileID]; there {
		return http.StatusConflict
	}
	if len(reg.files) >= maxRegistrations {
		return http.StatusInsufficientStorage
	}
	reg.files[f.FileID] = f
	return http.StatusCreated
}

// bearer verifies a token that this module has issued, with its binding to a certificate. It
// answers 401 itself if there is none.
func (a *Admin) bearer(w http.ResponseWriter, r *http.Request) bool {
	raw, err := bearerToken(r)
	if err == nil {
		var keys *keySet
		if keys, err = parseKeySet(a.keys.ring.Load().jwks); err == nil {
			var v *tokenInfo
			if v, err = keys.verify(raw, time.Now()); err == nil {
				err = v.bound(r, a.cfg.BoundTokens)
			}
		}
	}
	if err == nil {
		return true
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	writeJSON(w, http.StatusUnauthorized, map[string]string{"detail": "Invalid or expired token"})
	return false
}
