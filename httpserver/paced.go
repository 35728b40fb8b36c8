package httpserver

import (
	"net/http"
	"time"
)

const pace = 64 << 10 // bytes

// Paced returns a writer for large answers under a WriteTimeout: the time within is for
// each 64 KiB, and begins again with the next. So an answer of any size arrives over a slow
// line, and an answer whose peer takes nothing ends after within.
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
		_ = p.deadline.SetWriteDeadline(time.Now().Add(p.within)) // fails for a recorder in a test only
		m, err := p.ResponseWriter.Write(b[n:min(n+pace, len(b))])
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}
