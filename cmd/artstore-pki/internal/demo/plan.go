package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// When the plan acts, as shares of the demo's duration. The steps behind the new root do not go
// by the clock. They wait until every service has reported the new root, and until no valid
// certificate needs the old one.
const (
	rotateIntermediateAt = 0.20
	addRootAt            = 0.35
	// clockedSteps is how many steps go by the clock. They are the first ones.
	clockedSteps = 2
	// planPoll is the time between two looks at whether a step may be taken.
	planPoll = time.Second
)

// plan is what changes under the running services, in order.
type plan struct {
	authority *ca.Authority
	dir       ca.StateDir
	start     time.Time
	duration  time.Duration
	// oldRoot and newRoot are fingerprints. newRoot is "" before the step that adds it.
	oldRoot string
	newRoot string
	steps   []planStep
	// current is the index of the step that is waited for, len(steps) behind the last one.
	current atomic.Int64
	// promised is closed when the steps that go by the clock are taken, or Run has returned.
	promised chan struct{}
}

// planStep is one change: act makes it as soon as ready is true.
type planStep struct {
	// name is for people: "trying to NAME".
	name  string
	ready func(ctx context.Context) (bool, error)
	// act returns what it did, as a line for people.
	act func(ctx context.Context) (did string, err error)
}

// newPlan makes the plan of a stack that has one root, as each stack has at its start.
func newPlan(w *stack, opt Options) *plan {
	p := &plan{authority: w.authority, dir: ca.StateDir(filepath.Join(w.opt.Dir, "ca")), start: time.Now(), duration: opt.Duration, promised: make(chan struct{})}
	p.oldRoot = certs.Fingerprint(w.authority.Roots()[0])
	p.steps = []planStep{
		{"rotate the intermediate", p.after(rotateIntermediateAt), p.rotateIntermediate},
		{"add a root", p.after(addRootAt), p.addRoot},
		{"sign under the new root", p.adopted, p.activateRoot},
		{"let every service renew", p.after(0), p.forceRenewal},
		{"remove the old root", p.unused, p.removeRoot},
	}
	return p
}

// Run takes the steps in order until all are taken or ctx ends, and tells event of each. A step
// that was not reached is no error. A step that has begun is finished although ctx ends, because
// an authority with half of a change would make the report wrong.
func (p *plan) Run(ctx context.Context, event func(string)) error {
	promised := sync.OnceFunc(func() { close(p.promised) })
	defer promised()
	ticker := time.NewTicker(planPoll)
	defer ticker.Stop()
	for i, s := range p.steps {
		p.current.Store(int64(i))
		for {
			ok, err := s.ready(ctx)
			if ctx.Err() != nil {
				return nil // the time of the demo is over
			}
			if err != nil {
				return fmt.Errorf("waiting to %s: %w", s.name, err)
			}
			if ok {
				break
			}
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
		did, err := s.act(context.WithoutCancel(ctx)) // a change that has begun is finished
		if err != nil {
			return fmt.Errorf("trying to %s: %w", s.name, err)
		}
		event(did)
		if i+1 == clockedSteps {
			promised()
		}
	}
	p.current.Store(int64(len(p.steps)))
	return nil
}

// Over returns when the time of the demo is over, or ctx ends. On a slow machine it waits longer,
// until the steps that go by the clock are taken: a demo without them shows nothing.
func (p *plan) Over(ctx context.Context) {
	over, cancel := context.WithDeadline(ctx, p.start.Add(p.duration))
	defer cancel()
	<-over.Done()
	select {
	case <-p.promised:
	case <-ctx.Done():
	}
}

// done returns the names of the steps taken and of those not reached.
func (p *plan) done() (taken, left []string) {
	n := int(p.current.Load())
	for i, s := range p.steps {
		if i < n {
			taken = append(taken, s.name)
		} else {
			left = append(left, s.name)
		}
	}
	return taken, left
}

// next returns the name of the step that the plan waits for, for the line about the progress.
func (p *plan) next() string {
	if i := int(p.current.Load()); i < len(p.steps) {
		return p.steps[i].name
	}
	return "nothing more to change"
}

// after returns a condition that is true when a share of the time of the demo is over.
func (p *plan) after(share float64) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		return time.Since(p.start) >= time.Duration(share*float64(p.duration)), nil
	}
}

