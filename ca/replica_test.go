package ca_test

import (
	"context"
	"crypto"
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
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pgtest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/waittest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	waittest.Main{M: m}.Run()
}

// replicas starts three authorities with one record in PostgreSQL.
func replicas(t *testing.T, opt catest.Options) [3]*catest.CA {
	t.Helper()
	opt.Database, opt.Profiles = postgres.Database(t), profiles()
	first := catest.Start(t, opt)
	return [3]*catest.CA{first, first.Replica(t), first.Replica(t)}
}

// TestReplicasSpendATokenOnce sends one token to all replicas at the same moment, many
// times.
func TestReplicasSpendATokenOnce(t *testing.T) {
	t.Parallel()
	three := replicas(t, catest.Options{})
	clients := [3]*client{}
	for i, c := range three {
		clients[i] = newClient(t, c, nil)
	}
	for range 10 {
		token := three[0].Token(t, "storage", "storage")
		key := newKey(t)
		same := everywhere(t, clients, signRequest(t, token, key, "storage", "storage"), key)
		if len(same) != 3 || same[0] != same[1] || same[1] != same[2] {
			t.Errorf("the same request at three replicas got %q", same)
		}
		token = three[0].Token(t, "storage", "storage")
		var won []string
		var mu sync.Mutex
		var group sync.WaitGroup
		for _, c := range clients {
			group.Go(func() {
				key := newKey(t)
				status, body := c.do("POST", "/1.0/sign", signRequest(t, token, key, "storage", "storage"))
				mu.Lock()
				defer mu.Unlock()
				switch status {
				case http.StatusCreated:
					won = append(won, pair(t, body, key).Leaf.SerialNumber.String())
				case http.StatusUnauthorized:
				default:
					t.Errorf("sign: %d %s", status, body)
				}
			})
		}
		group.Wait()
		if len(won) != 1 {
			t.Errorf("one token bought %d certificates for three keys", len(won))
		}
	}
	three[1].Check(t)
}

// everywhere sends one request to all replicas at once and returns the serials in the
// answers.
func everywhere(t *testing.T, clients [3]*client, req stepapi.SignRequest, key crypto.Signer) (serials []string) {
	t.Helper()
	var mu sync.Mutex // guards serials
	var group sync.WaitGroup
	for _, c := range clients {
		group.Go(func() {
			status, body := c.do("POST", "/1.0/sign", req)
			if status != http.StatusCreated {
				t.Errorf("sign: %d %s", status, body)
				return
			}
			serial := pair(t, body, key).Leaf.SerialNumber.String()
			mu.Lock()
			defer mu.Unlock()
			serials = append(serials, serial)
		})
	}
	group.Wait()
	return serials
}

// TestReplicasSeeARevocationAtOnce: a revocation that one replica has acknowledged
// holds for the next request at each of the others.
func TestReplicasSeeARevocationAtOnce(t *testing.T) {
	t.Parallel()
	three := replicas(t, catest.Options{})
	for i := range 6 {
		here, there, third := three[i%3], three[(i+1)%3], three[(i+2)%3]
		cert := enrol(t, here, "storage", "storage")
		if status, body := newClient(t, there, cert).do("POST", "/1.0/renew", nil); status != http.StatusCreated {
			t.Fatalf("renewing at another replica: %d %s", status, body)
		}
		serial := cert.Leaf.SerialNumber.String()
		if status, body := newClient(t, here, cert).do("POST", "/revoke", stepapi.RevokeRequest{Serial: serial, Passive: true}); status != http.StatusOK {
			t.Fatalf("revoking: %d %s", status, body)
		}
		for _, c := range []*catest.CA{there, third} {
			if status, body := newClient(t, c, cert).do("POST", "/1.0/renew", nil); status != http.StatusUnauthorized {
				t.Errorf("a revoked certificate renews at another replica: %d %s", status, body)
			}
			if lists := revokedSerials(t, newClient(t, c, nil)); !slices.Contains(lists, serial) {
				t.Errorf("the list of another replica does not have it: %q", lists)
			}
		}
	}
	three[2].Check(t)
}

