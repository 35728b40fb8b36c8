package main

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// newListWriter prints pages as they come: a record may be larger than the memory.
type listWriter interface {
	page(rows []stepapi.RecordRow) error
	end() error
}

func newListWriter(u *ui.UI, format string, now time.Time) (listWriter, error) {
	switch format {
	case outputJSON:
		return &listJSON{to: u.Out}, nil
	case outputCSV:
		return &listCSV{to: csv.NewWriter(u.Out)}, nil
	case outputTable:
		return &listTable{to: u.NewTable("SERIAL", "SERVICE", "STATE", "ENDS", "LEFT", "KIND", "NAMES"), now: now}, nil
	}
	return nil, ui.UsageErrorf("--%s %q: want %s, %s or %s", flagOutput, printable.Clean(format), outputTable, outputJSON, outputCSV)
}

// listJSON writes one object whatever the number of pages is.
type listJSON struct {
	to   io.Writer
	some bool
}

func (l *listJSON) page(rows []stepapi.RecordRow) error {
	for _, r := range rows {
		text, err := json.MarshalIndent(r, "    ", "  ")
		if err != nil {
			return err
		}
		before := ",\n    "
		if !l.some {
			before, l.some = "{\n  \"schema_version\": 1,\n  \"certificates\": [\n    ", true
		}
		if _, err := io.WriteString(l.to, before+string(text)); err != nil {
			return err
		}
	}
	return nil
}

func (l *listJSON) end() error {
	text := "\n  ]\n}\n"
	if !l.some {
		text = "{\n  \"schema_version\": 1,\n  \"certificates\": []\n}\n"
	}
	_, err := io.WriteString(l.to, text)
	return err
}

type listCSV struct {
	to   *csv.Writer
	head bool
}

func (l *listCSV) page(rows []stepapi.RecordRow) error {
	if !l.head { // Flush keeps the errors of all writes
		l.head = true
		_ = l.to.Write([]string{"serial", "service", "state", "names", "not_before", "not_after", "kind", "caller", "lineage", "issuer"})
	}
	for _, r := range rows {
		_ = l.to.Write([]string{r.Serial, printable.Clean(r.Service), r.State, printable.Clean(strings.Join(r.Names, " ")),
			r.NotBefore.Format(time.RFC3339), r.NotAfter.Format(time.RFC3339), r.Kind, printable.Clean(r.Caller), r.Lineage, r.Issuer})
	}
	return l.end()
}

func (l *listCSV) end() error {
	l.to.Flush()
	return l.to.Error()
}

// listTable aligns each page with those before it.
type listTable struct {
	to  *ui.Table
	now time.Time
}

func (l *listTable) page(rows []stepapi.RecordRow) error {
	for _, r := range rows {
		l.to.Row(r.SerialHex, r.Service, r.State,
			r.NotAfter.Local().Format(time.DateTime), left(r.NotAfter.Sub(l.now)), r.Kind, strings.Join(r.Names, " "))
	}
	return l.end()
}

func (l *listTable) end() error { return l.to.Flush() }
