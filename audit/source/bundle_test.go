package source_test

import (
	"bytes"
	"fmt"
	"maps"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// A large bundle, whose leaves are parsed later, has the rows of the same certificates in small
// files. Damaged parts are rows between them, and its authorities are used for all leaves.
func TestLargeBundle(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t, certtest.OddSerial)
	stranger := certtest.New(t, certtest.New(t, nil, "Other", certtest.Authority), "stranger")
	const leaves = 2000
	var bundle bytes.Buffer
	for range leaves {
		bundle.Write(certtest.Encode(leaf))
	}
	bundle.Write(certtest.Encode(stranger))
	bundle.WriteString("a line between\n")
	bundle.Write(certtest.Block("CERTIFICATE", certtest.NegativeSerial(t, leaf)))
	bundle.Write(certtest.Block("CERTIFICATE", bytes.Repeat([]byte{0}, 600)))
	bundle.Write(certtest.Encode(intermediate))
	bundle.Write(leaf.KeyPEM(t))
	if bundle.Len() < 1<<20 {
		t.Fatalf("%d bytes are no large file", bundle.Len())
	}
	dir := certtest.Write(t, map[string][]byte{"a/bundle.pem": bundle.Bytes(), "a/ca.crt": certtest.Encode(root)})
	r := audittest.Run(t, audittest.Paths(dir))
	count := map[string]int{}
	for _, row := range r.Rows {
		text := fmt.Sprint(row.State, " ", row.Key != nil && row.Key.Fits, row.Err != nil)
		for _, f := range row.Findings {
			text += " " + f.Check
		}
		count[text]++
	}
	want := map[string]int{
		"OK true false": leaves, "OK false false": 2, "ERROR false true": 2,
		"CRIT false false key-mismatch chain-incomplete": 1,
	}
	if !maps.Equal(count, want) {
		t.Errorf("got %v, want %v", count, want)
	}
}

// The order of a chain is judged in a large file too.
func TestLargeChain(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	padding := bytes.Repeat([]byte("#\n"), 1<<20)
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt": certtest.Encode(root), "fine.pem": append(certtest.Encode(leaf, intermediate), padding...), "swapped.pem": append(certtest.Encode(intermediate, leaf), padding...),
		"two.pem": append(certtest.Encode(intermediate, leaf, certtest.New(t, intermediate, "other")), padding...),
	})
	got := audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir)
	audittest.Want(t, got, map[string]string{
		"ca.crt": "OK", "fine.pem": "OK", "fine.pem#2": "OK", // the intermediate is one row, at its first place
		"swapped.pem#2": "WARN chain-order", "two.pem#2": "OK", "two.pem#3": "OK",
	})
}
