package agent

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/workload"
)

// offers are what the Workload API serves: the identities that rules name, once they have a
// certificate.
type offers struct {
	ids   workload.Identities
	rules workload.Rules

	mu    sync.Mutex
	names map[string]bool               // that rules name
	put   map[string]*rotation.Identity // what ids has
	calls map[string]uint64             // by outcome
}

// ServeWorkload serves the SPIFFE Workload API on ln until ctx ends, and closes it. The rules are those
// of the configuration in effect.
func (a *Agent) ServeWorkload(ctx context.Context, ln net.Listener) error {
	return workload.Serve(ctx, ln, workload.Config{Identities: &a.offers.ids, Rules: &a.offers.rules, Observer: a.offers.called, Logger: a.log})
}

// called counts an outcome.
func (o *offers) called(outcome string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls == nil {
		o.calls = map[string]uint64{}
	}
	o.calls[outcome]++
}

// rules returns the rules of a configuration.
func (c Config) rules() []workload.Rule {
	if c.Workload == nil {
		return nil
	}
	return c.Workload.Rules
}

// add serves an identity, if a rule names it and it has a certificate. A stored certificate may be that of
// another service, if the configuration of the identity has changed: it is not served.
func (o *offers) add(m *managed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := m.id.Load()
	if id == nil || !o.names[m.Name] {
		return
	}
	if m.checkNames(id.Current().Leaf()) != nil {
		o.remove(func(name string) bool { return name != m.Name })
		return
	}
	if o.put[m.Name] != id {
		o.ids.Put(m.Name, id)
		o.put[m.Name] = id
	}
	var lists []*x509.RevocationList
	if p := m.revoked.Load(); p != nil {
		lists = *p
	}
	o.ids.SetRevoked(m.Name, lists)
}

// retain serves what rules name from now on, and takes out what keep does not: an identity that is gone, or
// whose name stands for another certificate now. It comes before the rules: nobody may get by a new
// rule what had a name before.
func (o *offers) retain(rules []workload.Rule, keep func(name string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names = map[string]bool{}
	for _, r := range rules {
		for _, name := range r.Identities {
			o.names[name] = true
		}
	}
	if o.put == nil {
		o.put = map[string]*rotation.Identity{}
	}
	o.remove(keep)
}

// prune takes out what no rule names any more. It comes after the rules, so that a stream ends because of
// them.
func (o *offers) prune() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove(func(name string) bool { return o.names[name] })
}

// remove takes out what keep does not. The caller holds o.mu.
func (o *offers) remove(keep func(name string) bool) {
	for name := range o.put {
		if !keep(name) {
			o.ids.Remove(name)
			delete(o.put, name)
		}
	}
}

// status returns what is served by a configuration.
func (o *offers) status(w WorkloadAPI) *WorkloadStatus {
	o.mu.Lock()
	names, calls := slices.Sorted(maps.Keys(o.names)), maps.Clone(o.calls)
	o.mu.Unlock()
	st := &WorkloadStatus{Socket: w.Socket.Path, Rules: len(w.Rules), Calls: calls}
	served := map[string]workload.IdentityStatus{}
	for _, i := range o.ids.Status() {
		served[i.Name] = i
	}
	for _, name := range names {
		i, there := served[name]
		if !there {
			i.Err = errNotOffered
		}
		st.Identities = append(st.Identities, Offered{name, printable.Line(i.SPIFFEID, lineRunes), oneLine(cmp.Or(i.Err, i.ListsErr))})
	}
	return st
}

var errNotOffered = errors.New("there is no certificate yet, or it is not the one that the configuration wants")
