package trust

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Document says which CA certificates are in use. Its JSON is also the content of current.json
// in a state directory.
type Document struct {
	// Version grows by one with each change. 0 is a directory from before there were versions.
	Version int64 `json:"version,omitempty"`
	// Roots are the trust bundle. The first one is active; those that were active before
	// follow, the latest first; a staged one is last.
	Roots []string `json:"roots"`
	// Intermediates are all that may have an unexpired leaf. The first one issues.
	Intermediates []string `json:"intermediates"`
	// Since is when a root has reached its stage. It is absent for the first root.
	Since map[string]time.Time `json:"since,omitempty"`
	// Staged is the staged root, or nil.
	Staged *Staged `json:"staged,omitempty"`
	// Revoked are the intermediates that the list of their root names, and since when.
	Revoked map[string]time.Time `json:"revoked,omitempty"`
}

// Staged is a root that signs for the services that try it, and for no other.
type Staged struct {
	Root         string `json:"root"`
	Intermediate string `json:"intermediate"` // issues for Services
	// Services get their certificates under the root. They are names of profiles, sorted.
	Services []string `json:"services,omitempty"`
}

// Tries reports whether a service gets its certificates under the staged root.
func (d *Document) Tries(service string) bool {
	return d.Staged != nil && slices.Contains(d.Staged.Services, service)
}

// Stage returns the stage of a root of the document, as [stepapi] names it.
func (d *Document) Stage(root string) string {
	switch {
	case root == d.Roots[0]:
		return stepapi.StageActive
	case d.Staged != nil && root == d.Staged.Root:
		return stepapi.StageStaged
	}
	return stepapi.StageOld
}

// Digest is [stepapi.TrustDigest] of the roots.
func (d *Document) Digest() string {
	sums := make([][32]byte, len(d.Roots))
	for i, fp := range d.Roots {
		sum, _ := hex.DecodeString(fp) // Check has made sure
		copy(sums[i][:], sum)
	}
	return stepapi.DigestOf(sums)
}

// Equal reports whether two documents name the same certificates in the same roles. Version and
// times are not compared.
func (d *Document) Equal(other *Document) bool {
	sameStaged := (d.Staged == nil) == (other.Staged == nil)
	if sameStaged && d.Staged != nil {
		a, b := d.Staged, other.Staged
		sameStaged = a.Root == b.Root && a.Intermediate == b.Intermediate && slices.Equal(a.Services, b.Services)
	}
	return sameStaged && slices.Equal(d.Roots, other.Roots) && slices.Equal(d.Intermediates, other.Intermediates) &&
		slices.Equal(slices.Sorted(maps.Keys(d.Revoked)), slices.Sorted(maps.Keys(other.Revoked)))
}

// clone returns a copy that shares nothing with d, and is the next version.
func (d *Document) clone() *Document {
	next := &Document{
		Version: d.Version + 1, Roots: slices.Clone(d.Roots), Intermediates: slices.Clone(d.Intermediates),
		Since: maps.Clone(d.Since), Revoked: maps.Clone(d.Revoked),
	}
	if next.Since == nil {
		next.Since = map[string]time.Time{}
	}
	if d.Staged != nil {
		next.Staged = &Staged{d.Staged.Root, d.Staged.Intermediate, slices.Clone(d.Staged.Services)}
	}
	return next
}

// Bounds of a document: it is read from a database that others may write to.
const (
	maxDocument     = 64 << 10 // bytes
	maxVersion      = 1 << 40  // what a century of steps each second does not reach
	maxCertificates = 100      // roots, and intermediates
	maxTrying       = 500      // services of 64 bytes that try a root: half of a document
)

var fingerprintForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Check returns what is wrong with a document that was read. Every fingerprint becomes part
// of a path, so each is looked at.
func (d *Document) Check() error {
	switch {
	case d.Version < 0 || d.Version > maxVersion:
		return fmt.Errorf("version %d is not between 0 and %d", d.Version, maxVersion)
	case len(d.Roots) == 0 || len(d.Intermediates) == 0:
		return errors.New("no roots or no intermediates")
	case len(d.Roots) > maxCertificates || len(d.Intermediates) > maxCertificates:
		return fmt.Errorf("more than %d roots or intermediates", maxCertificates)
	}
	named := slices.Concat(d.Roots, d.Intermediates, slices.Collect(maps.Keys(d.Since)), slices.Collect(maps.Keys(d.Revoked)))
	if s := d.Staged; s != nil {
		if !slices.Contains(d.Roots[1:], s.Root) || !slices.Contains(d.Intermediates[1:], s.Intermediate) {
			return errors.New("the staged root or its intermediate is not in the lists, or it is the active one")
		}
		if len(s.Services) > maxTrying {
			return fmt.Errorf("more than %d services try a root", maxTrying)
		}
		named = append(named, s.Root, s.Intermediate)
	}
	for _, fp := range named {
		if !fingerprintForm.MatchString(fp) {
			return fmt.Errorf("%.80q is not a fingerprint", fp)
		}
	}
	for _, list := range [][]string{d.Roots, d.Intermediates} {
		if sorted := slices.Sorted(slices.Values(list)); len(slices.Compact(sorted)) != len(list) {
			return errors.New("a certificate is listed twice")
		}
	}
	return nil
}

// kind begins the signed text of a document. It is no origin of a log, so the text can never
// pass for a head that the same key has signed.
const kind = "artstore-pki trust"

// Sign returns the document with a signature of the key of the log. A document that Open would
// not read is an error: once it is in the record, no authority could start any more.
func Sign(key *translog.Key, d *Document) ([]byte, error) {
	if err := d.Check(); err != nil {
		return nil, fmt.Errorf("signing the trust: %w", err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	signed, err := key.SignDocument(kind, text)
	if err == nil && len(signed) > maxDocument {
		err = fmt.Errorf("signing the trust: longer than %d bytes", maxDocument)
	}
	return signed, err
}

// Open checks the signature of a document and reads it. A document that another key has
// signed is [translog.ErrForeign].
func Open(v translog.Verifier, signed []byte) (*Document, error) {
	if len(signed) > maxDocument {
		return nil, fmt.Errorf("reading the trust of the record: longer than %d bytes", maxDocument)
	}
	text, err := v.OpenDocument(kind, signed)
	if err != nil {
		return nil, fmt.Errorf("reading the trust of the record: %w", err)
	}
	d := new(Document)
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("reading the trust of the record: %w", err)
	}
	if err := d.Check(); err != nil {
		return nil, fmt.Errorf("reading the trust of the record: %w", err)
	}
	return d, nil
}
