package spool

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

const (
	// lateArrival is how long after the end of an upload a file may appear in the list of
	// its element. The servers of elements end a request after a minute.
	lateArrival = 2 * time.Minute
	// listedEarly is how much too early the time of a file in a list may be: a Date has
	// whole seconds, and so have the times of a list.
	listedEarly = 2 * time.Second
	// longBefore is how long before a claim a file must be stored to be certainly another
	// one, even if the clocks differ.
	longBefore = 10 * time.Minute
	// maxMatches bounds how many files of one content are remembered.
	maxMatches = 1000
)

// elementLister is the type of [ResolveConfig.Lister].
type elementLister interface {
	Elements(ctx context.Context) ([]ingestclient.Element, error)
	Files(ctx context.Context, url string) iter.Seq2[*ingestclient.File, error]
}

// suspect is a file that may be stored, with what is needed to recognise it in a list.
type suspect struct {
	quarantinedFile
	sha256 string
	err    error     // why it cannot be read, or nil
	begun  time.Time // when it was claimed; zero if that is not known
}

// inventory has the files of the elements that may be suspects.
type inventory struct {
	bySum   map[string][]*ingestclient.File // by SHA-256
	byID    map[string]*ingestclient.File   // by the id that the element was offered
	asked   map[string]bool                 // URLs of elements that were listed to the end
	trouble []string                        // why other elements were not
}

// resolveAuto asks all elements at once for all files.
func (s *Spool) resolveAuto(ctx context.Context, lister elementLister, files []quarantinedFile) ([]Resolution, error) {
	if len(files) == 0 {
		return nil, nil
	}
	suspects, err := s.suspects(ctx, files)
	if err != nil {
		return nil, err
	}
	have := listElements(ctx, lister, suspects)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	others := s.receipts(files)
	out := make([]Resolution, len(files))
	for i, x := range suspects {
		if x.err != nil {
			out[i] = Resolution{Decision: DecideNothing, Why: "it cannot be read: " + x.err.Error()}
			continue
		}
		out[i] = decide(x, have, time.Now())
		out[i].SHA256 = x.sha256
		if out[i].Decision != DecideStored || out[i].FileID == x.id {
			continue
		}
		if twin := s.duplicateOf(ctx, x, suspects); twin != "" {
			out[i].Decision, out[i].Why = DecideNothing, "it is there once, and "+twin+" has the same name and content"
		} else if others[out[i].FileID] {
			out[i].Decision, out[i].Why = DecideNothing, "what is there is the copy of another file of this spool"
		}
	}
	return out, nil
}

