package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/certs"
)

// When the plan acts, as shares of the demo's duration. The steps after the new
// root wait for facts, not for a clock: that everyone has it, and that nobody
// needs the old one.
const (
	rotateIntermediateAt = 0.20
	addRootAt            = 0.35
	clockedSteps         = 2 // the first ones
	planPoll             = time.Second
)

// plan is what changes under the running services, in order.
type plan struct {
	authority *ca.Authority
	start     time.Time
	duration  time.Duration
	oldRoot   string // fingerprint
	newRoot   string
	steps     []planStep
	current   atomic.Int64  // index of the step that is waited for
	promised  chan struct{} // closed once the steps that go by the clock are taken, or cannot be
}

// planStep waits until it may act, then acts.
type planStep struct {
	name  string
	ready func(ctx context.Context) (bool, error)
	act   func(ctx context.Context) (did string, err error)
}

// newPlan makes the plan of a stack that has one root, as each stack has at its start.
func newPlan(w *stack, opt Options) *plan {
	p := &plan{authority: w.authority, start: time.Now(), duration: opt.Duration, promised: make(chan struct{})}
	p.oldRoot = certs.Fingerprint(w.authority.Roots()[0])
	p.steps = []planStep{
		{"rotate the intermediate", p.after(rotateIntermediateAt), p.rotateIntermediate},
		{"add a root", p.after(addRootAt), p.addRoot},
		{"sign under the new root", p.adopted, p.activateRoot},
		{"remove the old root", p.unused, p.removeRoot},
	}
	return p
}

// Run takes the steps in order until ctx ends; what it did not reach is not an error.
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
				return nil // the demo's time is over, which is no failure
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

// Over waits until the demo's time is over. A slow machine gets as much more as
// the steps that go by the clock need: a demo without them shows nothing.
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

// next says what the plan waits for.
func (p *plan) next() string {
	if i := int(p.current.Load()); i < len(p.steps) {
		return p.steps[i].name
	}
	return "nothing more to change"
}

// after is ready when a share of the time of the demo is over.
func (p *plan) after(share float64) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		return time.Since(p.start) >= time.Duration(share*float64(p.duration)), nil
	}
}

// rotateIntermediate needs no preparation: a chain carries its intermediate, so
// services that trust the root accept the next one at once.
func (p *plan) rotateIntermediate(ctx context.Context) (string, error) {
	if err := p.authority.RotateIntermediate(ctx); err != nil {
		return "", err
	}
	return "intermediate rotated: new certificates come from a new issuer", nil
}

// addRoot puts a second root into the trust bundle. It signs nothing yet, because a
// service that does not have it would refuse every certificate under it.
func (p *plan) addRoot(ctx context.Context) (did string, err error) {
	if p.newRoot, err = p.authority.AddRoot(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("root %s added to the trust bundle: waiting until every service reports it", short(p.newRoot)), nil
}

// adopted is ready when each lineage has reported the new bundle as in effect.
func (p *plan) adopted(ctx context.Context) (bool, error) {
	pending, err := p.authority.TrustAdopted(ctx)
	return err == nil && len(pending) == 0, err
}

// activateRoot makes the new root the one that signs. Certificates under the old
// one stay good until they end.
func (p *plan) activateRoot(ctx context.Context) (string, error) {
	if err := p.authority.ActivateRoot(ctx, p.newRoot); err != nil {
		return "", err
	}
	return fmt.Sprintf("root %s signs from now on", short(p.newRoot)), nil
}

// unused is ready when no certificate that is still valid needs the old root.
func (p *plan) unused(ctx context.Context) (bool, error) {
	users, err := p.authority.RootUsers(ctx, p.oldRoot)
	return err == nil && len(users) == 0, err
}

// removeRoot takes the old root out of the bundle. From then on nothing that was
// signed under it is accepted.
func (p *plan) removeRoot(ctx context.Context) (string, error) {
	if err := p.authority.RemoveRoot(ctx, p.oldRoot); err != nil {
		return "", err
	}
	return fmt.Sprintf("root %s removed: its last certificate has expired", short(p.oldRoot)), nil
}

// short is the beginning of a fingerprint, enough to tell a few apart.
func short(fingerprint string) string {
	return strings.ToLower(fingerprint[:min(12, len(fingerprint))])
}
