package httpserver

import (
	"net/http"
	"time"
)

const pace = 64 << 10

// Paced returns a writer for large answers under a WriteTimeout: each 64 KiB have
// the time within, counted from when their turn comes. So an answer of any size
// arrives over a slow line, and one whose peer takes nothing ends after within.
func Paced(w http.ResponseWriter, within time.Duration) http.ResponseWriter {
	return &paced{w, http.NewResponseController(w), within}
}

type paced struct {
	http.ResponseWriter
	deadline *http.ResponseController
	within   time.Duration
}

func (p *paced) Write(b []byte) (n int, err error) {
	for {
		_ = p.deadline.SetWriteDeadline(time.Now().Add(p.within)) // a server that cannot is a test's recorder
		m, err := p.ResponseWriter.Write(b[n:min(n+pace, len(b))])
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}
