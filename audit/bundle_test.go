package audit_test

import (
	"bytes"
	"fmt"
	"maps"
	"testing"
)

// A bundle whose leaves are put off has the rows of the same certificates in small
// files: what is damaged stands between them, and the authorities in it serve all.
func TestLargeBundle(t *testing.T) {
	root, intermediate, leaf := hierarchy(t, odd)
	stranger := newPair(t, newPair(t, nil, "Other", authority), "stranger")
	const leaves = 2000
	var bundle bytes.Buffer
	for range leaves {
		bundle.Write(encode(leaf))
	}
	bundle.Write(encode(stranger))
	bundle.WriteString("a line between\n")
	bundle.Write(pemBlock("CERTIFICATE", negative(t, leaf)))
	bundle.Write(pemBlock("CERTIFICATE", bytes.Repeat([]byte{0}, 600)))
	bundle.Write(encode(intermediate))
	bundle.Write(leaf.keyPEM(t))
	if bundle.Len() < 1<<20 {
		t.Fatalf("%d bytes are no large file", bundle.Len())
	}
	dir := write(t, map[string][]byte{"a/bundle.pem": bundle.Bytes(), "a/ca.crt": encode(root)})
	r := run(t, paths(dir))
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

// A large file with one leaf is a chain like a small one, and its order is judged.
func TestLargeChain(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	padding := bytes.Repeat([]byte("#\n"), 1<<20)
	dir := write(t, map[string][]byte{
		"ca.crt": encode(root), "fine.pem": append(encode(leaf, intermediate), padding...), "swapped.pem": append(encode(intermediate, leaf), padding...),
		"two.pem": append(encode(intermediate, leaf, newPair(t, intermediate, "other")), padding...),
	})
	got := states(t, run(t, paths(dir)), dir)
	want(t, got, map[string]string{
		"ca.crt": "OK", "fine.pem": "OK", "fine.pem#2": "OK", // the intermediate is one row, at its first place
		"swapped.pem#2": "WARN chain-order", "two.pem#2": "OK", "two.pem#3": "OK",
	})
}
