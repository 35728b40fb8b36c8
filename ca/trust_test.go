package ca_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// TestTrustChange walks a root through all stages. The authority refuses each step that would
// cut off a service, and says which one.
func TestTrustChange(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	a, ctx := c.Authority, t.Context()
	before := enrol(t, c, "storage", "storage")
	oldRoot := c.RootFingerprint
	refused := func(step, certificate string, cutOff ...string) {
		t.Helper()
		change := stepapi.TrustChange{Step: step, Certificate: certificate}
		for _, change.DryRun = range []bool{true, false} {
			_, err := a.ChangeTrust(ctx, "operator", change)
			cut, ok := errors.AsType[*ca.CutOffError](err)
			if !ok || !slices.Equal(services(cut.Holders), cutOff) {
				t.Errorf("%s, dry run %v: %v; want a refusal that names %v", step, change.DryRun, err, cutOff)
			}
		}
	}
	senseless := func(step, certificate string) {
		t.Helper()
		if _, err := a.ChangeTrust(ctx, "operator", stepapi.TrustChange{Step: step, Certificate: certificate}); !isStepError(err) {
			t.Errorf("%s: %v; want a StepError", step, err)
		}
	}
	c.RotateIntermediate(t)
	after := enrol(t, c, "ingester", "ingester")
	if after.Leaf.Issuer.String() == before.Leaf.Issuer.String() {
		t.Error("the old intermediate still issues")
	}
	senseless(stepapi.StepRollback, "") // there is one root
	for step, want := range map[string]string{
		stepapi.StepActivate: "no root is staged", stepapi.StepTry: "no root is staged",
		stepapi.StepRemove: "fingerprint of the certificate is missing", stepapi.StepRevokeIntermediate: "fingerprint of the certificate is missing",
	} {
		if _, err := a.ChangeTrust(ctx, "operator", stepapi.TrustChange{Step: step}); !isStepError(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s of nothing: %v", step, err)
		}
	}
	newRoot := c.AddRoot(t)
	if _, err := a.ChangeTrust(ctx, "operator", stepapi.TrustChange{Step: stepapi.StepRollback, Version: 2}); !isStepError(err) || !strings.Contains(err.Error(), "version 3 now") {
		t.Errorf("a step that was chosen by an older version: %v", err)
	}
	if len(a.Roots()) != 2 || certs.Fingerprint(a.Roots()[0]) != oldRoot {
		t.Error("the new root is not second")
	}
	senseless(stepapi.StepAdd, "") // one is staged
	refused(stepapi.StepActivate, newRoot, "ingester", "storage")
	digest := stepapi.TrustDigest(a.Roots())
	status, body := newClient(t, c, before).do("POST", "/renew", nil, stepapi.HeaderTrustDigest, digest)
	if status != http.StatusCreated {
		t.Fatalf("renew: %d %s", status, body)
	}
	refused(stepapi.StepActivate, "", "ingester")
	if status, _ := newClient(t, c, after).do("GET", "/roots", nil, stepapi.HeaderTrustDigest, digest); status != http.StatusCreated {
		t.Errorf("roots: %d", status)
	}
	newClient(t, c, nil).do("GET", "/roots", nil, stepapi.HeaderTrustDigest, digest) // without a certificate nothing is recorded
	c.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepActivate, Certificate: strings.ToUpper(newRoot)})
	if certs.Fingerprint(a.Roots()[0]) != newRoot {
		t.Error("the new root does not sign")
	}
	senseless(stepapi.StepActivate, newRoot)
	senseless(stepapi.StepRemove, newRoot)
	senseless(stepapi.StepActivate, strings.Repeat("0", 64))
	refused(stepapi.StepRemove, oldRoot, "ingester", "storage")
	for _, u := range listAll(t, c) {
		if u.Revocation == nil && u.Service != "ca" {
			c.Revoke(t, u.Serial)
		}
	}
	c.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepRemove, Certificate: oldRoot})
	awaitOwnCertificate(t, c)
	enrol(t, c, "storage", "storage")
	c.Check(t)
	reopened, err := ca.Open(ctx, ca.Options{Dir: c.Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reopened.Close() }()
	if len(reopened.Roots()) != 1 || certs.Fingerprint(reopened.Roots()[0]) != newRoot {
		t.Error("a restart does not see the change")
	}
	record, err := ca.StateDir(c.Dir).OpenRecord(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = record.Close() }()
	roots, others, err := record.Authorities()
	if err != nil || len(roots) != 1 || certs.Fingerprint(roots[0]) != newRoot {
		t.Errorf("roots of the record: %v %v", roots, err)
	}
	if !slices.ContainsFunc(others, func(x *x509.Certificate) bool { return certs.Fingerprint(x) == oldRoot }) {
		t.Error("the record has forgotten a root that is out of use")
	}
	events, err := record.Events(ctx, kinds.TrustChanged, 0, 10)
	if err != nil || len(events) != 4 { // rotate, add, activate, remove
		t.Errorf("%d events, %v: %+v", len(events), err, events)
	}
}

