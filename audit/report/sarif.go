package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/printable"
)

// sarifRenderer writes the Static Analysis Results Interchange Format (SARIF 2.1.0, OASIS):
// a rule for each check, and a result for each finding and each place that could not be
// read. Rows without findings are not in it. It keeps nothing: the types below are the
// objects of SARIF, and results are written as they come.
type sarifRenderer struct {
	w       *bufio.Writer
	program string
	results int
	checks  []audit.Finding
}

func newSARIF(out io.Writer, to Terminal) audit.Renderer {
	return &sarifRenderer{w: bufio.NewWriter(out), program: to.Program, checks: audit.Checks()}
}

const (
	sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	sarifUnread = "not-read" // the rule for places that could not be read
)

type sarifText struct {
	Text string `json:"text"`
}

type sarifLevel struct {
	Level string `json:"level"`
}

type sarifRule struct {
	ID      string     `json:"id"`
	Short   sarifText  `json:"shortDescription"`
	Help    sarifText  `json:"help"`
	Default sarifLevel `json:"defaultConfiguration"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
}

type sarifLogical struct {
	Name string `json:"fullyQualifiedName"`
	Kind string `json:"kind"`
}

type sarifLocation struct {
	Physical *sarifPhysical `json:"physicalLocation,omitempty"`
	Logical  []sarifLogical `json:"logicalLocations"`
}

type sarifResult struct {
	Rule         string            `json:"ruleId"`
	Index        int               `json:"ruleIndex"`
	Level        string            `json:"level"`
	Message      sarifText         `json:"message"`
	Locations    []sarifLocation   `json:"locations"`
	Fingerprints map[string]string `json:"partialFingerprints,omitempty"`
}

type sarifInvocation struct {
	Successful bool           `json:"executionSuccessful"`
	End        string         `json:"endTimeUtc"`
	Machine    string         `json:"machine,omitempty"`
	Arguments  []string       `json:"arguments,omitempty"`
	Properties map[string]any `json:"properties"`
}

// sarifLevels are by severity (SARIF 2.1.0 §3.27.10).
var sarifLevels = [...]string{"none", "note", "warning", "error"}

// sarifRules returns a rule for each check, and one for places that could not be read.
func sarifRules() (rules []sarifRule) {
	for _, c := range audit.Checks() {
		rules = append(rules, sarifRule{
			c.Check, sarifText{strings.ReplaceAll(c.Check, "-", " ")}, sarifText{c.Remedy + " (" + c.Cites + ")"}, sarifLevel{sarifLevels[c.Severity]},
		})
	}
	return append(rules, sarifRule{
		sarifUnread, sarifText{"it could not be read, or not in full"}, sarifText{"what is behind it was not judged: make it readable, or leave it out on purpose"}, sarifLevel{"error"},
	})
}

// put writes a value as JSON, with the text that stands before it. The error of the writer
// is that of Flush.
func (s *sarifRenderer) put(before string, value any) error {
	text, err := json.Marshal(value)
	_, _ = s.w.WriteString(before)
	_, _ = s.w.Write(plainJSON(text))
	return err
}

// head writes the beginning of the document, up to the results. It is called with the first
// result, or at the end if there is none.
func (s *sarifRenderer) head() error {
	name, version := nameAndVersion(s.program)
	driver := map[string]sarifDriver{"driver": {name, version, sarifRules()}}
	if err := s.put(fmt.Sprintf("{\"$schema\":%q,\"version\":\"2.1.0\",\"runs\":[{\"tool\":", sarifSchema), driver); err != nil {
		return err
	}
	_, err := s.w.WriteString(",\"results\":[")
	return err
}

// Row implements [audit.Renderer].
func (s *sarifRenderer) Row(r *audit.Row) error {
	if r.Err != nil {
		if err := s.result(r, audit.Finding{Check: sarifUnread, Severity: audit.Crit, Text: r.Err.Error()}); err != nil {
			return err
		}
	}
	for _, f := range r.Findings {
		if err := s.result(r, f); err != nil {
			return err
		}
	}
	return nil
}

// result writes one result. Its fingerprint is that of the certificate, by which servers
// tell whether they have seen the result before, also in another place.
func (s *sarifRenderer) result(r *audit.Row, f audit.Finding) error {
	before := ",\n"
	if s.results == 0 {
		if err := s.head(); err != nil {
			return err
		}
		before = "\n"
	}
	s.results++
	out := sarifResult{
		Rule: f.Check, Level: sarifLevels[f.Severity], Message: sarifText{printable.Shorten(f.Text, maxPhrase)}, Locations: []sarifLocation{sarifLocationOf(r)},
		// The rule for places that could not be read follows those of the checks.
		Index: len(s.checks),
	}
	if at := slices.IndexFunc(s.checks, func(c audit.Finding) bool { return c.Check == f.Check }); at >= 0 {
		out.Index = at
	}
	if c := r.Cert; c != nil {
		out.Message.Text = printable.Shorten(c.Name, maxName) + ": " + out.Message.Text
		out.Fingerprints = map[string]string{"certificateSha256/v1": c.HexFingerprint()}
	}
	return s.put(before, out)
}

// sarifLocationOf returns where a row was found: as a name always, and as a URI where there
// is one. A certificate in a database has none.
func sarifLocationOf(r *audit.Row) sarifLocation {
	place, more := placeOf(r, false)
	out := sarifLocation{Logical: []sarifLogical{{place + more, r.Kind}}}
	address := url.URL{Path: shortenPlace(r.Place)}
	switch {
	case r.InRecord():
		return out // a place in a database has no address
	case r.Kind == audit.KindEndpoint:
		scheme, host, named := strings.Cut(r.Place, "://")
		if !named {
			scheme, host = "tls", r.Place
		}
		address = url.URL{Scheme: scheme, Host: shortenPlace(host)}
	default:
		if strings.HasPrefix(r.Place, "/") {
			address.Scheme = "file"
		}
	}
	text := address.String()
	if _, err := url.Parse(text); err == nil && text != "" { // a malformed address has a name only
		out.Physical = &sarifPhysical{sarifArtifact{text}}
	}
	return out
}

// End implements [audit.Renderer].
func (s *sarifRenderer) End(sum *audit.Summary) error {
	if s.results == 0 {
		if err := s.head(); err != nil {
			return err
		}
	}
	err := s.put("\n],\"invocations\":", []sarifInvocation{{
		Successful: sum.Complete, End: sum.ReportTime().UTC().Format("2006-01-02T15:04:05Z"), Machine: sum.About.Host, Arguments: sum.About.Command,
		Properties: map[string]any{"judgedAt": jsonTime(sum.Now), "forecast": sum.Forecast(), "summary": sum.String()},
	}})
	if err != nil {
		return err
	}
	_, _ = s.w.WriteString("}]}\n")
	return s.w.Flush()
}
