package main

import (
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// The commands that ask the record: list, show, revoke. They open the state
// directory's database beside a running authority and need no key.

const (
	outputTable = "table"
	outputJSON  = "json"
	outputCSV   = "csv"
)

func outputFlag(formats ...string) cli.Flag {
	return &cli.StringFlag{Name: flagOutput, Aliases: []string{"o"}, Value: formats[0], Usage: strings.Join(formats, ", ")}
}

func listCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list certificates in the record",
		Description: `Prints one page of what was ever issued, latest expiry first. If there is more, the cursor of
the next page goes to stderr.`,
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "service", Usage: "only this `SERVICE`"},
			&cli.StringFlag{Name: "name", Usage: "only certificates with this `NAME` (DNS, IP or URI)"},
			&cli.StringFlag{Name: "state", Usage: "only valid, expired or revoked ones"},
			&cli.StringFlag{Name: "issuer", Usage: "only from the intermediate with this subject key id, in `HEX`"},
			&cli.DurationFlag{Name: "expires-within", Usage: "only those that end within this time; soonest first"},
			&cli.IntFlag{Name: "limit", Value: 100, Usage: "rows per page, 1000 at most"},
			&cli.StringFlag{Name: "cursor", Usage: "continue where the page before ended"},
			outputFlag(outputTable, outputJSON, outputCSV),
		},
		Action: u.runList,
	}
}

func (u *ui) runList(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	now := time.Now()
	query := store.Query{
		Service: c.String("service"), Name: c.String("name"), State: c.String("state"), Issuer: c.String("issuer"),
		Limit: c.Int("limit"), Cursor: c.String("cursor"), Now: now,
	}
	if within := c.Duration("expires-within"); within > 0 {
		query.ExpiresBefore, query.SoonestFirst = now.Add(within), true
	}
	record, err := openRecord(c)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	page, next, err := record.List(c.Context, query)
	if err != nil {
		return err
	}
	if err := u.writePage(c.String(flagOutput), page, now); err != nil {
		return err
	}
	if next != "" {
		u.say("more: --cursor %s", next)
	}
	return nil
}

func openRecord(c *cli.Context) (*ca.Record, error) {
	dir := c.String(flagDir)
	record, err := ca.OpenRecord(c.Context, dir)
	if err != nil {
		return nil, withHint(fmt.Errorf("opening the record in %s: %w", dir, err), "--%s names the state directory of the authority", flagDir)
	}
	return record, nil
}

// row is a certificate as list prints it; the JSON field names are stable.
type row struct {
	Serial    string    `json:"serial"` // decimal
	SerialHex string    `json:"serial_hex"`
	Service   string    `json:"service"`
	State     string    `json:"state"`
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Kind      string    `json:"kind"`
	Caller    string    `json:"caller"`
	Lineage   string    `json:"lineage"`
	Previous  string    `json:"previous,omitempty"`
	Issuer    string    `json:"issuer"`
}

func newRow(cert store.Certificate, now time.Time) row {
	return row{
		Serial: cert.Serial, SerialHex: hexSerial(cert.Serial), Service: cert.Service, State: cert.State(now), Names: cert.Names,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Kind: cert.Kind, Caller: cert.Caller,
		Lineage: cert.Lineage, Previous: cert.Previous, Issuer: cert.Issuer,
	}
}

func (u *ui) writePage(format string, page []store.Certificate, now time.Time) error {
	rows := make([]row, len(page))
	for i, cert := range page {
		rows[i] = newRow(cert, now)
	}
	switch format {
	case outputJSON:
		return u.writeJSON(map[string]any{"schema_version": 1, "certificates": rows})
	case outputCSV:
		return u.writeCSV(rows)
	case outputTable:
		return u.writeTable(rows, now)
	}
	return usagef("--%s %q: want %s, %s or %s", flagOutput, clean(format), outputTable, outputJSON, outputCSV)
}

func (u *ui) writeJSON(v any) error {
	enc := json.NewEncoder(u.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (u *ui) writeCSV(rows []row) error {
	w := csv.NewWriter(u.out)
	_ = w.Write([]string{"serial", "service", "state", "names", "not_before", "not_after", "kind", "caller", "lineage", "issuer"}) // Flush keeps the error
	for _, r := range rows {
		_ = w.Write([]string{r.Serial, clean(r.Service), r.State, clean(strings.Join(r.Names, " ")),
			r.NotBefore.Format(time.RFC3339), r.NotAfter.Format(time.RFC3339), r.Kind, clean(r.Caller), r.Lineage, r.Issuer})
	}
	w.Flush()
	return w.Error()
}

func (u *ui) writeTable(rows []row, now time.Time) error {
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "SERIAL\tSERVICE\tSTATE\tENDS\tLEFT\tHOW\tNAMES") // Flush keeps the error
	for _, r := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.SerialHex, clean(r.Service), r.State,
			r.NotAfter.Local().Format(time.DateTime), left(r.NotAfter.Sub(now)), r.Kind, clean(strings.Join(r.Names, " ")))
	}
	return w.Flush()
}

