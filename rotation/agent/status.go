package agent

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Status is the state of an agent. Its form in JSON is part of the API, and has nothing secret
// but what hooks print.
type Status struct {
	StartedAt    time.Time `json:"started_at"`
	ConfigReadAt time.Time `json:"config_read_at"` // the configuration in effect
	// ConfigError is why a configuration that was read later is not in effect, in one line; "" if it is.
	ConfigError string           `json:"config_error,omitempty"`
	Identities  []IdentityStatus `json:"identities"`             // in the order of the configuration
	Workload    *WorkloadStatus  `json:"workload_api,omitempty"` // nil if it is not served
}

// Problems returns a line for each problem: what has it, a colon, and what an operator should know.
func (s Status) Problems() (lines []string) {
	if s.ConfigError != "" {
		lines = append(lines, "configuration: "+s.ConfigError)
	}
	for _, i := range s.Identities {
		if i.Problem != "" {
			lines = append(lines, i.Name+": "+i.Problem)
		}
	}
	if s.Workload == nil {
		return lines
	}
	for _, o := range s.Workload.Identities {
		if o.Problem != "" {
			lines = append(lines, "Workload API: "+o.Name+": "+o.Problem)
		}
	}
	return lines
}

// WorkloadStatus says what the SPIFFE Workload API serves.
type WorkloadStatus struct {
	Socket     string            `json:"socket"`
	Rules      int               `json:"rules"`
	Identities []Offered         `json:"identities"` // that rules name, in the order of names
	Calls      map[string]uint64 `json:"calls"`      // since the start, by outcome: those of package workload
}

// Offered is an identity that callers of the Workload API get.
type Offered struct {
	Name     string `json:"name"`
	SPIFFEID string `json:"spiffe_id,omitempty"`
	// Problem is why it is not handed out, or not with its revocation lists; "" if it is.
	Problem string `json:"problem,omitempty"`
}

// IdentityStatus is the state of one identity.
type IdentityStatus struct {
	Name    string `json:"name"`
	Service string `json:"service,omitempty"` // common name of the certificate
	Dir     string `json:"dir"`
	// Problem is what an operator should know first, in one line; "" if all is well.
	Problem         string         `json:"problem,omitempty"`
	Serial          string         `json:"serial,omitempty"`
	Fingerprint     string         `json:"fingerprint,omitempty"` // SHA-256, hex
	NotAfter        time.Time      `json:"not_after,omitzero"`
	NextRenewal     time.Time      `json:"next_renewal,omitzero"`
	Overdue         bool           `json:"overdue"` // it should have been renewed by now
	RenewalFailures int            `json:"renewal_failures"`
	RenewalError    string         `json:"renewal_error,omitempty"`
	TrustError      string         `json:"trust_error,omitempty"`
	RevokedError    string         `json:"revoked_error,omitempty"`
	Watching        bool           `json:"watching"` // the authority tells of changes at once
	Delivery        DeliveryStatus `json:"delivery"`
}

// DeliveryStatus says whether the files in effect are in use.
type DeliveryStatus struct {
	State      string    `json:"state"` // none, pending, delivered or failed
	Serial     string    `json:"serial,omitempty"`
	At         time.Time `json:"at,omitzero"`           // when that was delivered
	Proved     bool      `json:"proved"`                // each of the servers serves it
	Alarm      bool      `json:"alarm"`                 // it failed twice and more
	Failures   int       `json:"failures"`              // since the last success
	Error      string    `json:"error,omitempty"`       // of the last failure
	HookRuns   uint64    `json:"hook_runs"`             // since the start
	HookFailed uint64    `json:"hook_failed"`           // of these
	HookOutput string    `json:"hook_output,omitempty"` // of the last run, clipped and printable
	Serves     []Served  `json:"serves,omitempty"`
}

// Served is what a server said last.
type Served struct {
	Address string    `json:"address"`
	AskedAt time.Time `json:"asked_at,omitzero"`
	Error   string    `json:"error,omitempty"` // why it does not serve the certificate in effect
}

// States of a delivery.
const (
	statePending   = "pending"
	stateDelivered = "delivered"
	stateFailed    = "failed"
	stateNone      = "none"
)

const lineRunes = 400

// state is the part of the status that is not asked for, but told.
type state struct {
	changed func() // is called after each change, without the lock

	mu       sync.Mutex
	problem  error // why there is no identity
	delivery DeliveryStatus
}

// update changes the state under its lock.
func (s *state) update(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	if s.changed != nil {
		s.changed()
	}
}

// oneLine returns the text of an error as one line for people.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return printable.Line(strings.ReplaceAll(err.Error(), "\n", "; "), lineRunes)
}

