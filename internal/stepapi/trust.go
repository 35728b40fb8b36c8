package stepapi

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Paths of the trust bundle as operators change it, of the fleet that follows, and of the
// request that services hold open. All are ours; a stock step-ca answers 404.
const (
	PathTrust    = "/trust"    // GET, and POST of a TrustChange; for services listed as operators
	PathRenewals = "/renewals" // GET, and POST of a RenewalOrder; for services listed as operators
	PathWatch    = "/watch"    // GET, over mutual TLS

	// PathRenewalInfo is followed by the name of a certificate: renewal information as ACME
	// has it (RFC 9773), for whoever asks.
	PathRenewalInfo = "/renewal-info/"
)

// Stages of a root. A root is in the trust bundle from staged to old.
const (
	StageStaged = "staged" // signs for the services that try it, and for no other
	StageActive = "active" // signs for all
	StageOld    = "old"    // was active, signs nothing new
)

// Steps of a [TrustChange].
const (
	StepAdd                = "add"                 // a new root, staged, with an intermediate under it
	StepTry                = "try"                 // Services get their certificates under the staged root, others do not
	StepActivate           = "activate"            // the root signs for all
	StepRollback           = "rollback"            // the step before is undone
	StepRemove             = "remove"              // the root leaves the bundle
	StepRotateIntermediate = "rotate-intermediate" // a new intermediate under the active root
	StepRevokeIntermediate = "revoke-intermediate" // the list of its root names it
	StepRequest            = "request"             // no step yet: TrustStatus.Request gets a request for an intermediate
)

// TrustChange is the body of POST /trust: one step.
type TrustChange struct {
	Step string `json:"step"`
	// Certificate is the SHA-256 fingerprint of the root or intermediate that the step is
	// about. It may be empty where only one can be meant.
	Certificate string `json:"certificate,omitempty"`
	// Version, if it is not 0, is that of the TrustStatus by which the step was chosen. The step is
	// refused if there is a newer one.
	Version int64 `json:"version,omitempty"`
	// Services try a staged root; only for StepTry.
	Services []string `json:"services,omitempty"`
	// Accept names the services that the step may cut off, or names that the certificates of
	// one service have.
	Accept []string `json:"accept,omitempty"`
	// Signed are certificates in PEM that the holder of a root has made for the request of
	// StepRequest: that of the intermediate, and that of its root, which may be left out if it
	// is in the bundle. For StepRotateIntermediate, and for StepAdd if the root is a new one.
	// For StepRevokeIntermediate it is the revocation list of the root that names the
	// intermediate, PEM.
	Signed string `json:"signed,omitempty"`
	// DryRun decides as always, and changes nothing.
	DryRun bool `json:"dry_run,omitempty"`
}

// TrustStatus answers GET and POST /trust.
type TrustStatus struct {
	Version       int64               `json:"version"` // grows with each change
	Digest        string              `json:"digest"`  // TrustDigest of the roots
	Roots         []RootStatus        `json:"roots"`   // the active one first
	Intermediates []IntermediateState `json:"intermediates"`
	Holders       int                 `json:"holders"` // services that hold a certificate, by lineage
	// Unreported is how many of the holders have not reported any bundle yet: they have just
	// enrolled, or their clients never report. They do not count as trusting a root.
	Unreported int `json:"unreported,omitempty"`
	// Request is the open request for an intermediate, PEM; only after StepRequest.
	Request string `json:"request,omitempty"`
}

// RootStatus is one root of the bundle.
type RootStatus struct {
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	Stage       string    `json:"stage"`
	Since       time.Time `json:"since,omitzero"` // of the stage
	NotAfter    time.Time `json:"not_after"`
	// Services try the root; only while it is staged.
	Services []string `json:"services,omitempty"`
	// Trusting is how many holders have reported a bundle with the root as in effect.
	Trusting int `json:"trusting"`
	// Without are the holders that have not: they would refuse certificates under it.
	Without []Holder `json:"without,omitempty"`
	// Users hold a certificate that chains to the root.
	Users []Holder `json:"users,omitempty"`
}

