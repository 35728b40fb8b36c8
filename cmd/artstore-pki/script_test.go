package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/internal/fattest"
	"github.com/artstore/artstore-pki/internal/porttest"
	"github.com/artstore/artstore-pki/internal/waittest"
)

// TestMain makes this test binary answer as artstore-pki for the scripts.
func TestMain(m *testing.M) {
	cli.HelpFlag, cli.VersionFlag = perRun{cli.HelpFlag.(*cli.BoolFlag)}, perRun{cli.VersionFlag.(*cli.BoolFlag)}
	testscript.Main(waittest.Main{M: m}, map[string]func(){"artstore-pki": scriptProgram(func() {}), measuredProgram: scriptProgram(reportPeak)})
}

// scriptProgram is main, and something after it.
func scriptProgram(after func()) func() {
	return func() {
		code := realMain()
		after()
		os.Exit(code) //nolint:forbidigo // this is the main of the scripts' program
	}
}

// scriptWait bounds how long a script waits for a service to answer.
const scriptWait = 2 * time.Minute

// scriptT is the key of a script's T among its values: for commands that skip.
type scriptT struct{}

// TestScript runs testdata/script: one behaviour each, against the real program.
// Which of them run under -race and -short is said in script_plan_test.go.
// Beyond testscript's own commands they have:
//
//	readyfile VAR FILE    wait for a ready file of a service and put its URL into $VAR
//	busyport VAR          listen on a free port for the rest of the script, put its address into $VAR
//	freeport VAR          put a loopback address that was free a moment ago into $VAR
//	healthy HOST:PORT     wait until the listener there answers /readyz with 200
//	mode FILE 0600        fail unless FILE has these permissions
//	file2env VAR FILE     put the trimmed content of FILE into $VAR
//	eventually RE PROGRAM run the program again and again until its output matches
//	jsonlines FILE        fail unless FILE (or stdout, stderr) has a line, and each is a JSON object
//	status N PROGRAM ...  fail unless the program ends with exit status N
//	fat VAR FAT           mount an empty file system of that kind (FAT, exFAT), put its path into $VAR; skip without
//	asksocket FILE SOCKET REQUEST [FORM]   send "GET /path" or "POST /path" over a Unix socket, put status and body into FILE
//	expire DIR FILE       sign the token in FILE anew, with DIR's enrolment key and times that are over
func TestScript(t *testing.T) {
	t.Parallel() // with the other long ones, most of which wait
	all := readScripts(t)
	out := leftOut(all, raceEnabled, testing.Short())
	for _, s := range all {
		if why := out[s.name()]; why != "" {
			t.Run(s.name(), func(t *testing.T) { t.Skip(why) })
		}
	}
	run := slices.DeleteFunc(all, func(s script) bool { return out[s.name()] != "" })
	paths, bin := make([]string, 0, len(run)), ""
	if raceEnabled {
		paths, bin = plainScripts(t, run)
	} else {
		for _, s := range run {
			paths = append(paths, s.path)
		}
	}
	testscript.Run(t, testscript.Params{
		Files: paths,
		Setup: func(env *testscript.Env) error {
			env.Values[scriptT{}] = env.T()
			env.Setenv("GORACE", os.Getenv("GORACE"))
			if bin != "" {
				env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"readyfile":  scriptReadyFile,
			"busyport":   scriptBusyPort,
			"freeport":   scriptFreePort,
			"healthy":    scriptHealthy,
			"mode":       scriptMode,
			"file2env":   scriptFileToEnv,
			"expire":     scriptExpire,
			"fat":        scriptFAT,
			"jsonlines":  scriptJSONLines,
			"status":     scriptStatus,
			"eventually": scriptEventually,
			"asksocket":  scriptAskSocket,
		},
	})
}

func scriptReadyFile(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[1])
	deadline := time.Now().Add(scriptWait)
	for {
		b, err := os.ReadFile(path)
		if err == nil && len(b) > 0 {
			ts.Setenv(args[0], strings.TrimSpace(string(b)))
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not appear within %s", args[1], scriptWait)
		}
		time.Sleep(20 * time.Millisecond) // another process writes it: there is nothing to wait on
	}
}

