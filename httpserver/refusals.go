package httpserver

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/artstore/artstore-pki/internal/lograte"
)

// Values that Config.Refused gets.
const (
	LimitConns    = "connections"
	LimitRequests = "requests"
	LimitBodies   = "bodies"
)

// refusals reports each refusal to Config.Refused, and one a minute to the log.
type refusals struct {
	tell  func(what string)
	log   *slog.Logger
	lines lograte.Gate
}

func (r *refusals) add(what string, from netip.Prefix) {
	if r.tell != nil {
		r.tell(what)
	}
	if n := r.lines.Pass(time.Now()); n > 0 {
		r.log.Warn("an address is at its cap", "limit", what, "address", from.String(), "refused", n)
	}
}
