package prom_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/artstore/artstore-pki/rotation/prom"
)

// scrape asks the way Prometheus does and returns all text.
func scrape(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, body)
	}
	return string(body)
}

// value finds one series; labels as in the text, without those of identity.
func value(t *testing.T, text, name, identity, labels string) (float64, bool) {
	t.Helper()
	pattern := `(?m)^artstore_identity_` + name + `\{` + regexp.QuoteMeta(series(identity, labels)) + `\} (\S+)$`
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v, true
}

// series orders labels by name, as the text does.
func series(identity, labels string) string {
	own := `identity="` + identity + `"`
	switch {
	case labels == "":
		return own
	case labels < own:
		return labels[:strings.Index(labels, ",")+1] + own + labels[strings.Index(labels, ","):]
	}
	return own + "," + labels
}

func wantValues(t *testing.T, text, identity string, want map[string]float64) {
	t.Helper()
	for name, w := range want {
		name, labels, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		if got, ok := value(t, text, name, identity, labels); !ok || got != w {
			t.Errorf("%s %s of %s is %v (there: %t), want %v", name, labels, identity, got, ok, w)
		}
	}
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

func TestValuesFollowTheIdentity(t *testing.T) {
	ca := pkitest.NewCA(t)
	src := pkitest.NewSource(ca.Leaf(t, "storage"))
	id := pkitest.Open(t, rotation.Config{Source: src})
	still := pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "ingester"))})
	c := prom.NewCollector(map[string]*rotation.Identity{"storage": id, "ingester": still})

	st := id.Status()
	text := scrape(t, c)
	wantValues(t, text, "storage", map[string]float64{
		"generation": 1, "own_trusted": 1, "overdue": 0, "roots": 1, "refused_total": 0, "consecutive_failures": 0,
		"not_before_timestamp_seconds": seconds(st.NotBefore), "not_after_timestamp_seconds": seconds(st.NotAfter),
		"published_timestamp_seconds": seconds(st.PublishedAt), "last_success_timestamp_seconds": seconds(st.LastSuccess),
		"revocation_lists": 0, "revoked_certificates": 0, "revocation_stale": 0,
	})
	for _, absent := range []string{"next_renewal_timestamp_seconds", "held_until_timestamp_seconds", "revocation_oldest_timestamp_seconds", "watch_mode"} {
		if strings.Contains(text, "artstore_identity_"+absent+"{") {
			t.Errorf("%s is there and nothing is behind it", absent)
		}
	}

	stranger := pkitest.NewCA(t)
	next := ca.Leaf(t, "storage", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Hour) })
	next.Roots = []*x509.Certificate{stranger.Root}
	src.Push(t, next)
	if err := src.Offer(rotation.Material{}); err == nil {
		t.Fatal("an empty candidate was accepted")
	}
	src.Push(t, ca.Leaf(t, "storage", func(c *x509.Certificate) {
		c.NotBefore = time.Now().Add(time.Hour)
		c.NotAfter = c.NotBefore.Add(time.Hour)
	}))
	if err := src.Offer(rotation.Material{}); err == nil {
		t.Fatal("an empty candidate was accepted")
	}
	st = id.Status()
	text = scrape(t, c)
	wantValues(t, text, "storage", map[string]float64{
		"generation": 2, "own_trusted": 0, "refused_total": 2, "consecutive_failures": 1,
		"not_after_timestamp_seconds": seconds(st.NotAfter), "held_until_timestamp_seconds": seconds(st.HeldUntil),
	})
	wantValues(t, text, "ingester", map[string]float64{"generation": 1, "own_trusted": 1, "refused_total": 0})
}

