package flags_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// A server is named by https and a host. A password in a URL is in no error.
func TestHTTPSURL(t *testing.T) {
	for _, good := range []string{"https://ca:9443", "https://127.0.0.1", "https://[::1]:1/x"} {
		if err := flags.HTTPSURL(flags.CAURL, good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "ca:9443", "http://ca", "https://", "https://u:canary@ca", "https://u:canary@ca:port", "https://%zz", "https://a\x1b"} {
		err := flags.HTTPSURL(flags.CAURL, bad)
		if err == nil || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// The file goes before the environment, and a missing one is not replaced by it.
func TestPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("of the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, env, want, source string }{
		{"", "", "", ""},
		{"", "of the environment", "of the environment", ""},
		{file, "of the environment", "of the file", file},
		{file + ".not", "of the environment", "", file + ".not"},
	} {
		u := ui.New(ui.Streams{Err: io.Discard, Getenv: func(name string) string {
			if name == flags.EnvPassword {
				return c.env
			}
			return ""
		}})
		app := &cli.App{Flags: []cli.Flag{flags.Shared(flags.PasswordFile)}, Action: func(ctx *cli.Context) error {
			got, err := flags.Password(u, ctx)
			if got.Expose() != c.want || (err == nil) == strings.HasSuffix(c.path, ".not") {
				t.Errorf("%+v: %q, %v", c, got.Expose(), err)
			}
			from, later := flags.PasswordSource(u, ctx)
			if from != c.source || c.path == "" && later.Expose() != c.want {
				t.Errorf("%+v: %q, %q", c, from, later.Expose())
			}
			return nil
		}}
		if err := app.Run([]string{"x", "--" + flags.PasswordFile, c.path}); err != nil {
			t.Error(err)
		}
	}
}

// Each shared flag has the name that it is asked for by, and is a new one.
func TestShared(t *testing.T) {
	for _, name := range []string{flags.Dir, flags.CAURL, flags.TokenFile, flags.AuthorityName, flags.PasswordFile, flags.ReadyFile} {
		if f := flags.Shared(name); f.Names()[0] != name || f == flags.Shared(name) {
			t.Errorf("%s: %v", name, f.Names())
		}
	}
}
