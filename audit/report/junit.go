package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/printable"
)

// junitRenderer writes the XML that servers of continuous integration read as results of
// tests. Each row is a test case. It fails if it has a critical finding, and is an error
// if it could not be read; milder findings are its output. The counts stand before the
// cases, so it keeps the cases until the end.
type junitRenderer struct {
	out   io.Writer
	suite junitSuite
}

// junitSuites is the root element. There is no standard; these are the elements that Jenkins,
// GitLab and GitHub agree on.
type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Timestamp  string          `xml:"timestamp,attr"`
	Hostname   string          `xml:"hostname,attr,omitempty"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Class   string       `xml:"classname,attr"`
	Name    string       `xml:"name,attr"`
	Time    string       `xml:"time,attr"`
	Failure *junitResult `xml:"failure"`
	Error   *junitResult `xml:"error"`
	Output  string       `xml:"system-out,omitempty"`
}

type junitResult struct {
	Type    string `xml:"type,attr"`
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func newJUnit(out io.Writer, to Terminal) audit.Renderer {
	return &junitRenderer{out: out, suite: junitSuite{Name: "artstore-pki audit", Properties: []junitProperty{{"program", to.Program}}}}
}

// Row implements [audit.Renderer].
func (j *junitRenderer) Row(r *audit.Row) error {
	place, more := placeOf(r, false)
	one := junitCase{Class: "audit." + r.Kind, Name: place + more, Time: "0"}
	if r.Cert != nil {
		one.Name = printable.Cell(printable.Shorten(r.Cert.Name, maxName)) + " in " + one.Name
	}
	var fatal, mild []string
	first := ""
	for _, f := range r.Findings {
		line := printable.Cell(fmt.Sprintf("%s: %s; %s (%s)", f.Check, printable.Shorten(f.Text, maxPhrase), f.Remedy, f.Cites))
		if f.Severity < audit.Crit {
			mild = append(mild, f.Severity.String()+": "+line)
			continue
		}
		if len(fatal) == 0 {
			first = f.Check
		}
		fatal = append(fatal, line)
	}
	if len(fatal) > 0 {
		j.suite.Failures++
		one.Failure = &junitResult{first, fatal[0], strings.Join(fatal, "\n")}
	}
	if r.Err != nil {
		text := printable.Cell(printable.Shorten(r.Err.Error(), maxPhrase))
		if one.Failure == nil {
			j.suite.Errors++
			one.Error = &junitResult{sarifUnread, text, text}
		} else { // a case has one outcome
			mild = append(mild, text)
		}
	}
	one.Output = strings.Join(mild, "\n")
	j.suite.Cases = append(j.suite.Cases, one)
	return nil
}

// End implements [audit.Renderer].
func (j *junitRenderer) End(s *audit.Summary) error {
	if !s.Complete {
		j.suite.Errors++
		j.suite.Cases = append(j.suite.Cases, junitCase{Class: "audit", Name: "complete", Time: "0", Error: &junitResult{"interrupted", interrupted, interrupted}})
	}
	j.suite.Tests = len(j.suite.Cases)
	j.suite.Timestamp, j.suite.Hostname = s.ReportTime().UTC().Format("2006-01-02T15:04:05"), printable.Cell(s.About.Host)
	j.suite.Properties = append(j.suite.Properties, junitProperty{"command", printable.Cell(strings.Join(s.About.Command, " "))},
		junitProperty{"judged_at", s.Now.UTC().Format("2006-01-02T15:04:05Z")}, junitProperty{"forecast", fmt.Sprint(s.Forecast())}, junitProperty{"summary", printable.Cell(s.String())})
	if _, err := io.WriteString(j.out, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(j.out)
	enc.Indent("", " ")
	if err := enc.Encode(junitSuites{Suites: []junitSuite{j.suite}}); err != nil {
		return err
	}
	_, err := io.WriteString(j.out, "\n")
	return err
}
