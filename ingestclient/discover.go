package ingestclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	listEvery   = time.Minute
	listTimeout = 10 * time.Second
)

// look makes sure that there is a list of elements, and renews an old one in
// the background. Only without any list does it wait, and then no longer than ctx.
func (f *fleet) look(ctx context.Context) error {
	f.mu.Lock()
	now := time.Now()
	known := len(f.elements) > 0
	alone := f.registry == nil && len(f.elements) == 1
	if alone || known && (now.Sub(f.listed) < listEvery || now.Before(f.fail.until)) {
		f.mu.Unlock()
		return nil
	}
	if now.Before(f.fail.until) {
		defer f.mu.Unlock()
		return f.fail.err
	}
	l := f.listing
	if l == nil {
		l = &flight{done: make(chan struct{})}
		if !f.keeper.spawn(func() { f.list(l) }) {
			f.mu.Unlock()
			return ErrClosed
		}
		f.listing = l
	}
	f.mu.Unlock()
	if known {
		return nil
	}
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// list runs one flight: it asks the registry or, for a configured list, each
// element for its mode and free space.
func (f *fleet) list(l *flight) {
	ctx, cancel := context.WithTimeout(f.keeper.life, listTimeout)
	defer cancel()
	var found []listed
	var err error
	if f.registry != nil {
		found, err = f.ask(ctx)
	} else {
		found = f.visit(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listing = nil
	defer close(l.done) // after the last word on l.err
	if err != nil {
		f.fail.count++
		f.fail.err = fmt.Errorf("%w: %w", ErrRegistry, err)
		l.err = f.fail.err
		f.fail.until = time.Now().Add(min(failMax, downMin<<min(f.fail.count-1, 10)))
		level := slog.LevelDebug
		if f.fail.count == 1 {
			level = slog.LevelWarn
		}
		f.Logger.Log(ctx, level, "storage elements not listed", "failures", f.fail.count, "err", err)
		return
	}
	if f.fail.count > 0 {
		f.Logger.Info("storage elements are listed again", "failures", f.fail.count)
	}
	f.fail, f.listed = failure{}, time.Now()
	f.merge(found)
}

// merge takes over a new list. What is known of elements that stay is kept. The
// caller holds f.mu.
func (f *fleet) merge(found []listed) {
	known := map[string]*element{}
	for _, e := range f.elements {
		known[e.base] = e
	}
	f.elements = make([]*element, 0, len(found))
	for _, l := range found {
		e := known[l.base]
		if e == nil {
			e = &element{listed: listed{base: l.base}}
			f.Logger.Info("storage element found", "url", l.base, "mode", l.mode)
		}
		e.priority, e.mode, e.free = l.priority, l.mode, l.free
		f.elements = append(f.elements, e)
	}
}

// ask reads the Admin Module's registry. Its 401 costs the token, once.
func (f *fleet) ask(ctx context.Context) ([]listed, error) {
	for again := true; ; again = false {
		cred, err := f.keeper.get(ctx)
		if err != nil {
			return nil, err
		}
		raw, status, err := f.read(ctx, cred, cred.lease.token, f.registry.String())
		cred.lease.done()
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusUnauthorized && again:
			f.keeper.invalidate(cred.token)
			continue
		case status != http.StatusOK:
			return nil, fmt.Errorf("status %d from the registry", status)
		}
		return f.accept(raw)
	}
}

// accept turns the registry's answer into elements that may be talked to.
func (f *fleet) accept(raw []byte) ([]listed, error) {
	all, err := parseRegistry(raw)
	if err != nil {
		return nil, err
	}
	found := make([]listed, 0, len(all))
	for _, l := range all {
		var errs []error
		u := f.checkURL("its URL", l.base, &errs)
		if u != nil && secure(u) && !f.identified {
			errs = append(errs, errors.New("its URL needs an identity"))
		}
		if len(errs) > 0 {
			f.Logger.Warn("storage element of the registry left out", "err", errs[0])
			continue
		}
		l.base = base(u)
		found = append(found, l)
	}
	if len(found) == 0 {
		return nil, errors.New("the registry lists no element that can be used")
	}
	return found, nil
}

// visit asks each configured element; one that does not answer stays as it is.
func (f *fleet) visit(ctx context.Context) []listed {
	cred, err := f.keeper.get(ctx)
	if err != nil {
		return f.storage
	}
	defer cred.lease.done()
	found := make([]listed, len(f.storage))
	var asking sync.WaitGroup
	for i, l := range f.storage {
		asking.Go(func() {
			found[i] = l
			raw, status, err := f.read(ctx, nil, cred.lease.storage, l.base+infoPath)
			if err == nil && status == http.StatusOK {
				found[i].mode, found[i].free = parseInfo(raw)
			}
		})
	}
	asking.Wait()
	return found
}

// read sends one GET; without a credential it goes without a token.
func (f *fleet) read(ctx context.Context, cred *credential, rt http.RoundTripper, target string) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	if cred != nil {
		req.Header["Authorization"] = cred.token.header
	}
	resp, err := roundTrip(rt, req)
	if err != nil {
		return nil, 0, transportError(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // everything of use was read
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, 0, transportError(ctx, err)
	}
	return raw, resp.StatusCode, nil
}

// space is how the services describe what is left; each names a part of it.
type space struct {
	Total     *int64 `json:"capacity_bytes"`
	Used      *int64 `json:"used_bytes"`
	Available *int64 `json:"available_bytes"`
}

func (s space) free() int64 {
	switch {
	case s.Available != nil:
		return max(0, *s.Available)
	case s.Total != nil && s.Used != nil:
		return max(0, *s.Total-*s.Used)
	}
	return -1
}

// parseRegistry reads the list of either Admin Module: items with url (Go, GET
// /api/v1/storage-elements) or storage_elements with api_url and priority
// (Python, GET /api/v1/internal/storage-elements/available). What is said to be
// offline or unhealthy is left out.
func parseRegistry(raw []byte) ([]listed, error) {
	type item struct {
		space
		URL      string `json:"url"`
		APIURL   string `json:"api_url"`
		Mode     string `json:"mode"`
		Priority int    `json:"priority"`
		Status   string `json:"status"`
		Health   string `json:"health_status"`
	}
	var list struct {
		Items    []item `json:"items"`
		Elements []item `json:"storage_elements"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errors.New("the registry's answer is not its list")
	}
	if list.Items == nil {
		list.Items = list.Elements
	}
	found := []listed{}
	for _, i := range list.Items {
		offline := i.Status != "" && !strings.EqualFold(i.Status, "online")
		if !offline && !strings.EqualFold(i.Health, "unhealthy") {
			found = append(found, listed{or(i.APIURL, i.URL), i.Priority, strings.ToLower(i.Mode), i.free()})
		}
	}
	return found, nil
}

// parseInfo reads GET /api/v1/info of either Storage Element. What it does not say is not known.
func parseInfo(raw []byte) (mode string, free int64) {
	var info struct {
		space
		Mode     string `json:"mode"`
		Capacity space  `json:"capacity"`
	}
	if json.Unmarshal(raw, &info) != nil {
		return "", -1
	}
	free = info.Capacity.free()
	if free < 0 {
		free = info.free()
	}
	return strings.ToLower(info.Mode), free
}

// base is the URL that API paths are added to.
func base(u *url.URL) string { return strings.TrimSuffix(u.String(), "/") }