// TestConnectionsByGeneration holds one connection open over a rotation.
func TestConnectionsByGeneration(t *testing.T) {
	ca := pkitest.NewCA(t)
	src := pkitest.NewSource(ca.Leaf(t, "ingester"))
	client := pkitest.Open(t, rotation.Config{Source: src})
	server := pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "storage"))})
	service, err := server.Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := service.Listener(tcp)
	defer func() { _ = ln.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := ln.Accept(); err == nil {
			accepted <- c
		}
	}()
	transport, err := client.Transport(rotation.TransportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := transport.DialTLSContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer := <-accepted
	defer func() { _ = peer.Close() }()
	c := prom.NewCollector(map[string]*rotation.Identity{"client": client, "server": server})
	connections := func(age string, atClient, atServer float64) {
		t.Helper()
		text := scrape(t, c)
		wantValues(t, text, "client", map[string]float64{`connections{generation="` + age + `",side="client"}`: atClient})
		wantValues(t, text, "server", map[string]float64{`connections{generation="current",side="server"}`: atServer})
	}
	connections("current", 1, 1)
	src.Push(t, ca.Leaf(t, "ingester"))
	connections("current", 0, 1)
	connections("superseded", 1, 1)
	wantValues(t, scrape(t, c), "client", map[string]float64{"draining_generations": 1})
	_ = conn.Close()
	_ = peer.Close()
	connections("superseded", 0, 0)
}

func TestWatchModeAndNoKeys(t *testing.T) {
	ca := pkitest.NewCA(t)
	m := ca.Leaf(t, "storage")
	dir := t.TempDir()
	set := files.Set{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt")}
	key, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		set.Cert: {Type: "CERTIFICATE", Bytes: m.Certificate.Certificate[0]},
		set.Key:  {Type: "PRIVATE KEY", Bytes: key},
		set.CA:   {Type: "CERTIFICATE", Bytes: ca.Root.Raw},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id := pkitest.Open(t, rotation.Config{Source: files.Source(set)})
	text := scrape(t, prom.NewCollector(map[string]*rotation.Identity{"storage": id}))
	if got, ok := value(t, text, "watch_mode", "storage", `mode="`+id.Status().WatchMode+`"`); !ok || got != 1 {
		t.Errorf("no watch mode in\n%s", text)
	}
	for _, secret := range []string{"PRIVATE", "BEGIN", dir, ca.Root.Subject.CommonName} {
		if strings.Contains(text, secret) {
			t.Errorf("the metrics contain %q", secret)
		}
	}
}

// TestNamesAndSeries expects that names and help pass the linter of Prometheus, and that
// rotations make no new series.
func TestNamesAndSeries(t *testing.T) {
	ca := pkitest.NewCA(t)
	src := pkitest.NewSource(ca.Leaf(t, "storage"))
	c := prom.NewCollector(map[string]*rotation.Identity{"storage": pkitest.Open(t, rotation.Config{Source: src, Logger: slog.New(slog.DiscardHandler)})})
	problems, err := testutil.CollectAndLint(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	before := testutil.CollectAndCount(c)
	for range 5 {
		src.Push(t, ca.Leaf(t, "storage"))
	}
	if after := testutil.CollectAndCount(c); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

// TestRefusedPeers expects that every reason is there from the start with 0, and is
// counted.
func TestRefusedPeers(t *testing.T) {
	ca := pkitest.NewCA(t)
	id := pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "storage"))})
	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	if err != nil {
		t.Fatal(err)
	}
	c := prom.NewCollector(map[string]*rotation.Identity{"storage": id})
	want := map[string]float64{}
	for _, reason := range []string{"no_certificate", "unknown_issuer", "expired", "revoked", "denied", "protocol", "other"} {
		want[`peers_refused_total{reason="`+reason+`"}`] = 0
	}
	wantValues(t, scrape(t, c), "storage", want)
	stranger := ca.Leaf(t, "stranger").Certificate.Leaf
	for range 10 {
		if err := server.Authorize(tls.ConnectionState{PeerCertificates: []*x509.Certificate{stranger}, VerifiedChains: [][]*x509.Certificate{{stranger, ca.Root}}}); err == nil {
			t.Fatal("a stranger is admitted")
		}
	}
	want[`peers_refused_total{reason="denied"}`] = 10
	wantValues(t, scrape(t, c), "storage", want)
}
