package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/ca/record"
)

// Handler answers all pages, for GET and HEAD.
func (d *Dashboard) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, v := range map[string]view{
		"/{$}": d.frontPage, "/services": d.servicesPage, "/certificate/{serial}": d.certificatePage, "/issuance": d.issuancePage,
		"/trust": d.trustPage, "/revocations": d.revocationsPage, "/log": d.logPage, "/search": d.searchPage,
	} {
		mux.Handle(path, d.answer(v, false))
	}
	for path, v := range map[string]view{
		"/csv/ends": d.frontPage, "/csv/services": d.servicesPage, "/csv/certificate/{serial}": d.certificatePage, "/csv/issuance": d.issuancePage,
		"/csv/trust": d.trustPage, "/csv/revocations": d.revocationsPage, "/csv/log": d.logPage, "/csv/search": d.searchPage,
	} {
		mux.Handle(path, d.answer(v, true))
	}
	mux.Handle("/", d.answer(func(context.Context, request) (*page.Page, error) { return nil, errNotFound }, false))
	return d.guard(mux)
}

// guard lets only GET and HEAD pass, for hosts that this is, and says to browsers what the answers may
// do. It comes before all else, so also before errors of the router.
func (d *Dashboard) guard(next http.Handler) http.Handler {
	policy := page.Policy()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "nothing can be changed here", http.StatusMethodNotAllowed)
		case !d.opt.AnyHost && !loopbackHost(r.Host):
			http.Error(w, "this is not the host that was asked for", http.StatusMisdirectedRequest)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopbackHost reports whether the host of a request is one that no foreign name server decides about.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// answer makes a page, or the tables of a page as CSV, and writes it. It is made as a whole first, so
// that an error has a status.
func (d *Dashboard) answer(v view, csv bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		p, err := d.made(ctx, v, r, csv)
		if err != nil {
			status := statusOf(err)
			if status >= http.StatusInternalServerError {
				d.opt.Logger.WarnContext(ctx, "page not made", "path", r.URL.Path, "err", err)
			}
			p = &page.Page{Title: http.StatusText(status), Class: page.Warn, Rest: []string{sentenceOf(err, status)}, Now: d.now(), Program: d.opt.Program}
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(status)
			_ = page.HTML(w, p) // the peer is gone
			return
		}
		if to := p.Path; strings.HasPrefix(to, redirect) {
			http.Redirect(w, r, strings.TrimPrefix(to, redirect), http.StatusSeeOther)
			return
		}
		if csv {
			writeCSV(w, r, p)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.HTML(w, p) // the peer is gone
	})
}

// An answer is either a page, or a file, or leads to another page. The last is for the search, which names
// a certificate and is not its page.

// redirect begins the path of a page that is elsewhere.
const redirect = "303 "

// made makes a page in its turn.
func (d *Dashboard) made(ctx context.Context, v view, r *http.Request, csv bool) (*page.Page, error) {
	select {
	case d.turns <- struct{}{}:
		defer func() { <-d.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// A record that was restored is another file. What the connections still read has no name any more.
	if err := d.db.Intact(); err != nil {
		return nil, err
	}
	// A file may be longer than a page: it is not drawn, and its rows have no links.
	q := d.query
	if csv {
		q = q.WithLimit(csvRows)
	}
	p, err := v(ctx, request{r, d.now(), q, csv})
	if err == nil {
		p.Now, p.Program = d.now(), d.opt.Program
	}
	return p, err
}

// writeCSV writes the table of a page that has an address as CSV. The address of the next page is in a
// header (RFC 8288).
func writeCSV(w http.ResponseWriter, r *http.Request, p *page.Page) {
	for _, s := range p.Sections {
		if s.Table == nil || s.Table.CSV == "" {
			continue
		}
		h := w.Header()
		h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
		h.Set("Content-Disposition", `attachment; filename="`+strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(r.URL.Path, "/", "-"), "-csv-"), "-")+`.csv"`)
		if s.Table.Next != "" {
			h.Set("Link", "<"+csvAddress(s.Table.Next)+`>; rel="next"`)
		}
		_ = page.CSV(w, s.Table) // the peer is gone
		return
	}
	http.Error(w, "no table", http.StatusNotFound)
}

// csvAddress returns where the same table is as CSV, for an address of a page.
func csvAddress(html string) string {
	if strings.HasPrefix(html, "/csv/") {
		return html
	}
	return "/csv" + html
}

// statusOf returns the status of HTTP for an error. What the reader has asked for wrongly is told apart from
// what is wrong here.
func statusOf(err error) int {
	switch {
	case errors.Is(err, errNotFound), errors.Is(err, record.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, query.ErrCursor):
		return http.StatusBadRequest
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// sentenceOf says what is wrong. The text of a fault of the database is for the log of the program.
func sentenceOf(err error, status int) string {
	if status < http.StatusInternalServerError {
		return err.Error()
	}
	return "The record could not be read. The log of this program has the reason."
}

// address returns a path with parameters; pairs of name and value, those with an empty value are left out.
func address(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// certificateAddress returns the address of the page of a certificate.
func certificateAddress(serial string) string {
	return fmt.Sprintf("/certificate/%s", url.PathEscape(serial))
}
