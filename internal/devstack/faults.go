package devstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxFaultBody bounds the body of POST /_faults, in bytes.
	maxFaultBody = 64 << 10
	// defaultStall ends a stall that no call of Set ends before.
	defaultStall = 30 * time.Second
	// trickleTick is the pause between two pieces of a body that trickles.
	trickleTick = 50 * time.Millisecond
)

// Fault is one way to misbehave. It applies to requests that carried a valid token.
type Fault struct {
	// Kind is "delay" (wait, then go on), "status" (answer with Status), "reset"
	// (drop the connection), "stall" (stop reading or answering for Delay, then
	// drop), "checksum" (claim a wrong SHA-256) or "trickle" (move Rate bytes per second).
	Kind string `json:"kind"`
	// On is "upload", "download" or "list". Empty means upload.
	On string `json:"on,omitempty"`
	// Status for Kind status: 401, 413, 500, 503 or 507.
	Status int `json:"status,omitempty"`
	// Delay of delay and stall. 0 means 30 s for a stall.
	Delay time.Duration `json:"-"`
	// DelayMS is Delay in milliseconds, for the HTTP control.
	DelayMS int64 `json:"delay_ms,omitempty"`
	// AfterBytes of the body the fault begins. 0 is before the body is read.
	AfterBytes int64 `json:"after_bytes,omitempty"`
	// AfterStore makes an upload's fault begin when the file is stored and only the answer is missing.
	AfterStore bool `json:"after_store,omitempty"`
	// Rate in bytes per second, for trickle.
	Rate int64 `json:"rate,omitempty"`
	// Count is how many requests it applies to. 0 means until it is replaced.
	Count int `json:"count,omitempty"`
	// Probability that it applies to a request, in (0, 1]. 0 means 1.
	Probability float64 `json:"probability,omitempty"`
}

// Faults decides which requests go wrong. The zero value is not usable; get it
// from [Storage.Faults]. It is safe for concurrent use.
type Faults struct {
	// roll returns a random number, uniform in [0, 1). Tests replace it.
	roll func() float64

	mu     sync.Mutex
	active []Fault
	fired  map[string]int
	// release is closed when the faults are replaced, so that requests that stall go on.
	release chan struct{}
}

// newFaults returns faults that apply to no request.
func newFaults() *Faults {
	return &Faults{
		roll:  rand.Float64,
		fired: map[string]int{}, release: make(chan struct{}),
	}
}

// Set replaces all faults; without arguments it clears them. Requests that
// stall are dropped at once. An invalid fault changes nothing.
func (f *Faults) Set(faults ...Fault) error {
	faults = slices.Clone(faults)
	for i := range faults {
		if err := faults[i].check(); err != nil {
			return fmt.Errorf("setting fault %d: %w", i+1, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = faults
	close(f.release)
	f.release = make(chan struct{})
	return nil
}

// Fired returns how often each kind was applied since the start.
func (f *Faults) Fired() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]int, len(f.fired))
	for k, n := range f.fired {
		out[k] = n
	}
	return out
}

// check fills in defaults, and refuses faults that could never fire or do not fit the
// kind of request. A test with such a fault would pass without testing anything.
func (f *Fault) check() error {
	if f.On == "" {
		f.On = "upload"
	}
	if f.DelayMS != 0 {
		f.Delay = time.Duration(f.DelayMS) * time.Millisecond
	}
	if f.Probability == 0 {
		f.Probability = 1
	}
	statuses := []int{http.StatusUnauthorized, http.StatusRequestEntityTooLarge, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusInsufficientStorage}
	switch {
	case !slices.Contains([]string{"delay", "status", "reset", "stall", "checksum", "trickle"}, f.Kind):
		return fmt.Errorf("unknown kind %q", f.Kind)
	case !slices.Contains([]string{"upload", "download", "list"}, f.On):
		return fmt.Errorf("on %q: want upload, download or list", f.On)
	case f.Kind == "status" && !slices.Contains(statuses, f.Status):
		return fmt.Errorf("status %d: want one of %v", f.Status, statuses)
	case f.Kind == "trickle" && f.Rate <= 0:
		return errors.New("trickle needs a rate above 0")
	case f.Delay < 0 || f.DelayMS < 0 || f.AfterBytes < 0 || f.Count < 0 || f.Rate < 0:
		return errors.New("a number is negative")
	case f.Probability < 0 || f.Probability > 1:
		return fmt.Errorf("probability %v: want 0 to 1", f.Probability)
	case f.On != "upload" && (f.AfterStore || f.Kind == "checksum"):
		return errors.New("only uploads store something and claim a checksum")
	case f.On == "list" && (f.AfterBytes > 0 || f.Kind == "trickle"):
		return errors.New("a list fails before its first byte")
	}
	if f.Kind == "stall" && f.Delay == 0 {
		f.Delay = defaultStall
	}
	return nil
}

