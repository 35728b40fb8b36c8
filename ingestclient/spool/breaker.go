package spool

import (
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
)

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

// admission is what may start now.
type admission int

const (
	admitNothing admission = iota
	admitFile              // any file, beside others
	admitProbe             // a probe of the elements, which sends no file
	admitTrial             // one file, and no other one until its outcome is known
)

// breaker is the circuit breaker before the elements. One failure that is not the
// fault of the file stops all files. While it stops them, one probe at a time asks
// whether an element would take a file; after a good answer one file at a time is
// tried, until one is stored. So ten thousand waiting files do not make ten thousand
// attempts, and an element that says that it stores nothing costs no file.
//
// Its closed state stops the files, as a closed gate does; in an electrical breaker
// it is the other way round. One goroutine uses it.
type breaker struct {
	jitter func() float64 // uniform in [0, 1)
	asks   bool           // elements can be probed; else a file is tried at once

	closed   bool
	passed   bool // the last probe was good
	busy     bool // a probe or a trial is under way
	failures int  // pauses in a row
	why      outcome
	err      error
	since    time.Time // of the first pause in the row
	until    time.Time // of this one
	risked   int       // trials in a row whose outcome is unknown
	riskFrom time.Time // before it, no further trial
}

// open reports whether files may be sent.
func (g *breaker) open() bool { return !g.closed }

// allow returns what may start now. After admitProbe and admitTrial the caller reports
// the end by probed, success, failure or release.
func (g *breaker) allow(now time.Time) admission {
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

// probed records a good answer to a probe. After maxRisked trials in a row without an
// outcome, a good answer does not permit a trial before riskFrom: the element says that it
// is ready, but loses files.
func (g *breaker) probed(now time.Time) {
	g.busy = false
	g.passed = g.risked < maxRisked || !now.Before(g.riskFrom)
	if !g.passed {
		g.until = now.Add(pauseMax)
		if g.riskFrom.Before(g.until) {
			g.until = g.riskFrom
		}
	}
}

// success lets files through again, and reports whether that ends a pause.
func (g *breaker) success() (resumed bool) {
	resumed = g.failures > 0
	*g = breaker{jitter: g.jitter, asks: g.asks}
	return resumed
}

// failure stops all files, for longer each time a probe or a trial fails. Uploads that
// began before the stop and fail after it do not count. paused reports whether a
// pause begins.
func (g *breaker) failure(why outcome, err error, as admission, now time.Time) (paused bool) {
	if g.closed && as == admitFile {
		return false
	}
	paused = g.failures == 0
	if paused {
		g.since = now
	}
	if as == admitTrial && why == outcomeUnknown {
		g.risk(now)
	}
	g.closed, g.passed, g.busy = true, false, false
	g.failures++
	g.why, g.err = why, err
	g.until = now.Add(probeDelay(why, g.failures, g.jitter()))
	return paused
}

// risk counts a trial without an outcome. After maxRisked of them, the pause before the next
// trial is half an hour and doubles up to 6 h.
func (g *breaker) risk(now time.Time) {
	g.risked++
	if n := g.risked - maxRisked; n >= 0 {
		g.riskFrom = now.Add(backoff.Step(riskPause, riskPauseMax, n))
	}
}

// release ends a probe or a trial that tells nothing about the element: the next one may start.
func (g *breaker) release(as admission) {
	if as != admitFile {
		g.busy = false
	}
}

// probeDelay returns the length of the n-th pause in a row. It doubles up to a bound, and
// half of it is random, so that several ingesters do not try at the same time.
func probeDelay(why outcome, n int, u float64) time.Duration {
	first, most := pauseMin, pauseMax
	if why == outcomeCredentials { // each attempt costs the token endpoint a password hash, and only an operator can help
		first, most = pauseRefused, pauseLockout
	}
	return backoff.Half(backoff.Step(first, most, n-1), u)
}
