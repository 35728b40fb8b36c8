package operate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// shown is how many digits of a fingerprint are printed. 64 bits tell all certificates of an
// authority apart, and a command takes them as an argument.
const shown = 16

// short is a fingerprint as tables and lines have it.
func short(fingerprint string) string { return fingerprint[:min(shown, len(fingerprint))] }

// printRoots prints a row for each root, and below it who is in the way of the next step.
func printRoots(u *ui.UI, s stepapi.TrustStatus) error {
	t := u.NewTable("ROOT", "STAGE", "SINCE", "UNTIL", "TRUSTED BY", "USED BY", "SUBJECT")
	for _, r := range s.Roots {
		t.Row(short(r.Fingerprint), stageOf(r), stamp(r.Since), stamp(r.NotAfter), trustedBy(r, s), fmt.Sprint(len(r.Users)), r.Subject)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range s.Roots {
		var err error
		switch {
		case r.Stage == stepapi.StageStaged && len(r.Without) > 0:
			err = printHolders(u, fmt.Sprintf("%d of %d have not reported a bundle with %s:", len(r.Without), s.Holders, short(r.Fingerprint)), r.Without)
		case r.Stage == stepapi.StageOld && len(r.Users) > 0:
			err = printHolders(u, fmt.Sprintf("%d of %d still use a certificate under %s:", len(r.Users), s.Holders, short(r.Fingerprint)), r.Users)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// trustedBy counts who has a root. Somebody who has just enrolled has not said so yet, which is
// no fault of the root.
func trustedBy(r stepapi.RootStatus, s stepapi.TrustStatus) string {
	text := fmt.Sprintf("%d of %d", r.Trusting, s.Holders)
	if s.Unreported > 0 {
		text += fmt.Sprintf(", %d not yet reported", s.Unreported)
	}
	return text
}

// stageOf is the stage of a root in the words of people: a staged root that all trust is
// adopted, and one that single services try says which, up to a few.
func stageOf(r stepapi.RootStatus) string {
	switch {
	case r.Stage != stepapi.StageStaged:
		return r.Stage
	case len(r.Services) > 0:
		return "tried by " + fewOf(r.Services)
	case len(r.Without) == 0:
		return "adopted"
	}
	return r.Stage
}

// fewOf joins names, three at most, and says how many more there are.
func fewOf(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// printIntermediates prints a row for each intermediate: the one that issues first, then those
// that must stay until their last certificate has expired.
func printIntermediates(u *ui.UI, s stepapi.TrustStatus) error {
	t := u.NewTable("INTERMEDIATE", "STATE", "ROOT", "UNTIL", "USED BY", "SUBJECT")
	for _, i := range s.Intermediates {
		state := "retired"
		switch {
		case i.Issues:
			state = "issues"
		case !i.Revoked.IsZero():
			state = "revoked"
		case staged(s, i.Root):
			state = "staged"
		}
		t.Row(short(i.Fingerprint), state, short(i.Root), stamp(i.NotAfter), fmt.Sprintf("%d of %d", i.Users, s.Holders), i.Subject)
	}
	return t.Flush()
}

// staged reports whether a root is staged: its intermediate issues for nobody, or for the
// services that try it.
func staged(s stepapi.TrustStatus, root string) bool {
	for _, r := range s.Roots {
		if r.Fingerprint == root {
			return r.Stage == stepapi.StageStaged
		}
	}
	return false
}

// printHolders prints who is in the way, with what an operator asks next: when it was seen,
// when it renews, and until when it can be in the way.
func printHolders(u *ui.UI, heading string, list []stepapi.Holder) error {
	for _, line := range []string{"", heading} {
		if err := u.Outf("%s", line); err != nil {
			return err
		}
	}
	now := time.Now()
	columns := []string{"SERVICE", "NAMES", "LAST SEEN", "NEXT RENEWAL", "EXPIRES", "SERIAL"}
	reasons := slices.ContainsFunc(list, func(h stepapi.Holder) bool { return h.Reason != "" })
	if reasons {
		columns = append(columns, "REASON")
	}
	t := u.NewTable(columns...)
	for _, h := range list {
		row := []string{h.Service, namesOf(h.Names), since(h.LastSeen, now), until(h.NextRenewal, now), until(h.Expires, now), h.Serial}
		if reasons {
			row = append(row, h.Reason)
		}
		t.Row(row...)
	}
	return t.Flush()
}

// namesOf prints the first names of a certificate. There can be a hundred, and two are enough
// to know whose it is.
func namesOf(names []string) string {
	const most = 2
	if len(names) <= most {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s +%d", strings.Join(names[:most], " "), len(names)-most)
}

// stamp prints a moment, or a dash if there is none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return humantime.Stamp(t)
}

// since prints how long ago a moment was.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return humantime.Short(humantime.Between(t, now)) + " ago"
}

// until prints the time that is left, or that a moment is over: a renewal that is overdue says
// that its client does not run.
func until(t, now time.Time) string {
	if !t.After(now) {
		return "overdue"
	}
	return "in " + humantime.Short(humantime.Between(now, t))
}

// printRefusal prints a step that the authority has refused, and returns status 3. Other errors
// are returned as they are.
func printRefusal(u *ui.UI, err error, format string) error {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	if format == output.JSON {
		holders := r.holders
		if holders == nil {
			holders = []stepapi.Holder{}
		}
		if err := u.JSON(stepapi.TrustRefusal{Status: exitRefused, Message: r.text, Holders: holders}); err != nil {
			return err
		}
		return ui.ExitStatus(exitRefused)
	}
	if len(r.holders) > 0 {
		if err := printHolders(u, fmt.Sprintf("%d would be cut off:", len(r.holders)), r.holders); err != nil {
			return err
		}
	}
	u.Complain("refused", r.text)
	if len(r.holders) > 0 {
		u.Complain("hint", "wait until they have followed, or leave each behind with --"+flagAccept+" NAME")
	}
	return ui.ExitStatus(exitRefused)
}
