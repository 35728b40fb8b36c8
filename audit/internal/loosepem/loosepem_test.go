package loosepem_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/loosepem"
)

var block = &pem.Block{Type: "CERTIFICATE", Bytes: bytes.Repeat([]byte{0xfb, 0xef, 1, 0xff}, 75)}

func shown(text string) (out string) {
	found, damaged := loosepem.Find([]byte(text))
	for _, b := range found {
		out += fmt.Sprintf("%s %d headers, flaw %q, indented %t; ", b.Type, len(b.Headers), b.Flaw, b.Indented)
		if !bytes.Equal(b.Bytes, block.Bytes) {
			out += "other bytes; "
		}
	}
	return fmt.Sprintf("%s%d damaged", out, damaged)
}

func TestFind(t *testing.T) {
	one := string(pem.EncodeToMemory(block))
	asJSON, err := json.Marshal(map[string]string{"cert": one})
	if err != nil {
		t.Fatal(err)
	}
	twice, err := json.Marshal(string(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	locked := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "x"}, Bytes: block.Bytes}))
	joined := strings.TrimSuffix(one, "\n")
	const whole = `CERTIFICATE 0 headers, flaw "", indented false; 0 damaged`
	const shared = `CERTIFICATE 0 headers, flaw "it shares a line with another block", indented false; `
	for name, c := range map[string]struct{ text, want string }{
		"nothing":      {"", "0 damaged"},
		"as it is":     {one, whole},
		"JSON":         {string(asJSON), whole},
		"JSON in JSON": {string(twice), whole},
		"PHP":          {strings.ReplaceAll(string(asJSON), "/", `\/`), whole},
		".NET":         {strings.NewReplacer("+", `\u002B`, "=", `\u003D`, "/", `\u002F`).Replace(string(asJSON)), whole},
		"quoted":       {`CERT="` + joined + `"`, whole},
		"string of C":  {`"` + strings.ReplaceAll(joined, "\n", "\\n\"\n\"") + `\n";`, whole},
		"indented":     {"ca: |\n  " + strings.ReplaceAll(joined, "\n", "\n  "), `CERTIFICATE 0 headers, flaw "", indented true; 0 damaged`},
		"headers":      {`{"key":` + strings.ReplaceAll(fmt.Sprintf("%q", locked), `\t`, "") + "}", `EC PRIVATE KEY 2 headers, flaw "", indented false; 0 damaged`},
		"joined":       {joined + joined + joined, shared + shared + shared + "0 damaged"},
		"one line":     {strings.ReplaceAll(joined, "\n", " "), `CERTIFICATE 0 headers, flaw "it has lost its line breaks", indented false; 0 damaged`},
		"cut":          {one[:200] + one + one[:200], strings.Replace(whole, "0 damaged", "2 damaged", 1)},
		"garbled":      {strings.Replace(one, "++", "!?", 1), "1 damaged"},
		"other end":    {strings.Replace(one, "END CERTIFICATE", "END KEY", 1), "1 damaged"},
		"markers":      {strings.Repeat("-----BEGIN ", 3), "3 damaged"},
	} {
		if got := shown(c.text); got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
}

// Contract: what encoding/pem finds in a text is found here; the bytes come out as many as fit into it.
func FuzzFind(f *testing.F) {
	one := string(pem.EncodeToMemory(block))
	f.Add([]byte(one))
	f.Add([]byte(strings.ReplaceAll(one, "\n", `\n`)))
	f.Add([]byte(one[:len(one)-1] + one))
	f.Add([]byte("-----BEGIN A-----\nB: c\n\nAA==\n-----END A-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, damaged := loosepem.Find(data)
		if n := bytes.Count(data, []byte("-----BEGIN ")); len(found)+damaged != n {
			t.Errorf("%d found and %d damaged of %d", len(found), damaged, n)
		}
		total := 0
		for _, b := range found {
			total += len(b.Bytes)
		}
		if total > len(data) {
			t.Errorf("%d bytes out of %d", total, len(data))
		}
	})
}
