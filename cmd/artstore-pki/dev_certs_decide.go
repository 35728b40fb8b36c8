package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// onDisk is what a directory was found to hold.
type onDisk struct {
	chain, roots []*x509.Certificate
	missing      []string // of the three files
	fault        error    // the reason why they cannot be read
	fits         bool     // the key is the certificate's
	exposed      bool     // the key can be read by others than its owner
	unfinished   bool     // an enrolment was cut off, and its key lies about
	differs      []string // from the profile
	foreign      error    // something that is not ours to replace
}

func (h onDisk) usable() bool { return h.fault == nil && len(h.missing) == 0 }

var identityFiles = [...]string{"tls.crt", "tls.key", "ca.crt"}

// lookAt reads the three files of a directory strictly.
func lookAt(dir string) (h onDisk) {
	if h.foreign = foreignIn(dir); h.foreign != nil {
		return h
	}
	data := make(map[string][]byte, len(identityFiles))
	for _, name := range identityFiles {
		b, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			h.missing = append(h.missing, name)
		case err != nil:
			h.fault = err
			return h
		}
		data[name] = b
	}
	if len(h.missing) > 0 {
		return h
	}
	h.parse(data)
	h.unfinished = unfinishedIn(dir)
	if info, err := os.Stat(filepath.Join(dir, "tls.key")); err == nil {
		h.exposed = fileperm.Exposed(info)
	}
	return h
}

// unfinishedIn finds a key that enroll keeps until its certificate is stored.
func unfinishedIn(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "pending-") })
}

func (h *onDisk) parse(data map[string][]byte) {
	key, err := pemfile.PrivateKey(data["tls.key"])
	if err != nil {
		h.fault = fmt.Errorf("tls.key: %w", err)
		return
	}
	if h.roots, err = pemfile.Certificates(data["ca.crt"]); err != nil {
		h.fault = fmt.Errorf("ca.crt: %w", err)
		return
	}
	if h.chain, err = pemfile.Certificates(data["tls.crt"]); err != nil {
		h.fault = fmt.Errorf("tls.crt: %w", err)
		return
	}
	h.fits = certs.Fits(h.chain[0], key)
}

// foreignIn finds what enroll will refuse to replace, so that a dry run tells,
// and so that no token is made for it.
func foreignIn(dir string) error {
	for _, name := range append(identityFiles[:], "current") {
		path := filepath.Join(dir, name)
		target, err := os.Readlink(path)
		ours := target == filepath.Join("current", name) || name == "current" && strings.HasPrefix(target, "gen-")
		if errors.Is(err, fs.ErrNotExist) || err == nil && ours {
			continue
		}
		return fmt.Errorf("%s is not ours to replace: %w", path, fs.ErrExist)
	}
	return nil
}

// decisionInput is what a decision is made against.
type decisionInput struct {
	now   time.Time
	facts authorityFacts
}

// decide says what to do about a certificate, and every reason why it cannot
// stay. It is pure: what it needs to know was looked at before.
func decide(item *devItem, h onDisk, m decisionInput) (itemAction, []string) {
	switch {
	case len(h.missing) == len(identityFiles):
		return toMake, nil
	case len(h.missing) > 0:
		return toReplace, []string{strings.Join(h.missing, " and ") + " missing"}
	case h.fault != nil:
		return toReplace, []string{"not readable: " + h.fault.Error()}
	}
	var why []string
	add := func(is bool, reason string) {
		if is {
			why = append(why, reason)
		}
	}
	add(!h.fits, "key does not fit")
	add(h.exposed, "key was readable by others")
	add(h.unfinished, "enrolment was cut off")
	add(!issuedBy(h.chain, m.facts), "issuer changed")
	add(!sameCertificates(h.roots, m.facts.roots), "trust bundle changed")
	why = append(why, h.differs...)
	reason := checkDates(item.fixture, h.chain[0], m.now)
	add(reason != "", reason)
	if len(why) > 0 {
		return toReplace, why
	}
	return toKeep, nil
}

// issuedBy: the intermediate of today, sent along in the chain, signed by a root of today.
func issuedBy(chain []*x509.Certificate, facts authorityFacts) bool {
	if len(chain) < 2 || !chain[1].Equal(facts.issuer) || chain[0].CheckSignatureFrom(chain[1]) != nil {
		return false
	}
	for _, root := range facts.roots {
		if chain[1].CheckSignatureFrom(root) == nil {
			return true
		}
	}
	return false
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return bytes.Equal(pemfile.EncodeCertificates(a), pemfile.EncodeCertificates(b))
}

// checkDates returns why the dates will not do: a fixture must stay outside of its
// life, anything else needs more than a third of it.
func checkDates(fixture string, leaf *x509.Certificate, now time.Time) string {
	before, over := now.Before(leaf.NotBefore), !now.Before(leaf.NotAfter)
	switch {
	case fixture == flagExpired && over, fixture == flagNotYetValid && now.Add(humantime.Day).Before(leaf.NotBefore):
		return ""
	case fixture == flagExpired:
		return "not expired"
	case fixture == flagNotYetValid:
		return "valid within a day"
	case before:
		return "not valid yet"
	case over:
		return "expired"
	case 3*leaf.NotAfter.Sub(now) <= leaf.NotAfter.Sub(leaf.NotBefore):
		return "a third of its life is left"
	}
	return ""
}
