// Package monitoring has no code: it tests the rules and the board beside it.
package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// required is set by the stage monitoring of .ci/run, which installs what these tests need and is the only one
// that starts a house and a Prometheus: that takes a minute or two.
var required = os.Getenv("ARTSTORE_MONITORING") == "required"

// house returns the path of Prometheus, for tests that start a house.
func house(t *testing.T) string {
	t.Helper()
	if !required {
		t.Skip("starts a house of many processes: bash .ci/run monitoring")
	}
	return program(t, "prometheus")
}

// program returns the path of a program of Debian's package prometheus.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if required {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// ruleFile is what these tests read of rules.yaml.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert       string
			Expr        string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
}

func rules(t *testing.T) (out ruleFile) {
	t.Helper()
	text, err := os.ReadFile("rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Each alert links to a section about itself, has a severity, and is tried by promtool; each section is of
// an alert that exists.
func TestEachAlertIsExplained(t *testing.T) {
	guide, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	tried, err := os.ReadFile("rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, group := range rules(t).Groups {
		for _, rule := range group.Rules {
			alerts = append(alerts, rule.Alert)
			if want := "https://github.com/artstore/artstore-pki/blob/main/docs/monitoring.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
				t.Errorf("%s links to %q, want %q", rule.Alert, rule.Annotations["runbook_url"], want)
			}
			if rule.Annotations["summary"] == "" || !slices.Contains([]string{"critical", "warning"}, rule.Labels["severity"]) {
				t.Errorf("%s: summary %q, severity %q", rule.Alert, rule.Annotations["summary"], rule.Labels["severity"])
			}
			if !strings.Contains(string(guide), "\n### "+rule.Alert+"\n") {
				t.Errorf("docs/monitoring.md does not explain %s", rule.Alert)
			}
			if !regexp.MustCompile(`\b` + rule.Alert + `\b`).Match(tried) {
				t.Errorf("rules_test.yaml does not try %s", rule.Alert)
			}
		}
	}
	for _, section := range regexp.MustCompile(`(?m)^### (Artstore.*)$`).FindAllStringSubmatch(string(guide), -1) {
		if !slices.Contains(alerts, section[1]) {
			t.Errorf("docs/monitoring.md explains %s, which no rule has", section[1])
		}
	}
}

// Prometheus' own tool takes the rules, and they do what rules_test.yaml says.
func TestPromtool(t *testing.T) {
	promtool := program(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// panel is what these tests read of a panel of the board.
type panel struct {
	Type, Title string
	Targets     []struct{ Expr string }
}

// panels returns the panels of the board, without the rows that divide it.
func panels(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct{ Panels []panel }
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(board.Panels, func(p panel) bool { return p.Type == "row" })
}
