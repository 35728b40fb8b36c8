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
	for _, want := range []string{"up through one connection", "down through one connection", "connections with a full handshake and a byte", "up in one request", "down in one answer", "connections with a full handshake and a request", "requests over HTTP/1.1", "requests over HTTP/2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	for lane, times := range map[string]int{
		"bare crypto/tls copy": 3, "bare again (control)": 3, "rotation with that copy": 3, "artstore rotation/proxy": 8,
		"ReverseProxy, crypto/tls": 5, "the same again (control)": 5, "rotation, ReverseProxy": 5,
	} {
		if strings.Count(out.String(), lane) != times {
			t.Errorf("%s is not in each of its %d tables:\n%s", lane, times, out.String())
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