func scriptBusyPort(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = ln.Close() })
	ts.Setenv(args[0], ln.Addr().String())
}

func scriptFreePort(ts *testscript.TestScript, _ bool, args []string) {
	addr, err := porttest.FreeAddress()
	ts.Check(err)
	ts.Setenv(args[0], addr)
}

func scriptHealthy(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(scriptWait)
	for {
		err := askHealth(context.Background(), "http://"+args[0]+"/readyz")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s not healthy within %s: %v", args[0], scriptWait, err)
		}
		time.Sleep(20 * time.Millisecond) // another process: there is nothing to wait on
	}
}

func scriptMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

func scriptFileToEnv(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

func scriptJSONLines(ts *testscript.TestScript, _ bool, args []string) {
	count := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		count++
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			ts.Fatalf("line %d of %s is no JSON object: %v: %s", count, args[0], err, line)
		}
	}
	if count == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
}

func scriptEventually(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile("(?m)" + args[0])
	deadline := time.Now().Add(scriptWait)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no output of %q matched %s within %s; at last: %v", args[1:], args[0], scriptWait, err)
		}
		time.Sleep(100 * time.Millisecond) // what changes is another process's, and the clock
	}
}

func scriptAskSocket(ts *testscript.TestScript, _ bool, args []string) {
	method, path, _ := strings.Cut(args[2], " ")
	req, err := http.NewRequestWithContext(context.Background(), method, "http://localhost"+path, strings.NewReader(strings.Join(args[3:], "&")))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	over := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", ts.MkAbs(args[1]))
	}}
	resp, err := (&http.Client{Transport: over, Timeout: scriptWait}).Do(req)
	ts.Check(err)
	body, err := io.ReadAll(resp.Body)
	ts.Check(errors.Join(err, resp.Body.Close()))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, "%d %s", resp.StatusCode, body), 0o600))
}

func scriptStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

func scriptFAT(ts *testscript.TestScript, _ bool, args []string) {
	dir, unmount, err := fattest.Open(args[1])
	switch {
	case err == nil:
	case fattest.Required():
		ts.Fatalf("%v", err)
	default:
		ts.Value(scriptT{}).(testscript.T).Skip(err)
	}
	ts.Defer(func() {
		if err := unmount(); err != nil {
			ts.Logf("%v", err)
		}
	})
	ts.Setenv(args[0], dir)
}

// scriptExpire makes the token that an operator finds in a forgotten file.
func scriptExpire(ts *testscript.TestScript, _ bool, args []string) {
	dir, file := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	old, err := jose.ParseSigned(strings.TrimSpace(ts.ReadFile(file)))
	ts.Check(err)
	claims := map[string]any{}
	ts.Check(old.UnsafeClaimsWithoutVerification(&claims))
	for _, name := range []string{"iat", "nbf", "exp"} {
		claims[name] = claims[name].(float64) - time.Hour.Seconds()
	}
	claims["jti"] = "another"
	key, err := jose.ReadKey(filepath.Join(dir, "secrets", "enrolment.jwe"), jose.WithPasswordFile(filepath.Join(dir, "secrets", "password")))
	ts.Check(err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key.Key}, new(jose.SignerOptions).WithType("JWT").WithHeader("kid", old.Headers[0].KeyID))
	ts.Check(err)
	token, err := jose.Signed(signer).Claims(claims).CompactSerialize()
	ts.Check(err)
	ts.Check(os.WriteFile(file, []byte(token), 0o600))
}

// perRun gives each run a flag of its own. The library shares one between all
// programs of a process and writes to it; only tests run several at once.
type perRun struct{ *cli.BoolFlag }

func (f perRun) Apply(set *flag.FlagSet) error {
	own := *f.BoolFlag
	return own.Apply(set)
}
