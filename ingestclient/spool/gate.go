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
	maxRisked     = 3 // trials in a row without an outcome, after which the next one has to wait
	riskPause     = 30 * time.Minute
	riskPauseMax  = 6 * time.Hour
)

// admission is what may be sent now.
type admission int

const (
	admitNothing admission = iota
	admitFile              // any file, beside others
	admitProbe             // a question to the elements, which costs no file
	admitTrial             // one file, and no other until its outcome is known
)

// gate is the circuit breaker before the elements: one failure that is not the
// file's closes it for all files. While it is closed, one question at a time asks
// whether an element would take a file, and after a good answer one file at a
// time is on trial, until one is stored. So ten thousand waiting files do not
// make ten thousand attempts, and an element that stores nothing and says so
// costs no file. It is used by one goroutine.
type gate struct {
	jitter func() float64 // uniform in [0, 1)
	asks   bool           // elements can be asked; else the probe is a file

	closed   bool
	passed   bool // an element was asked, and would take a file
	busy     bool // a probe or a trial is under way
	failures int  // pauses in a row
	why      verdict
	err      error
	since    time.Time // of the first pause in the row
	until    time.Time // of this one
	risked   int       // trials in a row whose outcome is unknown
	riskFrom time.Time // before it, no further trial
}

func (g *gate) open() bool { return !g.closed }

// admit says what may begin now. A probe or a trial is under way then, until
// one of the other methods is told how it ended.
func (g *gate) admit(now time.Time) admission {
	switch {
	case g.open():
		return admitFile
	case g.busy || now.Before(g.until):
		return admitNothing
	}
	g.busy = true
	if g.asks && !g.passed {
		return admitProbe
	}
	return admitTrial
}

// answered is told of a probe that an element answered well. After too many
// trials without an outcome the good answer alone is not believed: the element
// says that it is ready, and loses what it is sent.
func (g *gate) answered(now time.Time) {
	g.busy = false
	g.passed = g.risked < maxRisked || !now.Before(g.riskFrom)
	if !g.passed {
		g.until = now.Add(pauseMax)
		if g.riskFrom.Before(g.until) {
			g.until = g.riskFrom
		}
	}
}

// success opens the gate and says whether that ends a pause.
func (g *gate) success() (resumed bool) {
	resumed = g.failures > 0
	*g = gate{jitter: g.jitter, asks: g.asks}
	return resumed
}

// failure closes the gate, for longer each time a probe or a trial fails. What
// was sent before it closed, and fails after, says nothing new. paused: it was
// open, or had not been tried yet.
func (g *gate) failure(why verdict, err error, as admission, now time.Time) (paused bool) {
	if g.closed && as == admitFile {
		return false
	}
	paused = g.failures == 0
	if paused {
		g.since = now
	}
	if as == admitTrial && why == verdictUnknown {
		g.risk(now)
	}
	g.closed, g.passed, g.busy = true, false, false
	g.failures++
	g.why, g.err = why, err
	g.until = now.Add(pause(why, g.failures, g.jitter()))
	return paused
}

func (g *gate) risk(now time.Time) {
	g.risked++
	if n := g.risked - maxRisked; n >= 0 {
		g.riskFrom = now.Add(min(riskPauseMax, riskPause<<min(n, 10)))
	}
}

// release ends a trial that told nothing about the element; the next one may go.
func (g *gate) release(as admission) {
	if as != admitFile {
		g.busy = false
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
