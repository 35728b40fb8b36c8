package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
)

// fetchedLists are the lists that an authority serves.
type fetchedLists struct {
	lists    lists
	tag      string // of the answer; if it is the tag of the request, lists is nil and nothing has changed
	complete bool   // lists has all that the authority serves
}

// fetchLists fetches the lists, over a connection verified by roots. Lists of issuers that
// are not under the roots are left out: peers with their certificates are refused anyway.
// If one list does not verify, the whole answer is an error.
func (s *Source) fetchLists(ctx context.Context, roots []*x509.Certificate, tag string) (fetchedLists, error) {
	const doing = "fetching the revoked lists"
	c, err := s.newDialer().newClient(s.cfg.URL, roots, nil)
	if err != nil {
		return fetchedLists{}, err
	}
	defer c.Close()
	got, foreign := fetchedLists{complete: true}, false
	take := func(wire stepapi.RevokedList) error {
		l, err := readList(wire)
		if err != nil {
			return err
		}
		if !chainsToRoots(l.issuer, roots) {
			foreign = true
			return nil
		}
		got.lists = merge(got.lists, lists{l})
		return nil
	}
	in := apiRequest{operation: doing, path: stepapi.PathRevoked, tag: tag, limit: stepapi.MaxRevoked}
	in.read = func(r io.Reader) error { return eachList(r, take) }
	r, err := c.roundTrip(ctx, in)
	if err != nil || r.status == http.StatusNotModified {
		return fetchedLists{tag: tag}, err
	}
	if !foreign { // otherwise the next request must get them again: there may be other roots then
		got.tag = r.header.Get("ETag")
	}
	return got, nil
}

// enrolWithLists is enrol for the first certificate of a directory or of a process. The
// identity has the lists that the authority serves, and what is carried over from old, so that
// both are stored in one generation. tag is that of the lists.
//
// The lists are fetched before the token is sent. If required is set, a failure of that ends
// the enrolment, and the token is not spent. Otherwise it is logged, for a caller that fetches
// the lists again soon.
func (s *Source) enrolWithLists(ctx context.Context, old *identity, required bool) (i *identity, tag string, err error) {
	want, roots, err := s.prepareEnrolment(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("enrolling: %w", err)
	}
	got, failed := s.fetchLists(ctx, roots, "")
	if failed != nil && required && !isUnsupported(failed) {
		return nil, "", fmt.Errorf("enrolling: the token was not sent: %w", failed)
	}
	if i, err = s.signWithToken(ctx, want, roots, old); err != nil {
		return nil, "", err
	}
	now := s.wallNow()
	if err := i.carryOver(old, now); err != nil {
		return nil, "", err
	}
	if i.lists, i.kept, err = i.succession(got, now); err != nil {
		return nil, "", err
	}
	s.logLists(ctx, i, failed)
	return i, got.tag, nil
}

// refreshStored stores old with newer lists if one of those that it has is in the second half of
// its validity. The error is that of storing.
func (s *Source) refreshStored(ctx context.Context, old *identity) (rotation.Material, error) {
	now := s.wallNow()
	if !slices.ContainsFunc(old.lists, func(l signedList) bool { return revocation.HalfOver(l.ThisUpdate, l.NextUpdate, now) }) {
		return old.material(), nil
	}
	s.listHolder.Store(old)
	i := *old
	got, err := s.fetchLists(ctx, old.roots, "")
	if err == nil {
		i.lists, i.kept, err = old.succession(got, now)
	}
	if err != nil {
		s.logLists(ctx, old, err)
		return old.material(), nil
	}
	s.logLists(ctx, &i, nil)
	if i.lists.equal(old.lists) && i.kept.Len() == old.kept.Len() {
		return old.material(), nil
	}
	if _, err := s.store.save(&i); err != nil {
		return rotation.Material{}, err
	}
	return i.material(), nil
}

// logLists logs what is wrong with the lists of an identity that is about to be stored. err
// is that of fetching them.
func (s *Source) logLists(ctx context.Context, i *identity, err error) {
	switch {
	case isUnsupported(err) && len(i.lists) > 0:
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, noListsAnyMore, slog.Int("lists", len(i.lists)))
	case err != nil && !isUnsupported(err):
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "revoked lists not refreshed", slog.Any("err", err))
	}
	if end := i.lists.until(); !end.IsZero() && s.authority().After(end) {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "a revoked list is out of date", slog.Time("until", end))
	}
}

// noListsAnyMore is logged when lists of before stay in effect without a server for them.
const noListsAnyMore = "the authority serves no revoked lists any more, the last ones stay in effect"