// rotateIntermediate needs no preparation: a chain carries its intermediate, so
// services that trust the root accept the next one at once.
func (p *plan) rotateIntermediate(ctx context.Context) (string, error) {
	if _, err := p.step(ctx, stepapi.StepRotateIntermediate, ""); err != nil {
		return "", err
	}
	return "intermediate rotated: new certificates come from a new issuer", nil
}

// addRoot puts a second root into the trust bundle. It signs nothing yet, because a
// service that does not have it would refuse every certificate under it. The authority knows
// that: asked at once whether the root may sign, it refuses with the names.
func (p *plan) addRoot(ctx context.Context) (string, error) {
	status, err := p.step(ctx, stepapi.StepAdd, "")
	if err != nil {
		return "", err
	}
	p.newRoot = status.Roots[len(status.Roots)-1].Fingerprint
	did := fmt.Sprintf("root %s added to the trust bundle", short(p.newRoot))
	early := stepapi.TrustChange{Step: stepapi.StepActivate, Certificate: p.newRoot, DryRun: true}
	_, err = p.authority.ChangeTrust(ctx, "the demo", early)
	if cut, ok := errors.AsType[*ca.CutOffError](err); ok {
		return did + "; signing under it now is refused: " + cut.Error(), nil
	}
	return did, err
}

// adopted is true when each lineage has reported the new bundle as in effect.
func (p *plan) adopted(ctx context.Context) (bool, error) {
	root, err := p.root(ctx, p.newRoot)
	return err == nil && len(root.Without) == 0, err
}

// activateRoot makes the new root the one that signs. Certificates under the old
// one stay good until they end.
func (p *plan) activateRoot(ctx context.Context) (string, error) {
	if _, err := p.step(ctx, stepapi.StepActivate, p.newRoot); err != nil {
		return "", err
	}
	return fmt.Sprintf("root %s signs from now on", short(p.newRoot)), nil
}

// renewWithin is how long the fleet may take for a renewal that was ordered.
const renewWithin = 10 * time.Second

// forceRenewal orders that all services renew. They hear of it at once, and each renews at a
// random moment of that time: nobody has to wait until the certificates under the old root end.
func (p *plan) forceRenewal(ctx context.Context) (did string, err error) {
	record, err := p.dir.OpenRecord(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, record.Close()) }()
	status, err := record.ForceRenewal(ctx, ca.RenewalOrder{Within: renewWithin.String()})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d services are told to renew within %s", status.Matched, renewWithin), nil
}

// unused is true when no service may be using a certificate under the old root.
func (p *plan) unused(ctx context.Context) (bool, error) {
	root, err := p.root(ctx, p.oldRoot)
	return err == nil && len(root.Users) == 0, err
}

// removeRoot takes the old root out of the bundle. From then on nothing that was
// signed under it is accepted.
func (p *plan) removeRoot(ctx context.Context) (string, error) {
	if _, err := p.step(ctx, stepapi.StepRemove, p.oldRoot); err != nil {
		return "", err
	}
	return fmt.Sprintf("root %s removed: no service uses a certificate under it any more", short(p.oldRoot)), nil
}

// step takes one step of the change of trust. The authority refuses it if it would cut off a
// service, so the plan waits first until nobody is in the way.
func (p *plan) step(ctx context.Context, step, certificate string) (stepapi.TrustStatus, error) {
	return p.authority.ChangeTrust(ctx, "the demo", stepapi.TrustChange{Step: step, Certificate: certificate})
}

// root returns how far a root of the bundle is.
func (p *plan) root(ctx context.Context, fingerprint string) (stepapi.RootStatus, error) {
	status, err := p.authority.TrustStatus(ctx)
	if err != nil {
		return stepapi.RootStatus{}, err
	}
	for _, root := range status.Roots {
		if root.Fingerprint == fingerprint {
			return root, nil
		}
	}
	return stepapi.RootStatus{}, fmt.Errorf("root %s is not in the bundle", short(fingerprint))
}

// short returns the first 12 digits of a fingerprint, which are enough to tell two roots apart.
func short(fingerprint string) string {
	return strings.ToLower(fingerprint[:min(12, len(fingerprint))])
}
