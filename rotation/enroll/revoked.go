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
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// fetchedLists are the lists that an authority serves.
type fetchedLists struct {
	lists    lists
	tag      string // of the answer; lists are nil if it is the one that was asked with
	complete bool   // lists are all that it serves
}

// fetchLists fetches the lists, over a connection verified by roots. Those of
// issuers that do not end at one of them are left out: their certificates are
// refused anyway. One list that does not verify spoils the answer.
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
	if !foreign { // else they are to be asked for again, when there are other roots
		got.tag = r.header.Get("ETag")
	}
	return got, nil
}

// succession is what got makes of the lists of i, and what is kept beside them.
//
// The authority leaves out the list of an issuer when that one's last certificate
// has ended. A list that it left out and that is past the middle of its validity, by
// which the authority replaces those it serves, is dropped: it would be out of date
// for good. What it named is kept.
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

// keepRevoked returns what stays refused when next takes the place of the lists of i.
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

// eachList reads a [stepapi.RevokedResponse] list by list: the text of one is in
// memory at a time, and not the answer, which may be [stepapi.MaxRevoked] long.
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

func delimiter(dec *json.Decoder, want json.Delim) error {
	token, err := dec.Token()
	if err != nil || token != want {
		return notLists(err)
	}
	return nil
}

// notLists keeps errors of reading; those of encoding/json would quote the answer.
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

// checkRevoked is what the lists held here say about a server.
func (s *Source) checkRevoked(chains [][]*x509.Certificate) error {
	i := s.listHolder.Load()
	if i == nil {
		return nil
	}
	c := revocation.Blocking(chains, func(issuer revocation.Issuer, serial string) bool {
		return i.kept.Names(issuer, serial) || i.lists.hasRevoked(issuer, new(big.Int).SetBytes([]byte(serial)))
	})
	if c == nil {
		return nil
	}
	return fmt.Errorf("certificate %s is revoked", certs.Serial(c))
}
