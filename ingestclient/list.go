package ingestclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	listPage     = 1000 // files asked for at a time: the most that the Go element gives; the Python one gives 100 at most
	listOverlap  = 8    // files of a page that the next one must repeat
	listRestarts = 3    // because files were removed while the list was read
	maxListPage  = 16 << 20
	maxListed    = 20_000_000
)

var (
	errListMoved = errors.New("files were removed while the list was read")
	errNoList    = errors.New("not a list of files")
)

// Files lists the files of one Storage Element of the client, given by its URL, the newest
// first. Neither kind of element can search by checksum, so the caller compares.
//
// A list that ends without an error is complete: each file that was stored before the call
// and is not removed during it was yielded, maybe twice. An error is a [*RequestError] and
// ends the list. Failed pages are repeated like look-ups. ctx bounds the whole list.
func (c *Client) Files(ctx context.Context, url string) iter.Seq2[*File, error] {
	return func(yield func(*File, error) bool) {
		ctx, leave, err := c.enter(ctx)
		if err != nil {
			yield(nil, listing(url, err))
			return
		}
		defer leave()
		at, err := c.element(ctx, url)
		if err != nil {
			yield(nil, listing(url, err))
			return
		}
		for restart := 0; ; restart++ {
			stop := false
			err := c.listAll(ctx, at, func(f *File) bool {
				stop = !yield(f, nil)
				return !stop
			})
			if stop || err == nil {
				return
			}
			if restart < listRestarts && errors.Is(err, errListMoved) {
				continue
			}
			yield(nil, err)
			return
		}
	}
}

func listing(url string, err error) *RequestError {
	return &RequestError{Op: "listing", Name: "files", Element: strings.TrimSuffix(url, "/"), Attempt: 1, Err: err}
}

// element returns the client's element with this URL. For other URLs it returns an error, so
// that no other server gets a token.
func (c *Client) element(ctx context.Context, url string) (*element, error) {
	all, err := c.selector.all(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(e *element) bool { return e.base == strings.TrimSuffix(url, "/") })
	if i < 0 {
		return nil, fmt.Errorf("%w: it is none of this client's storage elements", ErrRejected)
	}
	return all[i], nil
}

// listAll reads all pages once. A file that is stored meanwhile moves others to later
// pages, where they are yielded again. A file that is removed moves others to pages
// that were read: so each page must contain the last file of the one before.
func (c *Client) listAll(ctx context.Context, at *element, yield func(*File) bool) error {
	last := ""
	for offset := 0; ; {
		p, err := c.page(ctx, at, offset)
		if err != nil {
			return err
		}
		if last != "" && !slices.ContainsFunc(p.files, func(f *File) bool { return f.FileID == last }) {
			return listing(at.base, fmt.Errorf("%w: %w", ErrAnswer, errListMoved))
		}
		for _, f := range p.files {
			if !yield(f) {
				return nil
			}
		}
		end := offset + len(p.files)
		switch {
		case end >= p.total:
			return nil
		case len(p.files) < 2:
			return listing(at.base, fmt.Errorf("%w: a page of %d, and %d files in all", ErrAnswer, len(p.files), p.total))
		case end > maxListed:
			return listing(at.base, fmt.Errorf("%w: more than %d files", ErrAnswer, maxListed))
		}
		last = p.files[len(p.files)-1].FileID
		offset = end - min(listOverlap, len(p.files)-1)
	}
}

// page reads one page. The Python element calls the offset skip; each element ignores
// the parameter of the other.
func (c *Client) page(ctx context.Context, at *element, offset int) (p page, err error) {
	_, err = c.repeat(ctx, func(int) *RequestError {
		cred, err := c.tokens.get(ctx)
		if err != nil {
			e := (&upload{name: "files"}).noToken(ctx, err)
			e.Op, e.Element = "listing", at.base
			return e
		}
		defer cred.lease.unref()
		var e *RequestError
		if p, e = c.askPage(ctx, destination{cred, at}, offset); e != nil {
			e.Element = at.base
		}
		return e
	})
	return p, err
}

func (c *Client) askPage(ctx context.Context, p destination, offset int) (page, *RequestError) {
	var raw []byte
	var ahead time.Duration
	r := request{op: "listing", name: "files", url: p.at.files(fmt.Sprintf("?limit=%d&offset=%d&skip=%d", listPage, offset, offset))}
	sent := time.Now()
	e := c.send(ctx, p, r, func(resp *http.Response) (err error) {
		ahead = clockAhead(resp.Header.Get("Date"), sent, time.Now())
		raw, err = io.ReadAll(io.LimitReader(resp.Body, maxListPage+1))
		return err
	})
	if e != nil {
		return page{}, e
	}
	got, err := parsePage(raw)
	if len(raw) > maxListPage {
		err = fmt.Errorf("a page is longer than %d bytes", maxListPage)
	}
	if err != nil {
		return page{}, &RequestError{Op: r.op, Name: r.name, Status: http.StatusOK, Err: fmt.Errorf("%w: %w", ErrAnswer, err)}
	}
	for _, f := range got.files {
		f.Element = p.at.base
		if !f.Uploaded.IsZero() {
			f.Uploaded = f.Uploaded.Add(-ahead)
		}
	}
	return got, nil
}

// clockAhead is [clockOff] for the Date of an answer. A Date has whole seconds, so a
// difference below 2 s counts as 0.
func clockAhead(date string, sent, got time.Time) time.Duration {
	there, err := http.ParseTime(date)
	if err != nil {
		return 0
	}
	ahead := clockOff(there.Add(time.Second/2), sent, got)
	if ahead.Abs() < 2*time.Second {
		return 0
	}
	return ahead
}

// page is a part of a list.
type page struct {
	files []*File
	total int // of the whole list
}

// parsePage reads a page of either element: items (Go) or files (Python), and total. A page
// that could hide a file is an error: a list without entries or total, or an entry without
// id, size or checksum.
func parsePage(raw []byte) (page, error) {
	var list struct {
		Items []json.RawMessage `json:"items"`
		Files []json.RawMessage `json:"files"`
		Total *int              `json:"total"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return page{}, errNoList
	}
	entries := list.Items
	if entries == nil {
		entries = list.Files
	}
	if entries == nil || list.Total == nil || *list.Total < 0 {
		return page{}, errNoList
	}
	p := page{total: *list.Total, files: make([]*File, 0, len(entries))}
	for _, e := range entries {
		got, err := parseAnswer(e)
		if err != nil {
			return page{}, err
		}
		if got.size < 0 || got.sha256 == "" {
			return page{}, errors.New("an entry names no size or no checksum")
		}
		p.files = append(p.files, got.file())
	}
	return p, nil
}
