package spool

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// newReason returns the reason file of a claim that is quarantined, with the command that resolves it.
func (s *Spool) newReason(it *item, err error, to quarantine) *reason {
	r := &reason{
		State: to, ID: it.id, Name: strings.ToValidUTF8(it.name, "\uFFFD"), Size: it.seen.Size,
		Error: err.Error(), Attempts: it.tries, At: time.Now().UTC(), OnSuccess: s.cfg.OnSuccess,
	}
	if e, ok := errors.AsType[*ingestclient.RequestError](err); ok {
		r.Status, r.FileID = e.Status, e.FileID
		if e.Element != "" {
			r.Elements = []string{e.Element} // an attempt without an outcome is the last one, so the file can only be there
		}
	}
	if r.Elements == nil {
		r.Elements = it.reach
	}
	resolve := "artstore-pki ingest resolve " + shellWord(absolute(s.layout.dir)) + " " + it.id
	if s.cfg.StateDir != "" {
		resolve += " --state-dir " + shellWord(absolute(s.layout.state.Name()))
	}
	switch {
	case to == quarantineAmbiguous:
		r.Advice = "it may be stored: " + resolve + " --auto asks the elements for it, and with --yes does what it says; " +
			"if they cannot tell, --stored --yes or --resend --yes is your word"
	case errors.Is(err, ingestclient.ErrChecksum):
		r.Advice = "the element stored other content under file_id: remove that there, then send it again: " + resolve + " --resend --yes"
	default:
		r.Advice = "it was not stored: correct what the error names, then send it again: " + resolve + " --resend --yes"
	}
	return r
}

// absolute returns an absolute path, because the operator may use another directory.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

var plainWord = regexp.MustCompile(`^[0-9A-Za-z_./:@%+=,-]+$`)

// shellWord quotes text that a POSIX shell would not take as one word.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