// left is a remaining time in two units at most.
func left(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func hexSerial(decimal string) string {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		return decimal
	}
	return "0x" + n.Text(16)
}

func showCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:        "show",
		Usage:       "show one certificate of the record",
		ArgsUsage:   "SERIAL",
		Description: `SERIAL is decimal, 0x and hex, or hex with colons. Prints everything the record knows.`,
		Flags:       []cli.Flag{dirFlag(), outputFlag("text", outputJSON, "pem")},
		Action:      u.runShow,
	}
}

func (u *ui) runShow(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	serial, err := store.ParseSerial(c.Args().First())
	if err != nil {
		return &usage{err}
	}
	record, err := openRecord(c)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	cert, err := record.Show(c.Context, serial)
	if err != nil {
		return withHint(err, "artstore-pki list prints the serials")
	}
	return u.writeCertificate(c.String(flagOutput), cert)
}

func (u *ui) writeCertificate(format string, cert store.Certificate) error {
	now := time.Now()
	r := newRow(cert, now)
	switch format {
	case outputJSON:
		return u.writeJSON(map[string]any{"schema_version": 1, "certificate": r, "revocation": cert.Revocation})
	case "pem":
		chain, err := x509.ParseCertificates(slices.Concat(cert.DER, cert.Chain))
		if err != nil {
			return err
		}
		_, err = u.out.Write(pemfile.EncodeCertificates(chain))
		return err
	case "text":
	default:
		return usagef("--%s %q: want text, %s or pem", flagOutput, clean(format), outputJSON)
	}
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"serial", r.Serial + " (" + r.SerialHex + ")"}, {"service", r.Service}, {"state", r.State}, {"names", strings.Join(r.Names, " ")},
		{"valid from", r.NotBefore.Local().Format(time.DateTime)}, {"valid until", r.NotAfter.Local().Format(time.DateTime) + " (" + left(r.NotAfter.Sub(now)) + " left)"},
		{"how", r.Kind + " by " + r.Caller}, {"lineage", r.Lineage}, {"previous", r.Previous}, {"issuer key", r.Issuer}, {"public key", cert.KeyHash},
	} {
		if line[1] != "" {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", line[0], clean(line[1])) // Flush keeps the error
		}
	}
	if rev := cert.Revocation; rev != nil {
		_, _ = fmt.Fprintf(w, "revoked\t%s by %s, %s\n", rev.RevokedAt.Local().Format(time.DateTime), clean(rev.Caller), reasonName(rev.Reason))
	}
	return w.Flush()
}

// reasons are the names of RFC 5280 §5.3.1, by their number; the empty ones are
// not used (7) or not for an operator to give (8, which undoes a hold).
var reasons = [...]string{
	"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
	"cessationOfOperation", "certificateHold", "", "", "privilegeWithdrawn", "aACompromise",
}

func reasonName(code int) string {
	if code < 0 || code >= len(reasons) || reasons[code] == "" {
		return fmt.Sprintf("reason %d", code)
	}
	return reasons[code]
}

func revokeCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "revoke a certificate; its lineage cannot renew any more",
		ArgsUsage: "[SERIAL]",
		Description: `SERIAL is decimal, 0x and hex, or hex with colons; --file takes it from a certificate. A
running authority sees it at once. Reasons are those of RFC 5280: unspecified, keyCompromise,
affiliationChanged, superseded, cessationOfOperation.`,
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "note", Usage: "`TEXT` for the record"},
			&cli.StringFlag{Name: "file", Usage: "revoke the certificate in this `FILE` (PEM)"},
			&cli.StringFlag{Name: "reason", Value: "unspecified", Usage: "why, for the record and the CRL"},
		},
		Action: u.runRevoke,
	}
}

func (u *ui) runRevoke(c *cli.Context) error {
	if err := wantArgs(c, 0, 1); err != nil {
		return err
	}
	serial, err := serialArgument(c)
	if err != nil {
		return err
	}
	reason := slices.Index(reasons[:], c.String("reason"))
	if reason < 0 || c.String("reason") == "" {
		return withHint(usagef("--reason %q is not one of RFC 5280", clean(c.String("reason"))), "see %s --help", helpName(c))
	}
	record, err := openRecord(c)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // the revocation is committed before Revoke returns
	if err := record.Revoke(c.Context, serial, reason, c.String("note")); err != nil {
		return withHint(err, "artstore-pki list prints the serials and states")
	}
	u.say("revoked %s (%s)", hexSerial(serial), c.String("reason"))
	return nil
}

func serialArgument(c *cli.Context) (string, error) {
	file, arg := c.String("file"), c.Args().First()
	if (file == "") == (arg == "") {
		return "", usagef("want either SERIAL or --file")
	}
	if arg != "" {
		serial, err := store.ParseSerial(arg)
		if err != nil {
			return "", &usage{err}
		}
		return serial, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the certificate: %w", err)
	}
	certs, err := pemfile.Certificates(data)
	if err != nil {
		return "", fmt.Errorf("reading the certificate in %s: %w", file, err)
	}
	return certs[0].SerialNumber.String(), nil
}