// succession returns the lists that take the place of those of i after the answer got, and
// the certificates that stay refused beside them.
//
// The authority stops serving the list of an issuer whose last certificate has ended. So a
// list that the answer lacks is dropped when the middle of its validity is past: by then
// the authority would have replaced it, and later it would be out of date for ever. The
// certificates that it named are kept.
func (i *identity) succession(got fetchedLists, now time.Time) (lists, *revocation.Kept, error) {
	have := i.lists
	if got.complete {
		have = slices.DeleteFunc(slices.Clone(have), func(l signedList) bool {
			return !slices.ContainsFunc(got.lists, l.sameIssuer) && revocation.HalfOver(l.ThisUpdate, l.NextUpdate, now)
		})
	}
	next := merge(have, got.lists).stillVerifiable(i, now)
	kept, err := i.keepRevoked(next, now)
	return next, kept, err
}

// keepRevoked returns the certificates that stay refused, though next, which takes the
// place of the lists of i, does not name them.
func (i *identity) keepRevoked(next lists, now time.Time) (*revocation.Kept, error) {
	if next.equal(i.lists) && i.kept == nil {
		return nil, nil //nolint:nilnil // nil keeps none
	}
	before, err := i.lists.index()
	if err != nil {
		return nil, err
	}
	after, err := next.index()
	if err != nil {
		return nil, err
	}
	return i.kept.Follow(before, after, now)
}

var errNotLists = errors.New("the answer is not the JSON expected")

// eachList reads a [stepapi.RevokedResponse] and calls take for each list. Only one list is
// in memory as text: the whole answer may have [stepapi.MaxRevoked] bytes.
func eachList(r io.Reader, take func(stepapi.RevokedList) error) error {
	dec := json.NewDecoder(r)
	if err := delimiter(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return notLists(err)
		}
		if key != "lists" {
			if err := dec.Decode(new(json.RawMessage)); err != nil {
				return notLists(err)
			}
			continue
		}
		if err := listsOf(dec, take); err != nil {
			return err
		}
	}
	if err := delimiter(dec, '}'); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return notLists(err)
	}
	return nil
}

// listsOf reads the array of lists.
func listsOf(dec *json.Decoder, take func(stepapi.RevokedList) error) error {
	if err := delimiter(dec, '['); err != nil {
		return err
	}
	for dec.More() {
		var l stepapi.RevokedList
		if err := dec.Decode(&l); err != nil {
			return notLists(err)
		}
		if err := take(l); err != nil {
			return err
		}
	}
	return delimiter(dec, ']')
}

// delimiter reads one bracket or brace.
func delimiter(dec *json.Decoder, want json.Delim) error {
	token, err := dec.Token()
	if err != nil || token != want {
		return notLists(err)
	}
	return nil
}

// notLists returns errors of reading as they are. Those of encoding/json quote the answer,
// so errNotLists takes their place.
func notLists(err error) error {
	var network interface{ Timeout() bool }
	if errors.As(err, new(*http.MaxBytesError)) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errNotLists
}

// readList parses one list of an answer and verifies it.
func readList(wire stepapi.RevokedList) (signedList, error) {
	issuer, err := parseAll([]string{wire.Issuer})
	if err != nil {
		return signedList{}, err
	}
	block, rest := pem.Decode([]byte(wire.CRL))
	if block == nil || block.Type != typeCRL || len(bytes.TrimSpace(rest)) > 0 {
		return signedList{}, errors.New("a revoked list is not one PEM block of its kind")
	}
	l, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return signedList{}, fmt.Errorf("parsing a revoked list: %w", err)
	}
	return newSignedList(withoutUnread(l), issuer[0])
}

// revokedInChain returns the first certificate of the own chain that the lists of i or the kept
// entries name, nil if there is none.
func (i *identity) revokedInChain() *x509.Certificate {
	for n, c := range i.chain {
		for _, issuer := range slices.Concat(i.chain[n+1:], i.roots) {
			if bytes.Equal(issuer.RawSubject, c.RawIssuer) && i.refuses(revocation.IssuerOf(issuer), string(c.SerialNumber.Bytes())) {
				return c
			}
		}
	}
	return nil
}

// refuses reports whether the lists of i or the kept entries name a certificate.
func (i *identity) refuses(issuer revocation.Issuer, serial string) bool {
	return i.kept.Names(issuer, serial) || i.lists.hasRevoked(issuer, new(big.Int).SetBytes([]byte(serial)))
}

// checkRevoked returns an error if the lists in effect here revoke the certificate of a
// server, or one of its issuers.
func (s *Source) checkRevoked(chains [][]*x509.Certificate) error {
	i := s.listHolder.Load()
	if i == nil {
		return nil
	}
	c := revocation.Blocking(chains, i.refuses)
	if c == nil {
		return nil
	}
	return fmt.Errorf("certificate %s is revoked", certs.Serial(c))
}
