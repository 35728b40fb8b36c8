package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
)

// What list, show and revoke share: they open the database of the state
// directory beside a running authority and need no key.

const (
	outputTable = "table"
	outputJSON  = "json"
	outputCSV   = "csv"
	outputWide  = "wide"
	outputText  = "text"
	outputPEM   = "pem"
)

func outputFlag(formats ...string) cli.Flag {
	return &cli.StringFlag{Name: flagOutput, Aliases: []string{"o"}, Value: formats[0], Usage: strings.Join(formats, ", ")}
}

// openRecord opens the record in dir, which flag named.
func openRecord(ctx context.Context, dir, flag string) (*ca.Record, error) {
	record, err := ca.OpenRecord(ctx, dir)
	if err != nil {
		err = fmt.Errorf("opening the record in %s: %w", dir, err)
		if _, config := os.Stat(filepath.Join(dir, "pki.yaml")); config == nil {
			return nil, hintStateDir(err, dir, hintDoctor)
		}
		return nil, withHint(err, "--%s names the state directory of the authority", flag)
	}
	return record, nil
}

// left is a remaining time in two units at most.
func left(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
