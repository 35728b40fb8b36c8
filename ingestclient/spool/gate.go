package spool

import "time"

const (
	pauseMin      = time.Second
	pauseMax      = time.Minute
	pauseRefused  = 10 * time.Second // the first pause after refused credentials
	pauseLockout  = 5 * time.Minute
	giveUpProbes  = 3 // pauses in a row after which a run that only empties the directory ends
	crowdedTries  = 5 // attempts of one file
	crowdedStored = 3 // files that were stored meanwhile
)

// gate is the circuit breaker before the element: one failure that is not the
// file's closes it for all files, one probe at a time tries whether it is over.
// So ten thousand waiting files do not make ten thousand attempts. It is used
// by one goroutine.
type gate struct {
	jitter func() float64 // uniform in [0, 1)

	failures int // pauses in a row; 0: open
	why      verdict
	err      error
	since    time.Time // of the first pause in the row
	until    time.Time // of this one
	probing  bool
}

func (g *gate) open() bool { return g.failures == 0 }

// admit says whether an upload may begin now, and whether it is the probe.
func (g *gate) admit(now time.Time) (ok, probe bool) {
	if g.open() {
		return true, false
	}
	if g.probing || now.Before(g.until) {
		return false, false
	}
	g.probing = true
	return true, true
}

// success opens the gate and says whether it was closed.
func (g *gate) success() (opened bool) {
	opened = !g.open()
	*g = gate{jitter: g.jitter}
	return opened
}

// failure closes the gate, for longer each time a probe fails. What was sent
// before it closed, and fails after, says nothing new. closed: it was open.
func (g *gate) failure(why verdict, err error, probe bool, now time.Time) (closed bool) {
	if !g.open() && !probe {
		return false
	}
	closed = g.open()
	if closed {
		g.since = now
	}
	g.probing = false
	g.failures++
	g.why, g.err = why, err
	g.until = now.Add(pause(why, g.failures, g.jitter()))
	return closed
}

// release ends a probe that told nothing about the element; the next one may go.
func (g *gate) release(probe bool) {
	if probe {
		g.probing = false
	}
}

// pause is the length of the n-th pause in a row: it doubles up to a bound, and
// the upper half of it is chance, so that ingesters do not come back in step.
func pause(why verdict, n int, u float64) time.Duration {
	first, most := pauseMin, pauseMax
	if why == verdictCredentials { // each attempt costs the token endpoint a password hash, and only a human helps
		first, most = pauseRefused, pauseLockout
	}
	d := min(most, first<<min(n-1, 10))
	return d/2 + time.Duration(u*float64(d/2))
}