// setProblem records why there is no identity, and logs it if it is another reason than before.
// nil means that there is one.
func (s *state) setProblem(log *slog.Logger, err error) {
	s.update(func() {
		if err != nil && oneLine(err) != oneLine(s.problem) {
			log.Warn("no certificate yet", "err", oneLine(err))
		}
		s.problem = err
	})
}

// begin records that a set is being delivered.
func (s *state) begin(set *set) {
	s.update(func() {
		d := &s.delivery
		if serial := certs.Serial(set.leaf); d.Serial != serial || d.State != stateFailed {
			d.State, d.Serial, d.Proved = statePending, serial, false
		}
	})
}

// ran records a run of the hook.
func (s *state) ran(output string, err error) {
	s.update(func() {
		s.delivery.HookRuns++
		if err != nil {
			s.delivery.HookFailed++
		}
		s.delivery.HookOutput = output
	})
}

// asked records what the server at an index said.
func (s *state) asked(n int, address string, err error) {
	s.update(func() {
		for len(s.delivery.Serves) <= n {
			s.delivery.Serves = append(s.delivery.Serves, Served{})
		}
		s.delivery.Serves[n] = Served{Address: address, AskedAt: time.Now().UTC().Truncate(time.Second), Error: oneLine(err)}
	})
}

// failed records a failed delivery, the failures counted since the last success: a newer set does not
// end an alarm. The first failure is a warning, because the next attempt often succeeds; the one that
// raises the alarm is an error, and later ones are not logged again unless the reason changes.
func (s *state) failed(log *slog.Logger, failures int, err error) {
	s.update(func() {
		d := &s.delivery
		alarm, text := failures >= alarmAfter, oneLine(err)
		switch {
		case alarm && (!d.Alarm || text != d.Error):
			log.Error("the new files are not in effect", "failures", failures, "serial", d.Serial, "err", text)
		case text != d.Error || failures == 1:
			log.Warn("the new files are not in effect yet", "failures", failures, "serial", d.Serial, "err", text)
		}
		d.State, d.Alarm, d.Failures, d.Error = stateFailed, alarm, failures, text
	})
}

// delivered records a set that its program uses, and ends an alarm.
func (s *state) delivered(log *slog.Logger, set *set, proved bool) {
	s.update(func() {
		d := &s.delivery
		if d.Alarm {
			log.Info("the new files are in effect again", "serial", certs.Serial(set.leaf))
		}
		d.State, d.Serial, d.At, d.Proved = stateDelivered, certs.Serial(set.leaf), time.Now().UTC().Truncate(time.Second), proved
		d.Alarm, d.Failures, d.Error = false, 0, ""
	})
	log.Debug("delivered", "serial", certs.Serial(set.leaf), "proved", proved)
}

// status joins what was told with what the source and the identity say now.
func (m *managed) status() IdentityStatus {
	m.state.mu.Lock()
	problem, delivery := m.state.problem, m.state.delivery
	delivery.Serves = slices.Clone(delivery.Serves)
	m.state.mu.Unlock()
	delivery.State = cmp.Or(delivery.State, stateNone)
	from := m.source.renewals()
	st := IdentityStatus{
		Name: m.Name, Dir: m.Dir, Delivery: delivery,
		RenewalFailures: from.RenewalFailures, RenewalError: printable.Line(from.RenewalError, lineRunes),
		TrustError: printable.Line(from.TrustError, lineRunes), RevokedError: printable.Line(from.RevokedError, lineRunes), Watching: from.Watching,
	}
	var check error
	if id := m.id.Load(); id != nil {
		is := id.Status()
		st.Service = printable.Line(id.Current().Leaf().Subject.CommonName, lineRunes)
		st.Serial, st.Fingerprint, st.NotAfter, st.NextRenewal, st.Overdue = is.Serial, is.Fingerprint, is.NotAfter, is.NextRenewal, is.Overdue
		check = cmp.Or(id.Check(), m.checkNames(id.Current().Leaf()))
		if is.LastError != "" {
			check = cmp.Or(check, errors.New(is.LastError))
		}
	}
	st.Problem = cmp.Or(oneLine(problem), oneLine(check), st.firstProblem())
	if st.Serial == "" && st.RenewalError != "" {
		st.Problem = st.RenewalError
	}
	return st
}

// firstProblem returns the first of the failures that an operator should know.
func (s *IdentityStatus) firstProblem() string {
	switch {
	case s.Overdue:
		return "the certificate is not renewed in time: " + cmp.Or(s.RenewalError, "no attempt has failed")
	case s.Delivery.Error != "":
		return "the new files are not in effect: " + s.Delivery.Error
	case s.RenewalFailures > 0:
		return s.RenewalError
	}
	return ""
}
