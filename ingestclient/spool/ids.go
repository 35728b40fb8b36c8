package spool

import (
	"context"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
)

// unlistedElement stands for the URL of the elements where no [Prober] lists them.
const unlistedElement = "unlisted"

// provenElements lists the elements that an upload may reach, if each of them stores
// under the id that it is offered; else it is nil. Only in the first case is an
// upload without an outcome looked up and repeated under its id. The proof is a receipt of
// the element, or Config.IDsKept.
func (s *Spool) provenElements(ctx context.Context) []string {
	if s.cfg.Finder == nil {
		return nil
	}
	urls := s.elements(ctx)
	for _, url := range urls {
		known := s.journal.IDsAt(url)
		if known == journal.OpIgnoresIDs || known == "" && !s.cfg.IDsKept {
			return nil
		}
	}
	return urls
}

// elements lists the URLs of the elements, or nothing if that is not known.
func (s *Spool) elements(ctx context.Context) []string {
	if s.cfg.Prober == nil {
		return []string{unlistedElement}
	}
	list, err := s.cfg.Prober.Elements(ctx)
	if err != nil {
		return nil
	}
	var urls []string
	for _, e := range list {
		urls = append(urls, e.URL)
	}
	return urls
}

// reachableElements lists the elements that an upload may reach, if they can be listed.
func (s *Spool) reachableElements(ctx context.Context) []string {
	if s.cfg.Prober == nil {
		return nil
	}
	return s.elements(ctx)
}

// canLookUp reports whether a look-up asks each element that may have the file. One
// that is listed no more may have it, and is not asked.
func (s *Spool) canLookUp(ctx context.Context, it *item) bool {
	if s.cfg.Finder == nil || len(it.proven) == 0 {
		return false
	}
	now := s.elements(ctx)
	return !slices.ContainsFunc(it.proven, func(url string) bool { return !slices.Contains(now, url) })
}

// recordIDSupport writes to the journal whether an element stores under the id that it was
// offered, if a receipt shows something new.
func (s *Spool) recordIDSupport(offered string, got *ingestclient.File) error {
	if offered == "" {
		return nil
	}
	url := got.Element
	if s.cfg.Prober == nil {
		url = unlistedElement
	}
	fact := journal.OpKeepsIDs
	if got.FileID != offered {
		fact = journal.OpIgnoresIDs
	}
	known := s.journal.IDsAt(url)
	if known == fact || known == journal.OpIgnoresIDs { // once it has ignored an id, it may do so again
		return nil
	}
	if fact == journal.OpIgnoresIDs {
		s.cfg.Logger.Warn("the element makes file ids itself; uploads without an outcome will be put aside", "path", s.cfg.Dir, "element", got.Element)
	}
	return s.journal.Append(&journal.Record{Op: fact, ID: url, At: time.Now().UTC()})
}
