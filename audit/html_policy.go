package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// policy says in sentences what a run judges by, for reports that are read
// where nobody remembers the command line.
func (cfg *Config) policy() (out []string) {
	at := cfg.criteria()
	out = append(out,
		fmt.Sprintf("What people renew: to watch from %s, critical from %s.", at.warn, at.crit),
		fmt.Sprintf("What programs renew: due between %.0f %% and %.0f %% of its life; critical when that is overdue.", 100*lifetime.RenewFrom, 100*lifetime.RenewTo))
	if cfg.MaxLifetime > 0 {
		out = append(out, fmt.Sprintf("Leaves live %s at most.", span(cfg.MaxLifetime)))
	}
	if len(cfg.Only) > 0 {
		out = append(out, "Checks, these only: "+strings.Join(cfg.Only, ", ")+".")
	}
	if len(cfg.Disable) > 0 {
		out = append(out, "Checks, without: "+strings.Join(cfg.Disable, ", ")+".")
	}
	if len(cfg.Lists) > 0 {
		out = append(out, "Revocation lists: "+strings.Join(slices.Sorted(maps.Keys(cfg.Lists)), ", ")+".")
	}
	if cfg.Baseline != nil {
		out = append(out, "Findings that a baseline accepts are left out.")
	}
	return out
}

func (t threshold) String() string {
	share := fmt.Sprintf("when %.0f %% of its life are left", 100*t.share)
	switch {
	case t.share == 0:
		return span(t.before) + " before its end"
	case t.before == 0:
		return share
	}
	return fmt.Sprintf("%s before its end or %s, whichever comes later", span(t.before), share)
}
