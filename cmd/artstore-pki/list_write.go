package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/printable"
)

// listWriter prints pages as they come: a record may be larger than the memory.
type listWriter interface {
	page(rows []ca.Row) error
	end() error
}

func (u *ui) listWriter(format string, now time.Time) (listWriter, error) {
	switch format {
	case outputJSON:
		return &listJSON{to: u.out}, nil
	case outputCSV:
		return &listCSV{to: csv.NewWriter(u.out)}, nil
	case outputTable:
		return &listTable{to: tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0), now: now}, nil
	}
	return nil, usagef("--%s %q: want %s, %s or %s", flagOutput, printable.Clean(format), outputTable, outputJSON, outputCSV)
}

func (u *ui) writeJSON(v any) error {
	enc := json.NewEncoder(u.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// listJSON writes one object whatever the number of pages is.
type listJSON struct {
	to   io.Writer
	some bool
}

func (l *listJSON) page(rows []ca.Row) error {
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

func (l *listCSV) page(rows []ca.Row) error {
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

// listTable aligns each page by itself.
type listTable struct {
	to   *tabwriter.Writer
	now  time.Time
	head bool
}

func (l *listTable) page(rows []ca.Row) error {
	if !l.head {
		l.head = true
		_, _ = fmt.Fprintln(l.to, "SERIAL\tSERVICE\tSTATE\tENDS\tLEFT\tHOW\tNAMES") // Flush keeps the error
	}
	for _, r := range rows {
		_, _ = fmt.Fprintf(l.to, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.SerialHex, printable.Clean(r.Service), r.State,
			r.NotAfter.Local().Format(time.DateTime), left(r.NotAfter.Sub(l.now)), r.Kind, printable.Clean(strings.Join(r.Names, " ")))
	}
	return l.end()
}

func (l *listTable) end() error { return l.to.Flush() }
