package audit

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// Config says what to audit.
type Config struct {
	Sources []Source
	// Report gets the rows.
	Report Renderer
	// Now is asked for the moment to judge each certificate at, when it is found;
	// nil means the present. A long walk outlives certificates.
	Now func() time.Time
	// Clock says when the report is made where Now is another moment, so that the
	// report says so; nil: it is made when Now says.
	Clock func() time.Time
	// About is for the reader of the report; it changes nothing else.
	About About
	// How near its end a certificate that people renew is reported as expiring:
	// this long before it, or with this share of its life left (0.33 is a third),
	// whichever comes later. One of the two alone counts alone; neither means 30
	// days and a third for a warning, 7 days and a sixth for a critical finding.
	WarnBefore, CritBefore time.Duration
	WarnShare, CritShare   float64
	// MaxLifetime is the longest life of a leaf by the operator's own policy; 0 for none.
	MaxLifetime time.Duration
	// Lists are revocation lists that certificates are judged by, under the names
	// that the report has for them. Each has a row.
	Lists map[string]*x509.RevocationList
	// Baseline are findings to leave out; nil for none. What it left out, and what
	// of it was found no more, the summary says.
	Baseline *Baseline
	// NewBaseline gets a baseline that accepts all findings of this run; nil: nobody wants one.
	NewBaseline io.Writer
	// Only names the checks to run, by id; none means all. Disable takes some away.
	// [Run] refuses ids that [Checks] does not list.
	Only, Disable []string
	// Explain has the summary list the paths that were left out, and not only count them.
	Explain bool
}

// check refuses what would be a panic later, or a report that is green for nothing.
func (cfg *Config) check() error {
	if cfg.Report == nil {
		return errors.New("auditing: there is no Report in the Config")
	}
	for _, id := range slices.Concat(cfg.Only, cfg.Disable) {
		if checkIndex(id) < 0 {
			return fmt.Errorf("auditing: there is no check %.40q", id)
		}
	}
	return nil
}

func (cfg *Config) newCriteria() criteria {
	return criteria{
		pools: &pools{}, indexes: &indexes{}, longest: cfg.MaxLifetime,
		warn: cmp.Or(threshold{cfg.WarnBefore, cfg.WarnShare}, defaultWarn),
		crit: cmp.Or(threshold{cfg.CritBefore, cfg.CritShare}, defaultCrit),
	}
}

func (cfg *Config) table() (out []check) {
	for _, c := range checks {
		if (len(cfg.Only) == 0 || slices.Contains(cfg.Only, c.id)) && !slices.Contains(cfg.Disable, c.id) {
			out = append(out, c)
		}
	}
	return out
}

// policy says in sentences what a run judges by, for reports that are read
// where nobody remembers the command line.
func (cfg *Config) policy() (out []string) {
	at := cfg.newCriteria()
	out = append(out,
		fmt.Sprintf("What people renew: to watch from %s, critical from %s.", at.warn, at.crit),
		fmt.Sprintf("What programs renew: due between %.0f %% and %.0f %% of its life; critical when that is overdue.", 100*lifetime.RenewFrom, 100*lifetime.RenewTo))
	if cfg.MaxLifetime > 0 {
		out = append(out, fmt.Sprintf("Leaves live %s at most.", humantime.Short(humantime.InSeconds(cfg.MaxLifetime))))
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