// IntermediateState is one intermediate.
type IntermediateState struct {
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	Root        string    `json:"root"` // fingerprint of the root that signed it
	Issues      bool      `json:"issues"`
	NotAfter    time.Time `json:"not_after"`
	Revoked     time.Time `json:"revoked,omitzero"`
	Users       int       `json:"users"` // holders of a certificate that it signed
}

// Holder is a service that holds a certificate, by the lineage of the certificate.
type Holder struct {
	Service  string    `json:"service"`
	Names    []string  `json:"names"`
	Serial   string    `json:"serial"` // of its newest certificate, hex
	LastSeen time.Time `json:"last_seen,omitzero"`
	// NextRenewal is when a client with the usual timing renews at the latest.
	NextRenewal time.Time `json:"next_renewal"`
	// Expires is when the certificate that the row is about ends: the last moment at which it
	// can be in the way.
	Expires time.Time `json:"expires"`
	// Reason says in words why the holder is in a list of those that lack a root.
	Reason string `json:"reason,omitempty"`
}

// ServicesOf names the services of holders in a sentence: five at most, and how many more there
// are. Many instances of a service are one name.
func ServicesOf(holders []Holder) string {
	const most = 5
	names := make([]string, 0, len(holders))
	for _, h := range holders {
		names = append(names, h.Service)
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	text := strings.Join(names[:min(len(names), most)], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more services", more)
	}
	return text
}

// TrustRefusal answers POST /trust with status 409: the step would cut off holders that
// were not accepted.
type TrustRefusal struct {
	Status  int      `json:"status"`
	Message string   `json:"message"`
	Holders []Holder `json:"holders"`
}

func (r *TrustRefusal) Error() string { return r.Message }

// RenewalOrder is the body of POST /renewals: all certificates that match renew now. Empty
// fields match all.
type RenewalOrder struct {
	Issuer  string `json:"issuer,omitempty"`   // fingerprint of the intermediate, its key id or its common name
	Service string `json:"service,omitempty"`  // name of a profile
	KeyType string `json:"key_type,omitempty"` // such as EC-P256
	Serial  string `json:"serial,omitempty"`   // one certificate, and what it was renewed to
	// Within is how long the fleet may take, such as "30s". The renewals are spread over it.
	Within string `json:"within"`
	Note   string `json:"note,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// RenewalStatus is one order and how far the fleet has followed. GET /renewals answers with
// a list of those that are open, the newest first.
type RenewalStatus struct {
	ID      int64        `json:"id"`
	Order   RenewalOrder `json:"order"`
	At      time.Time    `json:"at"`
	By      time.Time    `json:"by"` // At and Within
	Caller  string       `json:"caller"`
	Matched int          `json:"matched"` // holders, when the order was given
	Renewed int          `json:"renewed"`
	Pending []Holder     `json:"pending,omitempty"` // have not renewed and are not expired
}

// WatchResponse answers GET /watch, at once if a value differs from that in the query, and
// otherwise when one changes or the wait is over.
//
// The query has trust, the digest of the bundle in effect; lists, the ETag of the lists in
// effect without its quotes; renewal and nonce, of the last order that the caller has obeyed;
// and wait, the longest time to hold the request in seconds, 300 at most and by default. A caller
// that has connected to servers and found a certificate of its lineage there adds four: served, the
// serial in decimal; served_at, the address of the first server, and servers, how many serve it;
// served_for, how many seconds ago that was proved. A request with a wait has to be of HTTP/1.1; the answer over HTTP/2 is status 505.
type WatchResponse struct {
	Trust string `json:"trust"` // TrustDigest of the bundle now
	Lists string `json:"lists"` // ETag of GET /revoked now, without its quotes
	// Renewal is the order that the certificate of the connection has to follow, if there
	// is one that it has not obeyed.
	Renewal *WatchRenewal `json:"renewal,omitempty"`
}

// WatchRenewal asks the caller to renew at a random moment of the next Within.
type WatchRenewal struct {
	ID int64 `json:"id"`
	// Nonce is random, of each order. Ids come again after the record was restored from a
	// backup, and a nonce does not. It is empty in orders of older authorities.
	Nonce  string  `json:"nonce,omitempty"`
	Within float64 `json:"within"` // seconds that are left of the order; 0: at once
}
