package enroll_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// oneRoot is a source whose bundle never has a second root, like that of a service whose file
// of roots cannot be written.
type oneRoot struct{ inner *enroll.Source }

func (s oneRoot) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return s.inner.Watch(ctx, func(m rotation.Material) error {
		if len(m.Roots) > 1 {
			return errors.New("the bundle cannot be written")
		}
		return yield(m)
	})
}

// TestRealFleetRotatesItsRoot rotates a root under a fleet of which five services are stopped
// and three refuse the new root. The authority names exactly those eight, refuses to go on
// without them, and goes on when they are accepted by name: forward, back, and forward again.
// No request between the others fails.
func TestRealFleetRotatesItsRoot(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	size, wanted := fleetSize(t), int64(1000)
	if os.Getenv(fleetEnv) != "" {
		wanted = 50_000
	}
	const stopped, refusing = 5, 3
	name := func(i int) string { return fmt.Sprintf("svc-%03d", i) }
	first := size - stopped - refusing // of those that do not follow
	f := newPeersOf(t, size, name, func(i int, src *enroll.Source) rotation.Source {
		if i >= first && i < first+refusing {
			return oneRoot{src}
		}
		return src
	})
	var behind []string
	for i := first; i < size; i++ {
		behind = append(behind, name(i))
	}
	for _, id := range f.ids[size-stopped:] {
		if err := id.Close(); err != nil {
			t.Error(err)
		}
	}
	f.ids = f.ids[:first]
	stop := f.traffic(min(first-1, 40))

	status := func() stepapi.TrustStatus {
		t.Helper()
		s, err := f.ca.Authority.TrustStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	refused := func(change stepapi.TrustChange) {
		t.Helper()
		_, err := f.ca.Authority.ChangeTrust(t.Context(), "operator", change)
		cut, ok := errors.AsType[*ca.CutOffError](err)
		if !ok || !slices.Equal(servicesOf(cut.Holders), behind) {
			t.Fatalf("%s: %v; want a refusal that names %v", change.Step, err, behind)
		}
	}
	accepted := func(change stepapi.TrustChange) {
		t.Helper()
		refused(change)
		change.Accept = behind[1:]
		if _, err := f.ca.Authority.ChangeTrust(t.Context(), "operator", change); err == nil {
			t.Fatalf("%s: taken without the acceptance of %s", change.Step, behind[0])
		}
		change.Accept = behind
		f.ca.ChangeTrust(t, change)
		f.round()
	}
	old := f.ca.RootFingerprint
	root := f.ca.AddRoot(t)
	f.await("all others have reported the new root", func(i int) bool {
		return i > 0 || len(status().Roots[1].Without) == len(behind)
	})
	accepted(stepapi.TrustChange{Step: stepapi.StepActivate, Certificate: root})
	f.ca.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepRollback})
	f.round()
	accepted(stepapi.TrustChange{Step: stepapi.StepActivate, Certificate: root})
	record, err := ca.StateDir(f.ca.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = record.Close() }()
	if _, err := record.ForceRenewal(t.Context(), ca.RenewalOrder{Within: "10s"}); err != nil {
		t.Fatal(err)
	}
	f.await("none of the others uses the old root", func(i int) bool {
		return i > 0 || len(status().Roots[1].Users) == len(behind)
	})
	accepted(stepapi.TrustChange{Step: stepapi.StepRemove, Certificate: old})
	f.await("the others trust the new root only", func(i int) bool {
		roots := f.ids[i].Current().Roots()
		return len(roots) == 1 && certs.Fingerprint(roots[0]) == root
	})
	f.await("enough requests", func(int) bool { return f.sent() >= wanted })
	stop()
	f.ca.Check(t)
}

func servicesOf(list []stepapi.Holder) (names []string) {
	for _, h := range list {
		names = append(names, h.Service)
	}
	return names
}

// sent is how many requests traffic has sent.
func (f *peers) sent() (n int64) {
	for i := range f.done {
		n += f.done[i].Load()
	}
	return n
}