func isStepError(err error) bool {
	_, ok := errors.AsType[*ca.StepError](err)
	return ok
}

// services are the services of holders.
func services(list []stepapi.Holder) (names []string) {
	for _, h := range list {
		names = append(names, h.Service)
	}
	return names
}

// awaitOwnCertificate waits until the listener has a certificate under the new root,
// which Watch gets by itself.
func awaitOwnCertificate(t *testing.T, c *catest.CA) {
	t.Helper()
	pool := x509.NewCertPool()
	for _, r := range c.Roots() {
		pool.AddCert(r)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(c.URL, "https://"), &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool})
		if err == nil {
			_ = conn.Close() // only the chain was needed
			return
		}
		<-tick.C
	}
	t.Fatal("the authority still shows a certificate under the old root")
}

// TestTryOneService: a service that tries a staged root gets its certificates under it, and others
// do not. A service without a profile is refused.
func TestTryOneService(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	staged := c.AddRoot(t)
	try := func(service string) error {
		_, err := c.Authority.ChangeTrust(t.Context(), "operator", stepapi.TrustChange{Step: stepapi.StepTry, Services: []string{service}})
		return err
	}
	if err := try("nobody"); !isStepError(err) || !strings.Contains(err.Error(), `service "nobody" has no profile`) {
		t.Errorf("a service without a profile: %v", err)
	}
	if err := try("storage"); err != nil {
		t.Fatal(err)
	}
	for service, tries := range map[string]bool{"storage": true, "ingester": false} {
		issuer, err := x509.ParseCertificate(enrol(t, c, service, service).Certificate[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, root := range c.Authority.Roots() {
			if signed := issuer.CheckSignatureFrom(root) == nil; signed != (tries == (certs.Fingerprint(root) == staged)) {
				t.Errorf("%s, root %s: %v", service, certs.Fingerprint(root), signed)
			}
		}
	}
}

// TestIntermediateStaysWithItsFirstLeaf: an intermediate whose first leaf is committed while it is
// being replaced stays in the list, because the leaf needs its revocation list.
func TestIntermediateStaysWithItsFirstLeaf(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for ctx.Err() == nil {
				enrol(t, c, "storage", "storage")
			}
		})
	}
	for range 10 {
		c.RotateIntermediate(t)
	}
	cancel()
	group.Wait()
	status, err := c.Authority.TrustStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	_, others, err := openRecord(t, c).Authorities()
	if err != nil {
		t.Fatal(err)
	}
	for _, cert := range others {
		listed[hexID(cert)] = slices.ContainsFunc(status.Intermediates, func(i stepapi.IntermediateState) bool { return i.Fingerprint == certs.Fingerprint(cert) })
	}
	for _, leaf := range listAll(t, c) {
		if retired, ok := listed[leaf.Issuer]; ok && !retired {
			t.Errorf("certificate %s is from intermediate %s, which has left the list", leaf.Serial, leaf.Issuer)
		}
	}
}

