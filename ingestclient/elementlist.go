package ingestclient

import (
	"cmp"
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

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/tlsalert"
)

const (
	listEvery   = time.Minute
	listTimeout = 10 * time.Second
)

// ensureList starts reading the list of elements anew if it is old. It waits only if
// there is no list at all, and no longer than ctx.
func (sel *elementSelector) ensureList(ctx context.Context) error {
	sel.mu.Lock()
	now := time.Now()
	known := len(sel.elements) > 0
	alone := sel.registry == nil && len(sel.elements) == 1
	if alone || known && (now.Sub(sel.listed) < listEvery || now.Before(sel.fail.until)) {
		sel.mu.Unlock()
		return nil
	}
	if now.Before(sel.fail.until) {
		defer sel.mu.Unlock()
		return sel.fail.err
	}
	l := sel.listing
	if l == nil {
		l = &tokenFetch{done: make(chan struct{})}
		if !sel.tokens.spawn(func() { sel.refreshList(l) }) {
			sel.mu.Unlock()
			return ErrClosed
		}
		sel.listing = l
	}
	sel.mu.Unlock()
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

// refreshList asks the registry for the list or, if the list is configured, each
// element for its mode and free space. It ends l.
func (sel *elementSelector) refreshList(l *tokenFetch) {
	ctx, cancel := context.WithTimeout(sel.tokens.ctx, listTimeout)
	defer cancel()
	var found []elementInfo
	var err error
	if sel.registry != nil {
		found, err = sel.fetchRegistry(ctx)
	} else {
		found = sel.probeElements(ctx)
	}
	sel.mu.Lock()
	defer sel.mu.Unlock()
	sel.listing = nil
	defer close(l.done) // after l.err is set
	if err != nil {
		sel.fail.count++
		sel.fail.err = fmt.Errorf("%w: %w", ErrRegistry, err)
		l.err = sel.fail.err
		sel.fail.until = time.Now().Add(backoff.Step(downMin, failMax, sel.fail.count-1))
		level := slog.LevelDebug
		if sel.fail.count == 1 {
			level = slog.LevelWarn
		}
		sel.Logger.Log(ctx, level, "storage elements not listed", "failures", sel.fail.count, "err", err)
		return
	}
	if sel.fail.count > 0 {
		sel.Logger.Info("storage elements are listed again", "failures", sel.fail.count)
	}
	sel.fail, sel.listed = failure{}, time.Now()
	sel.merge(found)
}

// merge replaces the list by found. Elements that stay keep their recorded state. The
// caller holds sel.mu.
func (sel *elementSelector) merge(found []elementInfo) {
	known := map[string]*element{}
	for _, e := range sel.elements {
		known[e.base] = e
	}
	sel.elements = make([]*element, 0, len(found))
	for _, l := range found {
		e := known[l.base]
		if e == nil {
			e = &element{elementInfo: elementInfo{base: l.base}}
			sel.Logger.Info("storage element found", "url", l.base, "mode", l.mode)
		}
		e.priority, e.mode, e.free = l.priority, l.mode, l.free
		sel.elements = append(sel.elements, e)
	}
}

// fetchRegistry reads the Admin Module's registry. After a 401 it tries once more with
// another token.
func (sel *elementSelector) fetchRegistry(ctx context.Context) ([]elementInfo, error) {
	for again := true; ; again = false {
		cred, err := sel.tokens.get(ctx)
		if err != nil {
			return nil, err
		}
		raw, status, err := sel.getJSON(ctx, cred, cred.lease.token, sel.registry.String())
		cred.lease.unref()
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusUnauthorized && again:
			sel.tokens.invalidate(cred.token)
			continue
		case status != http.StatusOK:
			return nil, fmt.Errorf("status %d from the registry", status)
		}
		return sel.accept(raw)
	}
}

// accept parses the registry's answer and leaves out elements that must not be used.
func (sel *elementSelector) accept(raw []byte) ([]elementInfo, error) {
	all, err := parseRegistry(raw)
	if err != nil {
		return nil, err
	}
	found := make([]elementInfo, 0, len(all))
	for _, l := range all {
		var errs []error
		u := sel.checkURL("its URL", l.base, &errs)
		if u != nil && secure(u) && !sel.identified {
			errs = append(errs, errors.New("its URL needs an identity"))
		}
		if len(errs) > 0 {
			sel.Logger.Warn("storage element of the registry left out", "err", errs[0])
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

// probeElements asks each configured element for its mode and free space. For one that
// does not answer, both stay unknown.
func (sel *elementSelector) probeElements(ctx context.Context) []elementInfo {
	cred, err := sel.tokens.get(ctx)
	if err != nil {
		return sel.storage
	}
	defer cred.lease.unref()
	found := make([]elementInfo, len(sel.storage))
	var asking sync.WaitGroup
	for i, l := range sel.storage {
		asking.Go(func() {
			found[i] = l
			raw, status, err := sel.getJSON(ctx, nil, cred.lease.storage, l.base+infoPath)
			if err == nil && status == http.StatusOK {
				found[i].mode, found[i].free = parseInfo(raw)
			}
		})
	}
	asking.Wait()
	return found
}

// getJSON sends one GET, with a token if cred is not nil, and returns body and status.
func (sel *elementSelector) getJSON(ctx context.Context, cred *credential, rt http.RoundTripper, target string) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	if cred != nil {
		req.Header["Authorization"] = cred.token.header
	}
	resp, err := tlsalert.RoundTrip(rt, req)
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

// space has the fields in which the services report space; each service has some of them.
type space struct {
	Total     *int64 `json:"capacity_bytes"`
	Used      *int64 `json:"used_bytes"`
	Available *int64 `json:"available_bytes"`
}

// free returns the free space in bytes, -1 if it is not known.
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
// /api/v1/storage-elements) or storage_elements with api_url and priority (Python, GET
// /api/v1/internal/storage-elements/available). Elements that are offline or unhealthy are
// left out.
func parseRegistry(raw []byte) ([]elementInfo, error) {
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
	found := []elementInfo{}
	for _, i := range list.Items {
		offline := i.Status != "" && !strings.EqualFold(i.Status, "online")
		if !offline && !strings.EqualFold(i.Health, "unhealthy") {
			found = append(found, elementInfo{cmp.Or(i.APIURL, i.URL), i.Priority, strings.ToLower(i.Mode), i.free()})
		}
	}
	return found, nil
}

// parseInfo reads the answer to GET /api/v1/info of either Storage Element. mode is ""
// and free -1 if the answer does not say it.
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

// base returns the URL to which API paths are added.
func base(u *url.URL) string { return strings.TrimSuffix(u.String(), "/") }
