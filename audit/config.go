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
	// Sources are asked one after the other. A [Record] comes last, because it can
	// miss only what was looked at before.
	Sources []Source
	// Report gets the rows. It must not be nil.
	Report Renderer
	// Now returns the moment at which a certificate is judged. It is called when the
	// certificate is found, because some end during a long walk. Nil means the present.
	Now func() time.Time
	// Clock returns when the report is made, if Now returns another moment; the report
	// says both. Nil means that the report is made at Now.
	Clock func() time.Time
	// About is for the reader of the report; it changes nothing else.
	About About
	// A certificate that people renew is reported as expiring this long before its end,
	// or when this share of its life is left (0.33 is a third), whichever comes later.
	// If one of the two is zero, the other one counts. If both are, a warning comes with
	// 30 days and a third, a critical finding with 7 days and a sixth.
	WarnBefore, CritBefore time.Duration
	WarnShare, CritShare   float64
	// MaxLifetime is the longest life of a leaf by the operator's own policy; 0 for none.
	MaxLifetime time.Duration
	// Lists are revocation lists by which certificates are judged. The keys are their
	// names in the report. Each list has a row.
	Lists map[string]*x509.RevocationList
	// Baseline are findings to leave out; nil for none. The summary counts the findings
	// that were left out, and names the lines of the baseline that matched none.
	Baseline *Baseline
	// NewBaseline gets a baseline that accepts all findings of this run. It is written
	// if the run was complete. Nil means that none is written.
	NewBaseline io.Writer
	// Only names the checks to run, by id; none means all. Disable takes some away.
	// [Run] refuses ids that [Checks] does not list.
	Only, Disable []string
	// Explain makes the summary list the paths that were left out; otherwise it counts
	// them.
	Explain bool
}

// check returns an error for a config with which [Run] would panic, or would report no
// findings because a check is misspelt.
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

// newCriteria returns the measures of the checks, with the defaults filled in. Their now
// is set for each row.
func (cfg *Config) newCriteria() criteria {
	return criteria{
		pools: &pools{}, indexes: &indexes{}, longest: cfg.MaxLifetime,
		warn: cmp.Or(threshold{cfg.WarnBefore, cfg.WarnShare}, defaultWarn),
		crit: cmp.Or(threshold{cfg.CritBefore, cfg.CritShare}, defaultCrit),
	}
}

// table returns the checks that run, in the order of all checks.
func (cfg *Config) table() (out []check) {
	for _, c := range checks {
		if (len(cfg.Only) == 0 || slices.Contains(cfg.Only, c.id)) && !slices.Contains(cfg.Disable, c.id) {
			out = append(out, c)
		}
	}
	return out
}

// policy returns sentences about the measures of a run, because the reader of a report
// may not know the command line.
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
