package trust

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A step is refused with one of these if it makes no sense now, whatever the fleet has
// adopted.
var (
	ErrUnknown     = errors.New("it is not in the trust bundle")
	ErrActive      = errors.New("it is active")
	ErrStagedTwice = errors.New("another root is staged; activate it or roll it back first")
	ErrNotStaged   = errors.New("it is not staged")
	ErrNothing     = errors.New("there is nothing to roll back")
	ErrIssues      = errors.New("it issues; rotate the intermediate first")
	ErrRevoked     = errors.New("it is revoked already")
	ErrNoIssuer    = errors.New("it has no intermediate that is not revoked")
)

// Lineage says which root has signed an intermediate; "" if none of the document has.
type Lineage func(intermediate string) (root string)

// Add returns the document with a staged root and the intermediate under it.
func (d *Document) Add(root, intermediate string, now time.Time) (*Document, error) {
	if d.Staged != nil {
		return nil, fmt.Errorf("staging a root: %.16s: %w", d.Staged.Root, ErrStagedTwice)
	}
	next := d.clone()
	next.Roots = append(next.Roots, root)
	next.Intermediates = append(next.Intermediates, intermediate)
	next.Staged, next.Since[root] = &Staged{Root: root, Intermediate: intermediate}, now
	return next, nil
}

// Try returns the document in which the services, and no others, get their certificates under
// the staged root.
func (d *Document) Try(root string, services []string) (*Document, error) {
	if d.Staged == nil || d.Staged.Root != root {
		return nil, fmt.Errorf("trying root %.16s: %w", root, ErrNotStaged)
	}
	next := d.clone()
	next.Staged.Services = slices.Compact(slices.Sorted(slices.Values(services)))
	return next, nil
}

// Activate returns the document in which the root signs for all.
func (d *Document) Activate(root string, of Lineage, now time.Time) (*Document, error) {
	switch {
	case !slices.Contains(d.Roots, root):
		return nil, fmt.Errorf("activating root %.16s: %w", root, ErrUnknown)
	case root == d.Roots[0]:
		return nil, fmt.Errorf("activating root %.16s: %w", root, ErrActive)
	}
	next := d.clone()
	if next.Staged != nil && next.Staged.Root == root {
		next.Staged = nil
	}
	return next.issueUnder(root, of, now)
}

// issueUnder makes a root of d the active one, and its newest intermediate the one that
// issues. A staged root stays last.
func (d *Document) issueUnder(root string, of Lineage, now time.Time) (*Document, error) {
	i := slices.IndexFunc(d.Intermediates, func(fp string) bool {
		_, revoked := d.Revoked[fp]
		return !revoked && of(fp) == root
	})
	if i < 0 {
		return nil, fmt.Errorf("activating root %.16s: %w", root, ErrNoIssuer)
	}
	toFront(d.Roots, slices.Index(d.Roots, root))
	toFront(d.Intermediates, i)
	d.Since[root], d.Since[d.Roots[1]] = now, now
	return d, nil
}

// toFront moves one element to the front and keeps the order of the others.
func toFront(list []string, i int) {
	first := list[i]
	copy(list[1:i+1], list[:i])
	list[0] = first
}

// Rollback undoes the last step that is not undone yet: services that try a staged root do so
// no more; a staged root that nobody tries leaves the bundle; otherwise the root that was
// active before is active again, and the one after it is staged. gone is the root that has
// left, "" if none has.
func (d *Document) Rollback(of Lineage, now time.Time) (next *Document, gone string, err error) {
	switch {
	case d.Staged != nil && len(d.Staged.Services) > 0:
		next, err = d.Try(d.Staged.Root, nil)
		return next, "", err
	case d.Staged != nil:
		next, err = d.Remove(d.Staged.Root, of)
		return next, d.Staged.Root, err
	case len(d.Roots) < 2:
		return nil, "", fmt.Errorf("rolling back: %w", ErrNothing)
	}
	next = d.clone()
	undone, issuing := next.Roots[0], next.Intermediates[0]
	if next, err = next.issueUnder(next.Roots[1], of, now); err != nil {
		return nil, "", err
	}
	next.Roots = append(slices.Delete(next.Roots, 1, 2), undone) // a staged root is last
	next.Staged = &Staged{Root: undone, Intermediate: issuing}
	return next, "", nil
}

// Remove returns the document without a root and the intermediates under it.
func (d *Document) Remove(root string, of Lineage) (*Document, error) {
	switch {
	case !slices.Contains(d.Roots, root):
		return nil, fmt.Errorf("removing root %.16s: %w", root, ErrUnknown)
	case root == d.Roots[0]:
		return nil, fmt.Errorf("removing root %.16s: %w", root, ErrActive)
	}
	next := d.clone()
	if next.Staged != nil && next.Staged.Root == root {
		next.Staged = nil
	}
	next.Roots = slices.DeleteFunc(next.Roots, func(fp string) bool { return fp == root })
	next.Intermediates = slices.DeleteFunc(next.Intermediates, func(fp string) bool {
		under := of(fp) == root
		if under {
			delete(next.Revoked, fp)
		}
		return under
	})
	delete(next.Since, root)
	return next, nil
}

// Issue returns the document in which a new intermediate of the active root issues. Of the
// others those stay for which keep returns true, and the newest of each other root, without
// which that root could not be activated again.
func (d *Document) Issue(intermediate string, of Lineage, keep func(fp string) bool) *Document {
	next := d.clone()
	seen := map[string]bool{d.Roots[0]: true}
	next.Intermediates = slices.DeleteFunc(next.Intermediates, func(fp string) bool {
		root := of(fp)
		newest := !seen[root]
		seen[root] = true
		gone := !newest && !keep(fp)
		if gone {
			delete(next.Revoked, fp)
		}
		return gone
	})
	next.Intermediates = slices.Insert(next.Intermediates, 0, intermediate)
	return next
}

// Revoke returns the document in which an intermediate is revoked. The one that issues, and
// the one that a staged root tries, cannot be. One that is not listed any more can: its key may
// be stolen as well, and its certificate is valid for years.
func (d *Document) Revoke(intermediate string, now time.Time) (*Document, error) {
	_, already := d.Revoked[intermediate]
	switch {
	case already:
		return nil, fmt.Errorf("revoking intermediate %.16s: %w", intermediate, ErrRevoked)
	case intermediate == d.Intermediates[0], d.Staged != nil && d.Staged.Intermediate == intermediate:
		return nil, fmt.Errorf("revoking intermediate %.16s: %w", intermediate, ErrIssues)
	}
	next := d.clone()
	if next.Revoked == nil {
		next.Revoked = map[string]time.Time{}
	}
	next.Revoked[intermediate] = now
	return next, nil
}
