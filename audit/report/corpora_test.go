package report_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

const corpora = "../../../shared/corpora"

// Each certificate of the test suites of other projects is a row. These suites are not in
// this repository.
func TestCorpora(t *testing.T) {
	if _, err := os.Stat(corpora); errors.Is(err, fs.ErrNotExist) {
		t.Skip("the test suites of others are not part of this repository; this runs where they lie in " + corpora)
	}
	parsed, inPart, refused := 0, 0, 0
	count := func(data []byte) {
		for _, p := range audittest.Parts(data) {
			switch {
			case p.Cert != nil && p.Err == nil:
				parsed++
			case p.Cert != nil:
				inPart++
			case p.Err != nil:
				refused++
			}
		}
	}
	certtest.Must(t, filepath.WalkDir(corpora, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		certtest.Must(t, err)
		if strings.HasSuffix(path, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(data))
			certtest.Must(t, err)
			var all any
			certtest.Must(t, json.NewDecoder(z).Decode(&all))
			eachPEM(all, count)
			return nil
		}
		count(data)
		return nil
	}))
	t.Logf("%d parse, %d are read in part, %d not at all", parsed, inPart, refused)
	if parsed == 0 || inPart == 0 {
		t.Error("nothing was read")
	}
	r := audittest.Run(t, audittest.Paths(corpora))
	for _, write := range []func(io.Writer) error{
		func(w io.Writer) error { return r.WriteTable(w, 80) }, r.Explain, r.WriteJSON, r.WriteNDJSON, r.WriteCSV,
	} {
		certtest.Must(t, write(io.Discard))
	}
	if series := audittest.Metrics(t, r); len(series) < len(r.Rows) {
		t.Errorf("%d series for %d rows", len(series), len(r.Rows))
	}
	t.Log(r.String())
}

// eachPEM visits the PEM strings of decoded JSON.
func eachPEM(v any, visit func([]byte)) {
	switch v := v.(type) {
	case string:
		if block, _ := pem.Decode([]byte(v)); block != nil {
			visit([]byte(v))
		}
	case []any:
		for _, one := range v {
			eachPEM(one, visit)
		}
	case map[string]any:
		for _, one := range v {
			eachPEM(one, visit)
		}
	}
}
