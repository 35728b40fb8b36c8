package spool

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/artstore/artstore-pki/ingestclient"
)

// Prober asks Storage Elements whether they would store a file now. It stores nothing.
// [*ingestclient.Client] is one.
type Prober interface {
	// Elements lists them in the order in which uploads try them.
	Elements(ctx context.Context) ([]ingestclient.Element, error)
	// Probe asks the one at url. Errors are judged by the sentinels of ingestclient.
	Probe(ctx context.Context, url string) error
}

// askElements returns nil as soon as one element would take a file, or cannot tell: some
// elements have no path for the question, and some accounts may store files but not look
// them up. The next file then shows it.
func askElements(ctx context.Context, p Prober) error {
	elements, err := p.Elements(ctx)
	if err != nil {
		return err
	}
	var all []error
	for _, e := range elements {
		err := p.Probe(ctx, e.URL)
		if err == nil || isInconclusive(err) {
			return nil
		}
		all = append(all, fmt.Errorf("%s: %w", e.URL, err))
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	return errors.Join(all...)
}

// isInconclusive reports whether an answer to a probe does not tell if the element takes files.
func isInconclusive(err error) bool {
	e, ok := errors.AsType[*ingestclient.RequestError](err)
	if !ok {
		return false
	}
	switch e.Status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return true
	}
	return errors.Is(err, ingestclient.ErrAnswer)
}
