// Package denial has the rules that refuse a request, and the error that says which
// one did ([Error]). A request that cannot be understood, or whose sender is not
// known, is refused by no rule: that is a [RequestError].
package denial

import (
	"fmt"
	"net/http"
)

// Rule is one of the rules, as it stands in answers, in the record and in metrics.
type Rule string

// The rules.
const (
	Profile        Rule = "profile"  // the service has one
	Names          Rule = "names"    // each name is in it
	KeyType        Rule = "key type" // the key is of a kind that it lists
	Lifetime       Rule = "lifetime"
	Token          Rule = "token used once"
	Revoked        Rule = "lineage not revoked"
	IssuerRevoked  Rule = "issuer not revoked" // by the list of its root
	Self           Rule = "revokes only itself"
	Request        Rule = "request equals token"
	Issuer         Rule = "within the issuer's life"
	Proof          Rule = "within the proof's life"
	Grace          Rule = "grace after expiry"
	Root           Rule = "chains to a root of today"
	Holder         Rule = "names of its own certificate"
	Provisioner    Rule = "profiles of the provisioner"
	ACME           Rule = "names of one profile with acme"
	Loopback       Rule = "no loopback names"
	LiveOfService  Rule = "live certificates"
	LiveOfLineage  Rule = "live certificates of a lineage"
	Enroller       Rule = "enroller" // the service is one, for the service that it asks for
	Auditor        Rule = "auditor"  // the service is one
	Operator       Rule = "operator" // the service is one
	Adopted        Rule = "no step of the trust cuts off a service"
	SoundPublicKey Rule = "sound public key"
)

// Rules returns all rules, for metrics: a counter that begins at 1 has not increased for Prometheus,
// so each rule must be there before it refuses the first time.
func Rules() []Rule {
	return []Rule{
		Profile, Names, KeyType, Lifetime, Token, Revoked, IssuerRevoked, Self, Request, Issuer, Proof, Grace, Root, Holder, Provisioner,
		ACME, Loopback, LiveOfService, LiveOfLineage, Enroller, Auditor, Operator, Adopted, SoundPublicKey,
	}
}

// Error is a denied request: a rule, and a text for its sender.
type Error struct {
	Status int // HTTP
	Rule   Rule
	Text   string
}

func (e *Error) Error() string { return e.Text + " (rule: " + string(e.Rule) + ")" }

// New returns an [Error] with status 401 if the credential itself is no longer valid,
// and 403 otherwise.
func New(rule Rule, format string, args ...any) error {
	status := http.StatusForbidden
	switch rule {
	case Token, Revoked, IssuerRevoked, Grace, Root:
		status = http.StatusUnauthorized
	}
	return &Error{status, rule, fmt.Sprintf(format, args...)}
}
