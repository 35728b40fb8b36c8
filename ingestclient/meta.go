package ingestclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Values of Meta.Retention.
const (
	retentionTemporary = "temporary"
	retentionPermanent = "permanent"
)

const maxTTLDays = 365 // as ArtStore's ingester has it

// Meta has the fields that are sent with a file. The zero value works.
type Meta struct {
	// FileID is an id chosen by the client (a UUID). The Python Storage Element stores the
	// file under it, once, which makes every retry safe. The Go one ignores it, so set it
	// for the Python one only, or with FileIDOffered.
	FileID string
	// FileIDOffered says that it is not known whether the Storage Element stores
	// under FileID. Then an upload without an outcome is [ErrAmbiguous] and is not
	// repeated, as without an id; File.FileID tells what the element did.
	FileIDOffered bool
	// IdempotencyKey is sent as the header of that name. Set it only if the
	// Storage Element honours it: it makes every retry count as safe.
	IdempotencyKey string
	// ContentType of the file. Empty means application/octet-stream.
	ContentType string
	// Description, Version and Tags are sent when not empty. The Python element
	// drops tags, the Go one the version; File.Dropped says so.
	Description string
	Version     string
	Tags        []string
	// Retention is "temporary" or "permanent". In ArtStore the mode of the element decides
	// that (edit or rw), so this field chooses among several elements. Empty means any.
	Retention string
	// TTLDays is how long temporary content should be kept, 1 to 365 days; 0 says
	// nothing. No Storage Element lets an uploader decide it yet.
	TTLDays int
	// Progress is called after each piece that was sent, with bytes of content;
	// it starts at 0 again when an upload is retried. It must not block.
	Progress func(sent, total int64)
}

// keyed reports whether the element recognises a second upload of the same file.
func (m *Meta) keyed() bool { return m.FileID != "" && !m.FileIDOffered }

// check returns an error for values that no Storage Element accepts.
func (m *Meta) check() error {
	switch {
	case m.FileID != "" && !validID(m.FileID):
		return errors.New("FileID is not an id")
	case m.Retention != "" && m.Retention != retentionTemporary && m.Retention != retentionPermanent:
		return fmt.Errorf("unknown Retention %q: use temporary or permanent", m.Retention)
	case m.TTLDays < 0 || m.TTLDays > maxTTLDays:
		return fmt.Errorf("TTLDays %d: want 1 to %d", m.TTLDays, maxTTLDays)
	case m.TTLDays > 0 && m.Retention == retentionPermanent:
		return errors.New("TTLDays is for temporary content")
	}
	return nil
}

// fields returns the form fields of both kinds of Storage Element; each kind ignores those of
// the other.
func (m *Meta) fields() (f [][2]string) {
	add := func(name, value string) {
		if value != "" {
			f = append(f, [2]string{name, value})
		}
	}
	add("file_id", m.FileID)
	add("description", m.Description)
	add("version", m.Version)
	if len(m.Tags) > 0 {
		tags, _ := json.Marshal(m.Tags) // strings always encode
		add("tags", string(tags))
	}
	add("retention_policy", m.Retention)
	if m.TTLDays > 0 {
		add("ttl_days", strconv.Itoa(m.TTLDays))
	}
	return f
}

// kept has the fields that an answer says are stored.
type kept struct {
	python      bool // the answer is of the Python element, which repeats none of them
	id          string
	description string
	tags        []string
	retention   string
	ttlDays     int
}

// dropped returns the names of the fields that were sent and are not stored. The answer of
// the Python element has none of them: it stores description and version, and ignores the
// others.
func (m *Meta) dropped(k kept) (names []string) {
	lost := func(name string, sent, there bool) {
		if sent && !there {
			names = append(names, name)
		}
	}
	lost("description", m.Description != "", k.python || k.description == m.Description)
	lost("file_id", m.FileID != "", k.id == m.FileID)
	lost("retention_policy", m.Retention != "", k.retention == m.Retention)
	lost("tags", len(m.Tags) > 0, slices.Equal(k.tags, m.Tags))
	lost("ttl_days", m.TTLDays > 0, k.ttlDays == m.TTLDays)
	lost("version", m.Version != "", k.python)
	return names
}
