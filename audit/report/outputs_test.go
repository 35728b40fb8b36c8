package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// hostileText is put into each field that a stranger can choose.
const hostileText = "a\x1b[2J\u202e<b>\"&\xff]]>\n%zz:"

// outputs returns reports that each format must be able to write: with everything, empty,
// and with hostile texts.
func outputs(t *testing.T) map[string]*audittest.Report {
	t.Helper()
	p := certtest.New(t, nil, "x", called(hostileText), certtest.Lives(time.Hour, 900*certtest.Day))
	odd := func(kind string) audittest.Static {
		return audittest.Static{{Kind: kind, Place: hostileText, Cert: certtest.Seen(p.Cert)}, {Kind: kind, Place: hostileText, Err: errors.New(hostileText)}, {Kind: kind, Err: errors.New("")}}
	}
	all := map[string]*audittest.Report{"everything": everything(t), "nothing": audittest.Run(t)}
	for _, kind := range []string{"file", "endpoint", "record", "crl"} {
		all["hostile "+kind] = audittest.Run(t, odd(kind))
	}
	all["post-quantum"] = audittest.Run(t, audittest.Static{{Kind: "file", Place: "pq", Cert: postQuantum(t)}})
	return all
}

func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, one := range []string{"sarif-schema-2.1.0.json", "bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schema.json"} {
		text, err := os.Open(filepath.Join("testdata/schemas", one))
		certtest.Must(t, err)
		doc, err := jsonschema.UnmarshalJSON(text)
		certtest.Must(t, err)
		certtest.Must(t, text.Close())
		certtest.Must(t, c.AddResource("http://cyclonedx.org/schema/"+one, doc))
	}
	s, err := c.Compile("http://cyclonedx.org/schema/" + name)
	certtest.Must(t, err)
	return s
}

func TestSchemas(t *testing.T) {
	for format, name := range map[string]string{"sarif": "sarif-schema-2.1.0.json", "cbom": "bom-1.6.schema.json"} {
		s := schema(t, name)
		if s.Validate(map[string]any{"version": "0"}) == nil {
			t.Fatalf("%s: the schema takes anything", format)
		}
		for what, r := range outputs(t) {
			var b bytes.Buffer
			certtest.Must(t, r.Render(format, &b, 0))
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b.Bytes()))
			certtest.Must(t, err)
			if err := s.Validate(doc); err != nil {
				t.Errorf("%s of %s: %v\n%.3000s", format, what, err, b.String())
			}
			if strings.ContainsAny(b.String(), "\x1b\u202e") {
				t.Errorf("%s of %s: a control character", format, what)
			}
		}
	}
}

// There is no standard of JUnit's XML. These are the elements and attributes that
// servers of continuous integration read, and nothing else may be there.
func TestJUnit(t *testing.T) {
	known := map[string]string{
		"testsuites": "", "testsuite": "name tests failures errors skipped timestamp hostname", "properties": "", "property": "name value",
		"testcase": "classname name time", "failure": "type message", "error": "type message", "system-out": "",
	}
	for what, r := range outputs(t) {
		var b bytes.Buffer
		certtest.Must(t, r.Render("junit", &b, 0))
		counts := map[string]int{}
		dec := xml.NewDecoder(bytes.NewReader(b.Bytes()))
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			certtest.Must(t, err)
			e, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			counts[e.Name.Local]++
			attributes, ok := known[e.Name.Local]
			if !ok {
				t.Errorf("%s: element %s", what, e.Name.Local)
			}
			for _, a := range e.Attr {
				if !strings.Contains(" "+attributes+" ", " "+a.Name.Local+" ") {
					t.Errorf("%s: attribute %s of %s", what, a.Name.Local, e.Name.Local)
				}
			}
		}
		var parsed struct {
			Suite struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
				Errors   int `xml:"errors,attr"`
			} `xml:"testsuite"`
		}
		certtest.Must(t, xml.Unmarshal(b.Bytes(), &parsed))
		if s := parsed.Suite; s.Tests != len(r.Rows) || s.Tests != counts["testcase"] || s.Failures != counts["failure"] || s.Errors != counts["error"] {
			t.Errorf("%s: %+v, counted %v of %d rows", what, s, counts, len(r.Rows))
		}
	}
}

// A result of SARIF names a rule that is there, and one index is of the same rule.
func TestSARIFRules(t *testing.T) {
	var b bytes.Buffer
	certtest.Must(t, everything(t).Render("sarif", &b, 0))
	var doc struct {
		Runs []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Results []struct {
				RuleID    string
				RuleIndex int
			}
		}
	}
	certtest.Must(t, json.Unmarshal(b.Bytes(), &doc))
	run := doc.Runs[0]
	if len(run.Results) < 5 || len(run.Tool.Driver.Rules) != len(audit.Checks())+1 {
		t.Fatalf("%d results, %d rules", len(run.Results), len(run.Tool.Driver.Rules))
	}
	for _, r := range run.Results {
		if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID {
			t.Errorf("%+v", r)
		}
	}
}
