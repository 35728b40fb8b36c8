package audittest

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// tee is a source that remembers what it yields.
type tee struct {
	audit.Source
	got *Static
}

// Collect yields the subjects of the source.
func (s tee) Collect(ctx context.Context, yield func(audit.Subject)) {
	s.Source.Collect(ctx, func(one audit.Subject) {
		*s.got = append(*s.got, detached(one))
		yield(one)
	})
}

// Endpoints is that of the source.
func (s tee) Endpoints() bool {
	e, ok := s.Source.(interface{ Endpoints() bool })
	return !ok || e.Endpoints()
}

// OmitTo is that of the source.
func (s tee) OmitTo(add func(path, reason string)) audit.Source {
	if o, ok := s.Source.(interface {
		OmitTo(add func(path, reason string)) audit.Source
	}); ok {
		s.Source = o.OmitTo(add)
	}
	return s
}

// detached returns a copy of a subject without what a run changes.
func detached(s audit.Subject) audit.Subject {
	if s.Document != nil {
		d := *s.Document
		d.Details = slices.Clone(d.Details)
		s.Document = &d
	}
	if s.Key != nil {
		k := *s.Key
		s.Key = &k
	}
	return s
}

// wantKept fails the test if an audit of kept subjects reports anything else than an audit of
// the subjects themselves at the same moment.
func wantKept(t testing.TB, sources []audit.Source) {
	t.Helper()
	now := time.Now()
	cfg := audit.Config{Now: func() time.Time { return now }}
	var plain, records []audit.Source
	keepHeads := cfg.Keeper()
	for _, s := range sources {
		switch s := s.(type) {
		case audit.Record:
			s.Now = now
			loaded, _ := s.Load(t.Context(), keepHeads) // its rows have the error
			records = append(records, loaded)
			plain = append(plain, s)
		case tee:
			subjects := *s.got
			plain = append(plain, tee{Static{}, &Static{}}, again{s, subjects})
		default:
			plain = append(plain, s)
		}
	}
	cfg.Sources = records
	keep := cfg.Keeper()
	var kept []audit.Source
	for _, s := range plain {
		switch s := s.(type) {
		case audit.Record:
			kept = append(kept, records[0])
			records = records[1:]
		case again:
			var list Static
			for _, one := range s.subjects {
				list = append(list, keep(detached(one)))
			}
			kept = append(kept, again{s.tee, list})
		default:
			kept = append(kept, s)
		}
	}
	for range 2 { // a run must not change what is kept
		if want, got := reportAt(t, cfg, plain), reportAt(t, cfg, kept); got != want {
			t.Errorf("of kept subjects:\n%s\nwant\n%s", got, want)
		}
	}
}

// again yields the same subjects at each run.
type again struct {
	tee
	subjects Static
}

// Collect yields copies, because a run may change a subject.
func (s again) Collect(_ context.Context, yield func(audit.Subject)) {
	for _, one := range s.subjects {
		yield(detached(one))
	}
}

// OmitTo leaves nothing out.
func (s again) OmitTo(func(path, reason string)) audit.Source { return s }

func reportAt(t testing.TB, cfg audit.Config, sources []audit.Source) string {
	t.Helper()
	cfg.Sources = sources
	r, err := Judge(t.Context(), cfg)
	certtest.Must(t, err)
	var b bytes.Buffer
	certtest.Must(t, r.WriteNDJSON(&b))
	return b.String()
}