// TestStepIsTakenWithoutFile: once a step is in the record, a directory that cannot be written to
// does not undo it. The error says so, and the authority follows later.
func TestStepIsTakenWithoutFile(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	root := c.AddRoot(t)
	current := filepath.Join(c.Dir, "certs", "current.json")
	if err := errors.Join(os.Remove(current), os.MkdirAll(filepath.Join(current, "in the way"), 0o750)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Authority.ChangeTrust(t.Context(), "operator", ca.TrustChange{Step: stepapi.StepActivate})
	if err == nil || !strings.Contains(err.Error(), "the step is taken, as version 3") {
		t.Errorf("activating: %v", err)
	}
	if err := os.RemoveAll(current); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Authority.ChangeTrust(t.Context(), "operator", ca.TrustChange{Step: stepapi.StepRollback, DryRun: true}); err != nil {
		t.Errorf("it does not follow: %v", err)
	}
	enrol(t, c, "storage", "storage")
	if got := certs.Fingerprint(c.Authority.Roots()[0]); got != root {
		t.Errorf("root %s signs, want %s", got, root)
	}
}

// TestFollowsWithoutFile: an authority whose current.json cannot be written follows what another
// process has put into the record, says so once, and writes the file as soon as it can.
func TestFollowsWithoutFile(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	root := c.AddRoot(t)
	var said logtest.Buffer
	other, err := ca.Open(t.Context(), ca.Options{Dir: c.Dir, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	c.ActivateRoot(t, root)
	current := filepath.Join(c.Dir, "certs", "current.json")
	whole, err := os.ReadFile(current)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(current), os.MkdirAll(filepath.Join(current, "in the way"), 0o750)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if status, err := other.TrustStatus(t.Context()); err != nil || status.Version != 3 || certs.Fingerprint(other.Roots()[0]) != root {
			t.Errorf("version %d, %v", status.Version, err)
		}
	}
	if n := strings.Count(said.String(), "does not follow the trust of the record"); n != 1 {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
	if err := os.RemoveAll(current); err != nil {
		t.Fatal(err)
	}
	if _, err := other.TrustStatus(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(current); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("current.json: %q, %v", got, err)
	}
}

// TestStatusFollows: a command that waits beside an authority sees what others have changed.
func TestStatusFollows(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	command, err := ca.Open(t.Context(), ca.Options{Dir: c.Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = command.Close() }()
	root := c.AddRoot(t)
	if status, err := command.TrustStatus(t.Context()); err != nil || status.Version != 2 || len(status.Roots) != 2 || status.Roots[1].Fingerprint != root {
		t.Errorf("version %d, %d roots, %v", status.Version, len(status.Roots), err)
	}
}

// TestDirectoryOverrulesRecord: a directory with a newer version than the record, after a loss or
// an edit by hand, puts it into the record. The log tells of it.
func TestDirectoryOverrulesRecord(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	c.AddRoot(t)
	damage.SQL(t, c.Dir, `DELETE FROM trust_versions WHERE version = 2`)
	for range 2 { // once, however often it is opened
		a, err := ca.Open(t.Context(), ca.Options{Dir: c.Dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	record, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = record.Close() }()
	events, err := record.Events(t.Context(), kinds.TrustChanged, 0, 10)
	if err != nil || len(events) != 2 || !strings.Contains(events[1].Detail, "the record had version 1") || events[1].Caller != "the authority" {
		t.Errorf("%+v, %v; want the step and the version of the directory", events, err)
	}
}

// TestActivateEnded: a root whose intermediate has ended, because it was staged for too long,
// would leave an authority that neither issues nor starts.
func TestActivateEnded(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Intermediate: setup.Certificate{Lifetime: 2 * time.Second}}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	step := func(step string, services ...string) (ca.TrustStatus, error) {
		return a.ChangeTrust(t.Context(), "operator", ca.TrustChange{Step: step, Services: services})
	}
	staged, err := step(stepapi.StepAdd)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(staged.Intermediates[1].NotAfter) + 10*time.Millisecond)
	if _, err := step(stepapi.StepActivate); !isStepError(err) || !strings.Contains(err.Error(), "ended at") {
		t.Errorf("activated: %v", err)
	}
	if _, err := step(stepapi.StepTry, "ingester"); !isStepError(err) {
		t.Errorf("tried: %v", err)
	}
	for _, next := range []string{stepapi.StepRollback, stepapi.StepAdd, stepapi.StepActivate} { // the way out
		if _, err := step(next); err != nil {
			t.Errorf("%s: %v", next, err)
		}
	}
}

// TestWatch checks the chain that a client with only a fingerprint needs, and that
// each change yields a new one.
func TestWatch(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, done := make(chan ca.ServerIdentity), make(chan error, 1)
	go func() {
		done <- c.Authority.Watch(ctx, func(id ca.ServerIdentity) error {
			got <- id
			return nil
		})
	}()
	first := <-got
	if sent := first.Certificate.Certificate; len(sent) != 3 || !slices.Equal(sent[2], first.Roots[0].Raw) {
		t.Errorf("%d certificates in the chain, want leaf, intermediate, root", len(sent))
	}
	if err := first.Certificate.Leaf.VerifyHostname("localhost"); err != nil {
		t.Error(err)
	}
	c.AddRoot(t)
	second := <-got
	if len(second.Roots) != 2 || len(second.Certificate.Certificate) != 4 {
		t.Errorf("%d roots, %d in the chain", len(second.Roots), len(second.Certificate.Certificate))
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("end: %v", err)
	}
	refused := errors.New("refused")
	if err := c.Authority.Watch(t.Context(), func(ca.ServerIdentity) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("never a good one: %v", err)
	}
}

func TestReadRoutes(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, nil)
	for path, want := range map[string]int{
		"/health": 200, "/1.0/health": 200, "/version": 200, "/roots": 201, "/1.0/federation": 201, "/roots.pem": 200,
		"/intermediates": 201, "/intermediates.pem": 200, "/provisioners": 200, "/provisioners/none/encrypted-key": 404,
		"/root/" + c.RootFingerprint: 200, "/root/" + strings.Repeat("0", 64): 404, "/root/x": 404,
		"/crl": 200, "/crl?pem": 200, "/crl?issuer=00": 404, "/nowhere": 404, "/sign": 405,
	} {
		if status, body := cl.do("GET", path, nil); status != want {
			t.Errorf("%s: %d, want %d: %s", path, status, want, body)
		}
	}
	_, body := cl.do("GET", "/root/"+strings.ToUpper(c.RootFingerprint), nil)
	var root stepapi.RootResponse
	if err := json.Unmarshal(body, &root); err != nil || !strings.Contains(root.CA, "BEGIN CERTIFICATE") {
		t.Errorf("root: %s", body)
	}
	_, body = cl.do("GET", "/provisioners", nil)
	if !strings.Contains(string(body), `"enrolment"`) || strings.Contains(string(body), "encryptedKey") {
		t.Errorf("provisioners: %s", body)
	}
}

func TestCRL(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, nil)
	cert := enrol(t, c, "storage", "storage")
	issuer, err := x509.ParseCertificate(cert.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	id := "?issuer=" + hexID(issuer)
	list := func(query string) *x509.RevocationList {
		status, body := cl.do("GET", "/crl"+query, nil)
		if block, _ := pem.Decode(body); block != nil {
			body = block.Bytes
		}
		l, err := x509.ParseRevocationList(body)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%d %v", status, err)
		}
		return l
	}
	empty := list("")
	if again := list("?pem"); again.Number.Cmp(empty.Number) != 0 {
		t.Error("the list is not cached")
	}
	c.Revoke(t, cert.Leaf.SerialNumber.String()) // as another process does
	full := list("")
	if len(full.RevokedCertificateEntries) != 1 || full.RevokedCertificateEntries[0].ReasonCode != 1 || full.Number.Cmp(empty.Number) <= 0 {
		t.Errorf("entries %v", full.RevokedCertificateEntries)
	}
	if err := full.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
	c.RotateIntermediate(t)
	if l := list(""); len(l.RevokedCertificateEntries) != 0 {
		t.Error("the new issuer lists what it did not issue")
	}
	all := listAll(t, c)
	i := slices.IndexFunc(all, func(c record.Certificate) bool { return c.Revocation == nil })
	c.Revoke(t, all[i].Serial) // any that is left
	if l := list(id); l.CheckSignatureFrom(issuer) != nil || len(l.RevokedCertificateEntries) < 1 {
		t.Error("the old issuer does not sign its list any more")
	}
}

func TestRevokeToken(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, nil)
	serial := enrol(t, c, "storage", "storage").Leaf.SerialNumber.String()
	token := c.RevokeToken(t, serial).Expose()
	unknown := c.RevokeToken(t, "4711").Expose()
	for _, tc := range []struct {
		name   string
		req    stepapi.RevokeRequest
		status int
	}{
		{"active", stepapi.RevokeRequest{Serial: serial, OTT: token}, 501},
		{"bad reason", stepapi.RevokeRequest{Serial: serial, OTT: token, Passive: true, ReasonCode: 7}, 400},
		{"bad serial", stepapi.RevokeRequest{Serial: "x", OTT: token, Passive: true}, 400},
		{"no credential", stepapi.RevokeRequest{Serial: serial, Passive: true}, 401},
		{"sign token", stepapi.RevokeRequest{Serial: serial, OTT: c.Token(t, "storage").Expose(), Passive: true}, 401},
		{"other serial", stepapi.RevokeRequest{Serial: "99", OTT: token, Passive: true}, 403},
		{"unknown serial", stepapi.RevokeRequest{Serial: "4711", OTT: unknown, Passive: true}, 404},
		{"good", stepapi.RevokeRequest{Serial: serial, OTT: token, Passive: true, ReasonCode: 4}, 200},
		{"again", stepapi.RevokeRequest{Serial: serial, OTT: token, Passive: true}, 401},
		{"already revoked", stepapi.RevokeRequest{Serial: serial, OTT: c.RevokeToken(t, serial).Expose(), Passive: true}, 400},
	} {
		if status, body := cl.do("POST", "/revoke", tc.req); status != tc.status {
			t.Errorf("%s: %d, want %d: %s", tc.name, status, tc.status, body)
		}
	}
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 100)
	if err != nil || len(events) != 2 || events[0].Rule != "revokes only itself" || events[1].Rule != "token used once" {
		t.Errorf("recorded refusals: %+v %v", events, err)
	}
	c.Check(t)
}