// suspects reads and hashes the files.
func (s *Spool) suspects(ctx context.Context, files []quarantinedFile) ([]suspect, error) {
	out := make([]suspect, len(files))
	for i, f := range files {
		out[i] = suspect{quarantinedFile: f}
		if p, err := fileat.At(s.layout.claims, f.path()); err == nil {
			out[i].begun = p.Changed()
			p.Close()
		}
		out[i].sha256, out[i].err = s.hashQuarantined(ctx, f)
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// receipts returns the ids at elements that belong to other files of this spool, by the
// journal.
func (s *Spool) receipts(files []quarantinedFile) map[string]bool {
	known := map[string]bool{}
	for _, r := range s.journal.Stored() {
		if r.FileID != "" && !slices.ContainsFunc(files, func(f quarantinedFile) bool { return f.id == r.ID }) {
			known[r.FileID] = true
		}
	}
	return known
}

// duplicateOf returns the id of another ambiguous file with the same name and content as x,
// or "". The copy at the element may be of that file.
func (s *Spool) duplicateOf(ctx context.Context, x suspect, chosen []suspect) string {
	all, err := s.layout.list(string(quarantineAmbiguous))
	if err != nil {
		return "a file that cannot be listed"
	}
	for _, h := range all {
		if h.id == x.id || h.info == nil || h.info.Size() != x.info.Size() || filepath.Base(h.name) != filepath.Base(x.name) {
			continue
		}
		sum := ""
		if i := slices.IndexFunc(chosen, func(c suspect) bool { return c.id == h.id }); i >= 0 {
			sum = chosen[i].sha256
		} else if h.info.Mode().IsRegular() {
			sum, err = s.hashQuarantined(ctx, quarantinedFile{claimOnDisk: h, in: quarantineAmbiguous})
		}
		if err != nil || sum == "" || sum == x.sha256 {
			return h.id
		}
	}
	return ""
}

// listElements lists each element once.
func listElements(ctx context.Context, lister elementLister, suspects []suspect) *inventory {
	have := &inventory{bySum: map[string][]*ingestclient.File{}, byID: map[string]*ingestclient.File{}, asked: map[string]bool{}}
	for _, x := range suspects {
		have.bySum[x.sha256], have.byID[x.id] = nil, nil
	}
	elements, err := lister.Elements(ctx)
	if err != nil {
		have.trouble = append(have.trouble, err.Error())
		return have
	}
	for _, e := range elements {
		if err := have.list(lister.Files(ctx, e.URL)); err != nil {
			have.trouble = append(have.trouble, e.URL+": "+err.Error())
			continue
		}
		have.asked[e.URL] = true
	}
	return have
}

// list reads the list of one element to its end.
func (have *inventory) list(files iter.Seq2[*ingestclient.File, error]) error {
	for f, err := range files {
		if err != nil {
			return err
		}
		if _, ours := have.byID[f.FileID]; ours {
			have.byID[f.FileID] = f
		}
		same, wanted := have.bySum[f.SHA256]
		twice := slices.ContainsFunc(same, func(o *ingestclient.File) bool { return o.FileID == f.FileID && o.Element == f.Element })
		if wanted && !twice && len(same) < maxMatches {
			have.bySum[f.SHA256] = append(same, f)
		}
	}
	return nil
}

// decide returns what the lists prove. The file is stored if an element has a copy under the
// id that it was offered, or exactly one copy with its name and content that came during
// the upload. It is not stored if all elements have answered, none has it, and the upload
// ended long enough ago. In all other cases nothing is decided.
func decide(x suspect, have *inventory, now time.Time) Resolution {
	stays := func(why string, args ...any) Resolution {
		return Resolution{Decision: DecideNothing, Why: fmt.Sprintf(why, args...)}
	}
	if len(have.trouble) > 0 {
		return stays("not each element could be asked: %s", strings.Join(have.trouble, "; "))
	}
	for _, url := range x.reason.Elements {
		if !have.asked[url] {
			return stays("it may be at %s, which is none of the elements now", url)
		}
	}
	if f := have.byID[x.id]; f != nil {
		if f.Size != x.info.Size() || f.SHA256 != x.sha256 {
			return stays("%s has other content under its id", f.Element)
		}
		return stored(f)
	}
	here, elsewhere := have.matches(x)
	switch {
	case len(here) == 1:
		return x.decideByTime(here[0])
	case len(here) > 1:
		return stays("%d files of this name and content are stored: %s", len(here), placesOf(here))
	case len(elsewhere) > 0:
		return stays("the same content is stored under another name: %s", placesOf(elsewhere))
	case now.Sub(x.reason.At) < lateArrival:
		return stays("no element has it, and it was put aside less than %s ago: it may still be on its way", lateArrival)
	}
	return Resolution{Decision: DecideResend, Why: "no element has it"}
}

// matches returns the stored files that may be x: here those with its name, and elsewhere
// those with another name. Files that were stored long before are not x.
func (have *inventory) matches(x suspect) (here, elsewhere []*ingestclient.File) {
	for _, f := range have.bySum[x.sha256] {
		switch {
		case f.Size != x.info.Size():
		case f.Named(x.name):
			here = append(here, f)
		case x.begun.IsZero() || f.Uploaded.IsZero() || f.Uploaded.After(x.begun.Add(-longBefore)):
			elsewhere = append(elsewhere, f)
		}
	}
	return here, elsewhere
}

// decideByTime decides about the only stored file with the name and content of x. If it is
// not of the time of the upload, it may be an earlier or later file with the same content.
func (x suspect) decideByTime(f *ingestclient.File) Resolution {
	from, to := x.begun.Add(-listedEarly), x.reason.At.Add(lateArrival)
	if f.Uploaded.IsZero() || x.begun.IsZero() || x.reason.At.IsZero() || f.Uploaded.Before(from) || f.Uploaded.After(to) {
		return Resolution{
			Decision: DecideNothing, FileID: f.FileID, Element: f.Element,
			Why: fmt.Sprintf("the same name and content is stored, but not from the time of the upload: %s, %s", placesOf([]*ingestclient.File{f}), momentOf(f)),
		}
	}
	return stored(f)
}

// stored returns the decision for a file that an element has, unless the element says that
// it has expired or was deleted.
func stored(f *ingestclient.File) Resolution {
	r := Resolution{Decision: DecideStored, FileID: f.FileID, Element: f.Element, Why: fmt.Sprintf("%s has it since %s", f.Element, momentOf(f))}
	if f.Status != "" && f.Status != "active" {
		r.Decision, r.Why = DecideNothing, fmt.Sprintf("%s had it, and says that it is %s", f.Element, f.Status)
	}
	return r
}

func momentOf(f *ingestclient.File) string {
	if f.Uploaded.IsZero() {
		return "an unknown time"
	}
	return f.Uploaded.UTC().Format(time.RFC3339)
}

func placesOf(files []*ingestclient.File) string {
	const shown = 3
	var places []string
	for _, f := range files[:min(len(files), shown)] {
		places = append(places, f.FileID+" at "+f.Element)
	}
	if more := len(files) - shown; more > 0 {
		places = append(places, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(places, ", ")
}
