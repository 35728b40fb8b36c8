package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestMain lets the program start itself as a lane.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-be" {
		main()
		return
	}
	os.Exit(m.Run()) //nolint:forbidigo // the end of a test binary
}

// TestTables expects each lane in each table. Ghostunnel is there when somebody brings it.
func TestTables(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, []string{"-quick", "-ghostunnel", os.Getenv("GHOSTUNNEL")}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"up through one connection", "down through one connection", "connections with a full handshake"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	for _, lane := range []string{"bare crypto/tls copy", "bare again (control)", "rotation with that copy", "artstore rotation/proxy"} {
		if strings.Count(out.String(), lane) != 3 {
			t.Errorf("%s is not in each table:\n%s", lane, out.String())
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"more"}, {"-nonsense"}, {"-be", "nothing", "-dir", "absent"}} {
		if err := run(t.Context(), &bytes.Buffer{}, args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