// TestLeafEndsWithItsIssuer: no leaf outlives its issuer. The signing path of
// smallstep, which is not used, would let it.
func TestLeafEndsWithItsIssuer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Intermediate: setup.Certificate{Lifetime: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if a.Config().Lifetime.Default != 24*time.Hour {
		t.Errorf("default lifetime %s", a.Config().Lifetime.Default)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = a.Watch(ctx, func(id ca.ServerIdentity) error {
		defer cancel()
		cert := id.Certificate
		issuer, err := x509.ParseCertificate(cert.Certificate[1])
		if err != nil {
			return err
		}
		if !cert.Leaf.NotAfter.Equal(issuer.NotAfter) {
			t.Errorf("leaf ends %s, issuer %s", cert.Leaf.NotAfter, issuer.NotAfter)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRevokeIntermediate revokes one whose certificates are in use, which is refused until they
// are accepted or gone; and one that nobody uses any more, whose key can be stolen as well.
func TestRevokeIntermediate(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	issuing := func() string {
		t.Helper()
		status, err := c.Authority.TrustStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return status.Intermediates[0].Fingerprint
	}
	unused := issuing()
	c.RotateIntermediate(t) // no leaf is from the first one but that of the authority
	enrol(t, c, "storage", "storage")
	used := issuing()
	revoke := func(fingerprint string, accept ...string) error {
		_, err := c.Authority.ChangeTrust(t.Context(), "operator", stepapi.TrustChange{Step: stepapi.StepRevokeIntermediate, Certificate: fingerprint, Accept: accept})
		return err
	}
	if err := revoke(used); !isStepError(err) {
		t.Errorf("revoking the one that issues: %v", err)
	}
	c.RotateIntermediate(t)
	cut, ok := errors.AsType[*ca.CutOffError](revoke(used))
	if !ok || !slices.Equal(services(cut.Holders), []string{"storage"}) {
		t.Errorf("revoking the one that storage uses: %v", cut)
	}
	for _, fp := range []string{used, unused} {
		if err := revoke(fp, "storage"); err != nil {
			t.Errorf("revoking %s: %v", fp, err)
		}
		if err := revoke(fp, "storage"); !isStepError(err) {
			t.Errorf("revoking it twice: %v", err)
		}
	}
	if err := revoke(strings.Repeat("0", 64)); !isStepError(err) {
		t.Errorf("revoking an unknown one: %v", err)
	}
	status, der := newClient(t, c, nil).do("GET", "/crl?issuer="+hexID(c.Roots()[0]), nil)
	list, err := x509.ParseRevocationList(der)
	if status != http.StatusOK || err != nil || len(list.RevokedCertificateEntries) != 2 {
		t.Fatalf("%d, %v: the list of the root does not name both: %+v", status, err, list)
	}
}