// TestReplicasRotateTheirOwn: each replica has its own certificate, with a key of its
// own, and replaces it in time.
func TestReplicasRotateTheirOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel() // certificates live for half a minute; on a busy machine shorter ones expire before they are replaced
	three := replicas(t, catest.Options{Lifetime: 30 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var first, later [3]string
	for i, c := range three {
		first[i] = servedSerial(t, c)
	}
	for i, c := range three {
		for later[i] = first[i]; later[i] == first[i]; later[i] = servedSerial(t, c) {
			select {
			case <-ctx.Done():
				t.Fatalf("replica %d still serves its first certificate", i)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	all := slices.Concat(first[:], later[:])
	slices.Sort(all)
	if len(slices.Compact(all)) != 6 {
		t.Errorf("certificates %q, then %q", first, later)
	}
	own := 0
	for _, e := range listAll(t, three[0]) {
		if e.Kind == kinds.SelfIssued {
			own++
		}
	}
	if own < 6 {
		t.Errorf("%d of them are in the record", own)
	}
}

func servedSerial(t *testing.T, c *catest.CA) string {
	t.Helper()
	base := newClient(t, c, nil).http.Transport.(*http.Transport).TLSClientConfig
	conn, err := (&tls.Dialer{Config: base}).DialContext(t.Context(), "tcp", strings.TrimPrefix(c.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func revokedSerials(t *testing.T, c *client) (serials []string) {
	t.Helper()
	status, body := c.do("GET", "/1.0/revoked", nil)
	var resp stepapi.RevokedResponse
	if err := json.Unmarshal(body, &resp); status != http.StatusOK || err != nil {
		t.Fatalf("revoked: %d %v", status, err)
	}
	for _, l := range resp.Lists {
		block, _ := pem.Decode([]byte(l.CRL))
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.RevokedCertificateEntries {
			serials = append(serials, e.SerialNumber.String())
		}
	}
	return serials
}

// TestReplicasFollowARotation rotates a root at one of three replicas with directories of
// their own. What any of them signs after a step has ended is under the stage of that step,
// however late it hears of it. One that was killed in the middle follows when it is back, and
// fetches keys that were made while it was away. No client fails meanwhile.
func TestReplicasFollowARotation(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	first := catest.Start(t, catest.Options{Database: postgres.Database(t), Profiles: profiles()})
	second := first.Replica(t)
	dir := filepath.Join(t.TempDir(), "ca")
	if err := os.CopyFS(dir, os.DirFS(first.Dir)); err != nil {
		t.Fatal(err)
	}
	third, kill := startForCrash(t, dir)
	post := map[string]func(stepapi.SignRequest) (int, []byte){
		"first":  func(r stepapi.SignRequest) (int, []byte) { return newClient(t, first, nil).do("POST", "/sign", r) },
		"second": func(r stepapi.SignRequest) (int, []byte) { return newClient(t, second, nil).do("POST", "/sign", r) },
		"third": func(r stepapi.SignRequest) (int, []byte) {
			return (&client{t: t, url: third, http: &http.Client{Timeout: time.Minute}}).do("POST", "/sign", r)
		},
	}
	// sign enrols a service at each replica, and wants a certificate under a root.
	sign := func(root string, at ...string) {
		t.Helper()
		for _, name := range at {
			key := newKey(t)
			status, body := post[name](signRequest(t, first.Token(t, "ingester", "ingester"), key, "ingester", "ingester"))
			if status != http.StatusCreated {
				t.Fatalf("%s: sign: %d %s", name, status, body)
			}
			issuer, err := x509.ParseCertificate(pair(t, body, key).Certificate[1])
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(first.Roots(), func(r *x509.Certificate) bool { return issuer.CheckSignatureFrom(r) == nil })
			if i < 0 || certs.Fingerprint(first.Roots()[i]) != root {
				t.Errorf("%s signs under a stage that is over", name)
			}
		}
	}
	old := first.RootFingerprint
	sign(old, "first", "second", "third")
	added := first.AddRoot(t)
	first.ActivateRoot(t, added)
	sign(added, "third", "second", "first")
	first.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepRollback, Accept: []string{"ingester"}})
	sign(old, "second", "third", "first")
	kill()
	first.ActivateRoot(t, added)
	first.RotateIntermediate(t)
	sign(added, "second", "first")
	third, kill = startForCrash(t, dir)
	defer kill()
	sign(added, "third")
	first.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepRemove, Certificate: old, Accept: []string{"ingester"}})
	awaitOwnCertificate(t, first)
	awaitOwnCertificate(t, second)
	sign(added, "third", "second", "first")
	for _, replica := range []string{first.Dir, second.Dir, dir} {
		if root, err := ca.StateDir(replica).ActiveRoot(); err != nil || certs.Fingerprint(root) != added {
			t.Errorf("%s is at another stage: %v", replica, err)
		}
	}
	first.Check(t)
}

// TestDatabaseIsNotTheAuthority looks for keys in the rows of the trust, and changes them as
// somebody who can write to the database would.
func TestDatabaseIsNotTheAuthority(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	attacker := catest.Start(t, catest.Options{Profiles: profiles()})
	root := c.AddRoot(t)
	dump := damage.Rows(t, c.Dir, `SELECT sealed_key FROM authorities`)
	if len(dump) != 4 {
		t.Errorf("%d CA certificates, want two roots and two intermediates", len(dump))
	}
	for _, sealed := range dump {
		if key, err := x509.ParsePKCS8PrivateKey(sealed); err == nil {
			t.Errorf("the database has a key: %T", key)
		}
	}
	foreign := damage.Rows(t, attacker.Dir, `SELECT CAST(document AS BLOB) FROM trust_versions`)[0]
	damage.SQL(t, c.Dir, `UPDATE trust_versions SET document = '`+string(foreign)+`' WHERE version = 1`)
	if _, err := c.Authority.ChangeTrust(t.Context(), "operator", stepapi.TrustChange{Step: stepapi.StepActivate, DryRun: true}); err != nil {
		t.Errorf("a row of a version that is over stops all steps: %v", err)
	}
	damage.SQL(t, c.Dir, `INSERT INTO trust_versions (version, document, at) VALUES (99, '`+string(foreign)+`', 0)`)
	if _, err := c.Authority.ChangeTrust(t.Context(), "operator", stepapi.TrustChange{Step: stepapi.StepActivate, Certificate: root}); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("a document of another authority: %v", err)
	}
	if len(c.Roots()) != 2 {
		t.Error("the trust was changed by a row")
	}
}

// TestDatabasePutBack expects that a process follows another document of the number that it
// has: the database was put back by one step, and another replica went on from there.
func TestDatabasePutBack(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	dir := filepath.Join(t.TempDir(), "ca")
	if err := os.CopyFS(dir, os.DirFS(c.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "pki.db")), os.Remove(filepath.Join(dir, "certs", "log.head"))); err != nil {
		t.Fatal(err)
	}
	damage.Config(t, dir, "database: "+filepath.Join(c.Dir, "pki.db")+"\n")
	gone := c.AddRoot(t)
	damage.SQL(t, c.Dir, `DELETE FROM trust_versions WHERE version = 2`)
	other, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	status, err := other.ChangeTrust(t.Context(), "operator", stepapi.TrustChange{Step: stepapi.StepAdd})
	if err != nil || status.Version != 2 {
		t.Fatalf("a step after the database was put back: version %d, %v", status.Version, err)
	}
	want := status.Roots[1].Fingerprint
	for deadline := time.Now().Add(time.Minute); certs.Fingerprint(c.Roots()[1]) != want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it serves %s, which the record does not have, and not %s", gone, want)
		}
	}
}
