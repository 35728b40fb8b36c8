package ca_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// TestRecordAPI: auditors read page by page. Everybody else is refused, and a misspelt
// parameter is an error.
func TestRecordAPI(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(yaml []byte) []byte {
		return append(withAuditor(yaml), "limits: {per_address: {per_second: 0}}\n"...) // there are more refusals below than one address may cause at once
	}})
	auditor := enrol(t, c, "storage", "storage")
	for range 3 {
		enrol(t, c, "ingester", "ingester")
	}
	cl := newClient(t, c, auditor)
	var got []stepapi.RecordRow
	for cursor := ""; ; {
		status, body := cl.do("GET", "/records/certificates?service=ingester&state=valid&limit=2&cursor="+cursor, nil)
		var p stepapi.RecordPage
		if status != http.StatusOK || json.Unmarshal(body, &p) != nil || len(p.Certificates) > 2 {
			t.Fatalf("%d %s", status, body)
		}
		got = append(got, p.Certificates...)
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	if len(got) != 3 || got[0].Service != "ingester" || got[0].State != "valid" {
		t.Fatalf("%+v", got)
	}
	for query, want := range map[string]int{
		"name=Ingester": 3, "name=storage": 1, "expires_before=1h": 0, "expires_before=2126-01-01T00:00:00Z": 5, "state=revoked": 0,
		"issuer=00": 0, "service=": 5, "service=nobody": 0,
	} {
		status, body := cl.do("GET", "/records/certificates?"+query, nil)
		var p stepapi.RecordPage
		if status != http.StatusOK || json.Unmarshal(body, &p) != nil || len(p.Certificates) != want {
			t.Errorf("%s: %d %s, want %d rows", query, status, body, want)
		}
	}
	status, body := cl.do("GET", "/1.0/records/certificates/"+strings.ReplaceAll(got[0].SerialHex, ":", "%3A"), nil)
	var one struct {
		Certificate stepapi.RecordRow `json:"certificate"`
		PEM         string            `json:"pem"`
	}
	if status != http.StatusOK || json.Unmarshal(body, &one) != nil || one.Certificate.Serial != got[0].Serial {
		t.Errorf("%d %s", status, body)
	}
	if chain, err := pemfile.Certificates([]byte(one.PEM)); err != nil || len(chain) != 2 || chain[0].SerialNumber.String() != got[0].Serial {
		t.Errorf("%d certificates, %v", len(chain), err)
	}
	status, body = cl.do("GET", "/records/certificates?service=ingester&limit=1&pem=true", nil)
	var p stepapi.RecordPage
	if status != http.StatusOK || json.Unmarshal(body, &p) != nil || len(p.Certificates) != 1 || p.Certificates[0].PEM != one.PEM {
		t.Errorf("with PEM: %d %s", status, body)
	}
	status, body = cl.do("GET", "/records/authorities", nil)
	var authorities stepapi.RecordAuthorities
	if status != http.StatusOK || json.Unmarshal(body, &authorities) != nil || len(authorities.Roots) != 1 || len(authorities.Others) != 1 ||
		!strings.HasSuffix(one.PEM, authorities.Others[0]) {
		t.Errorf("authorities: %d %s", status, body)
	}
	var events struct {
		Events []record.Event `json:"events"`
		Next   int64          `json:"next"`
	}
	status, body = cl.do("GET", "/records/events?kind=issued&after=1&limit=2", nil)
	if status != http.StatusOK || json.Unmarshal(body, &events) != nil || len(events.Events) != 2 || events.Next != events.Events[1].ID {
		t.Errorf("%d %s", status, body)
	}
	if status, body = cl.do("GET", "/records/events?kind=nonsense", nil); status != http.StatusOK || !strings.Contains(string(body), `"events":[]`) {
		t.Errorf("%d %s", status, body)
	}
	for path, want := range map[string]int{
		"/records/certificates?sevrice=x": 400, "/records/certificates?limit=0": 400, "/records/certificates?limit=1001": 400, "/records/certificates?state=lost": 400,
		"/records/certificates?cursor=x": 400, "/records/certificates?name=*": 400, "/records/certificates?service=a&service=b": 400, "/records/certificates?service=%zz": 400,
		"/records/certificates?expires_before=soon": 400, "/records/certificates?service=" + strings.Repeat("x", 301): 400, "/records/certificates?service=a%00": 400,
		"/records/certificates?pem=yes": 400, "/records/certificates/x": 400, "/records/certificates/12345": 404, "/records/events?after=x": 400, "/records/events?limit=x": 400, "/records/events?x=y": 400,
	} {
		if status, body := cl.do("GET", path, nil); status != want {
			t.Errorf("%.80s: %d %s, want %d", path, status, body, want)
		}
	}
	readersRefused(t, c)
	// A reader whose certificate was revoked is refused on its open connection.
	if err := openRecord(t, c).Revoke(t.Context(), certs.Serial(auditor.Leaf), 1, ""); err != nil {
		t.Fatal(err)
	}
	if status, body := cl.do("GET", "/records/certificates", nil); status != http.StatusUnauthorized {
		t.Errorf("a revoked auditor: %d %s", status, body)
	}
	c.Check(t)
}

// readersRefused checks that clients without a certificate and other services get
// nothing, and that the refusal of the latter is recorded.
func readersRefused(t *testing.T, c *catest.CA) {
	t.Helper()
	stranger, peer := newClient(t, c, nil), newClient(t, c, enrol(t, c, "ingester", "ingester"))
	for _, path := range []string{"/records/certificates", "/records/certificates/1", "/records/authorities", "/records/events", "/log/entry/0"} {
		if status, body := stranger.do("GET", path, nil); status != http.StatusUnauthorized {
			t.Errorf("stranger, %s: %d %s", path, status, body)
		}
		if status, body := peer.do("GET", path, nil); status != http.StatusForbidden || !strings.Contains(message(t, body), "not an auditor") {
			t.Errorf("peer, %s: %d %s", path, status, body)
		}
	}
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 10)
	if err != nil || len(events) != 5 || events[0].Rule != "auditor" || events[0].Service != "ingester" {
		t.Errorf("%+v, %v", events, err)
	}
}

// FuzzRecordQuery: any parameters give a query within its limits, or an error for the
// client.
func FuzzRecordQuery(f *testing.F) {
	for _, q := range []string{"", "service=a&limit=5", "cursor=1.2", "expires_before=36h", "name=%2a", "limit=99999999999999999999", "a=%zz", "state=valid&state=valid"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := ca.ParseRecordQuery(raw)
		if err == nil && (q.Limit < 1 || q.Limit > 1000 || len(q.Service) > 300 || strings.ContainsRune(q.Name+q.Service+q.Issuer, 0)) {
			t.Errorf("%q was read as %+v", raw, q)
		}
	})
}