// activeFault is a fault that was chosen for one request. nil does nothing.
type activeFault struct {
	Fault
	release <-chan struct{}
}

// choose returns the first fault that applies to a request of this kind, or nil. It counts
// the fault as fired. A fault whose Count is used up keeps its place with -1.
func (f *Faults) choose(on string) *activeFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.active {
		a := &f.active[i]
		if a.On != on || a.Count < 0 || f.roll() >= a.Probability {
			continue
		}
		if a.Count > 0 {
			if a.Count--; a.Count == 0 {
				a.Count = -1 // used up
			}
		}
		f.fired[a.Kind]++
		return &activeFault{Fault: *a, release: f.release}
	}
	return nil
}

// apply executes the fault. It returns the status to answer with, or 0 to go on. Where the
// connection is dropped, it panics with http.ErrAbortHandler and does not return.
func (s *activeFault) apply(ctx context.Context) (status int) {
	switch s.Kind {
	case "delay":
		s.pause(ctx)
	case "status":
		return s.Status
	case "stall":
		s.pause(ctx)
		panic(http.ErrAbortHandler)
	case "reset":
		panic(http.ErrAbortHandler) // net/http drops the connection or, in HTTP/2, resets the stream
	}
	return 0
}

// pause waits for the delay, until the faults are replaced, or until the request ends.
func (s *activeFault) pause(ctx context.Context) {
	timer := time.NewTimer(s.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.release:
	case <-ctx.Done():
	}
}

// faultyBody applies a fault when left bytes of the body were read, or slows the body
// down. left is -1 after that.
type faultyBody struct {
	io.Reader
	ctx   context.Context // the body of one request lives as long as its context
	fault *activeFault
	left  int64
}

// errStatus carries the status of a fault from the reader of a body to the handler.
type errStatus int

// Error is for logs only: the handler answers with the status.
func (e errStatus) Error() string { return fmt.Sprintf("fault: status %d", int(e)) }

// Read trickles, or reads up to the byte at which the fault begins, applies the fault there,
// and then reads on.
func (b *faultyBody) Read(p []byte) (int, error) {
	if b.fault.Kind == "trickle" {
		n := max(1, b.fault.Rate*int64(trickleTick)/int64(time.Second))
		p = p[:min(int64(len(p)), n)]
		(&activeFault{Fault: Fault{Delay: trickleTick}, release: b.fault.release}).pause(b.ctx)
		return b.Reader.Read(p)
	}
	if b.left == 0 {
		b.left = -1
		if status := b.fault.apply(b.ctx); status != 0 {
			return 0, errStatus(status)
		}
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.Reader.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	return n, err
}

// parseFaults reads the body of POST /_faults: a JSON array, strictly.
func parseFaults(body []byte) ([]Fault, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	var faults []Fault
	if err := dec.Decode(&faults); err != nil {
		return nil, fmt.Errorf("parsing faults: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("parsing faults: something follows the array")
	}
	for i := range faults {
		if err := faults[i].check(); err != nil {
			return nil, fmt.Errorf("parsing fault %d: %w", i+1, err)
		}
	}
	return faults, nil
}

// serveHTTP is /_faults: GET counts, POST replaces all faults, DELETE clears them.
func (f *Faults) serveHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		writeJSON(w, http.StatusOK, f.Fired())
		return
	case http.MethodDelete:
		_ = f.Set() // nothing to be invalid
	default:
		body, ok := readBody(w, r, maxFaultBody)
		if !ok {
			http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
			return
		}
		faults, err := parseFaults(body)
		if err == nil {
			err = f.Set(faults...)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
