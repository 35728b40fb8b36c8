package webpage_test

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/webpage"
)

func TestCSVCell(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"ingester":          "ingester",
		"=HYPERLINK(1)":     "'=HYPERLINK(1)",
		"+1":                "'+1",
		"-1":                "'-1",
		"@SUM(1)":           "'@SUM(1)",
		"\t=1":              "'\t=1",
		"a\r\n=1":           `a\u000d\u000a=1`,
		"\u202egpj.exe":     `\u202egpj.exe`,
		"caf\xe9":           `caf\ufffd`,
		"a,\"b\"=1":         "a,\"b\"=1",
		"\x1b]0;title\x07x": `\u001b]0;title\u0007x`,
	} {
		if got := webpage.CSVCell(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// TestHashSource has a value that browsers have computed.
func TestHashSource(t *testing.T) {
	if got := webpage.HashSource(""); got != "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='" {
		t.Error(got)
	}
}

// TestBaseStyle expects that the style loads nothing and has both schemes.
func TestBaseStyle(t *testing.T) {
	for _, forbidden := range []string{"url(", "@import", "http", "</"} {
		if strings.Contains(webpage.BaseStyle, forbidden) {
			t.Errorf("the style has %q", forbidden)
		}
	}
	if !strings.Contains(webpage.BaseStyle, "prefers-color-scheme: dark") {
		t.Error("the style has no colours for the dark")
	}
}

// TestContrast expects that letters are readable in both schemes: WCAG 2.2 success criterion 1.4.3.
func TestContrast(t *testing.T) {
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(webpage.BaseStyle, -1)
	for i, scheme := range []string{"light", "dark"} {
		luminance := map[string]float64{}
		for _, m := range regexp.MustCompile(`--(\w+): #(\w\w)(\w\w)(\w\w);`).FindAllStringSubmatch(blocks[i][1], -1) {
			for c, weight := range []float64{0.2126, 0.7152, 0.0722} {
				n, err := strconv.ParseUint(m[2+c], 16, 8)
				if err != nil {
					t.Fatal(err)
				}
				part := float64(n) / 255 / 12.92
				if n > 10 {
					part = math.Pow((float64(n)/255+0.055)/1.055, 2.4)
				}
				luminance[m[1]] += weight * part
			}
		}
		for _, letters := range []string{"text", "muted", "crit", "warn", "unchecked", "ok", "info"} {
			for _, ground := range []string{"bg", "panel"} {
				a, b := luminance[letters], luminance[ground]
				if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
					t.Errorf("%s: %s on %s: %s", scheme, letters, ground, fmt.Sprintf("%.2f", ratio))
				}
			}
		}
	}
}
