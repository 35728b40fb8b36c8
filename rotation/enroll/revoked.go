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

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// answered are the lists that an authority serves.
type answered struct {
	lists    lists
	tag      string // of the answer; lists are nil if it is the one that was asked with
	complete bool   // lists are all that it serves
}

// revoked fetches the lists, over a connection verified by roots. Those of
// issuers that do not end at one of them are left out: their certificates are
// refused anyway. One list that does not verify spoils the answer.
func (s *Source) revoked(ctx context.Context, roots []*x509.Certificate, tag string) (answered, error) {
	const doing = "fetching the revoked lists"
	c, err := s.dialer().client(s.cfg.URL, roots, nil)
	if err != nil {
		return answered{}, err
	}
	defer c.Close()
	got, foreign := answered{complete: true}, false
	take := func(wire stepapi.RevokedList) error {
		l, err := readList(wire)
		if err != nil {
			return err
		}
		if !chains(l.issuer, roots) {
			foreign = true
			return nil
		}
		got.lists = merge(got.lists, lists{l})
		return nil
	}
	in := call{doing: doing, path: stepapi.PathRevoked, tag: tag, limit: stepapi.MaxRevoked}
	in.read = func(r io.Reader) error { return eachList(r, take) }
	r, err := c.exchange(ctx, in)
	if err != nil || r.status == http.StatusNotModified {
		return answered{tag: tag}, err
	}
	if !foreign { // else they are to be asked for again, when there are other roots
		got.tag = r.header.Get("ETag")
	}
	return got, nil
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
	l, err := parseList(block.Bytes)
	if err != nil {
		return signedList{}, fmt.Errorf("parsing a revoked list: %w", err)
	}
	return newSignedList(l, issuer[0])
}

// refuses is what the lists held here say about a server.
func (s *Source) refuses(chains [][]*x509.Certificate) error {
	i := s.held.Load()
	if i == nil {
		return nil
	}
	c := revocation.Blocking(chains, func(issuer revocation.Issuer, serial string) bool {
		return i.kept.Names(issuer, serial) || i.lists.names(issuer, new(big.Int).SetBytes([]byte(serial)))
	})
	if c == nil {
		return nil
	}
	return fmt.Errorf("certificate %s is revoked", pemfile.Serial(c))
}
