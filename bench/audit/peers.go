package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// modules are the tools that others use, by their names on the command line.
var modules = []struct{ name, module string }{
	{"cert-exporter", "github.com/joe-elliott/cert-exporter@latest"},
	{"certigo", "github.com/square/certigo@latest"},
	{"ssl_exporter", "github.com/ribbybibby/ssl_exporter/v2@latest"},
	{"x509-certificate-exporter", "github.com/enix/x509-certificate-exporter/v4/cmd/x509-certificate-exporter@latest"},
}

// install finds those that are in PATH, gets those that "go install" serves, and says which it does not.
func install(ctx context.Context, out *frame.Printer, bin string) map[string]string {
	found := map[string]string{}
	for _, m := range modules {
		if path, err := exec.LookPath(m.name); err == nil {
			found[m.name] = path
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "install", m.module) //nolint:gosec // G204: of the list above
		cmd.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			out.Print("not served: go install %s: %s\n", m.module, lines[len(lines)-1])
			continue
		}
		found[m.name] = filepath.Join(bin, m.name)
	}
	if path, err := exec.LookPath("openssl"); err == nil {
		found["openssl"] = path
	}
	return found
}

// opensslFiles is how many files openssl is started for; the rest is computed.
const opensslFiles = 50

func filePeers(c corpus, bin map[string]string) (out []contender) {
	if p := bin["cert-exporter"]; p != "" {
		out = append(out, certExporter(p, filepath.Join(c.files, "*", "*.crt")))
	}
	if p := bin["ssl_exporter"]; p != "" {
		out = append(out, server("ssl_exporter, one probe", p, func(address string) ([]string, string) {
			query := url.Values{"module": {"file"}, "target": {filepath.Join(c.files, "**", "*.crt")}}
			return []string{"--web.listen-address=" + address}, "/probe?" + query.Encode()
		}))
	}
	if p := bin["x509-certificate-exporter"]; p != "" {
		out = append(out, server("x509-certificate-exporter", p, func(address string) ([]string, string) {
			return []string{"--listen-address=" + address, "--watch-file=" + filepath.Join(c.files, "*", "*.crt")}, "/metrics"
		}))
	}
	files := some(c.files, opensslFiles)
	part := float64(len(files)) / float64(c.size)
	if p := bin["certigo"]; p != "" {
		out = append(out, contender{"certigo dump, one process", part, func(ctx context.Context) (frame.Usage, error) {
			return measure(ctx, p, append(words("dump --json"), files...)...)
		}})
	}
	if p := bin["openssl"]; p != "" {
		out = append(out, contender{"openssl x509, a process each", part, func(ctx context.Context) (total frame.Usage, err error) {
			for _, f := range files {
				u, err := measure(ctx, p, "x509", "-noout", "-enddate", "-in", f)
				if err != nil {
					return total, err
				}
				total = frame.Usage{CPU: total.CPU + u.CPU, Memory: max(total.Memory, u.Memory)}
			}
			return total, nil
		}})
	}
	return out
}

func bundlePeers(c corpus, bin map[string]string) (out []contender) {
	if p := bin["cert-exporter"]; p != "" {
		out = append(out, certExporter(p, c.bundle))
	}
	if p := bin["openssl"]; p != "" {
		out = append(out, command("openssl storeutl -certs", p, "storeutl", "-noout", "-certs", c.bundle))
	}
	return out
}

func certExporter(program, glob string) contender {
	return server("cert-exporter", program, func(address string) ([]string, string) {
		return []string{"--include-cert-glob=" + glob, "--prometheus-listen-address=" + address, "--logtostderr"}, ""
	})
}

// some are the first files below a path.
func some(root string, n int) (out []string) {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { // what it finds is enough
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		if len(out) == n {
			return fs.SkipAll
		}
		return err
	})
	return out
}

// server is a contender that scans and then serves. It is asked for one page if
// it scans for that, and stopped when it has been idle for a while.
func server(name, program string, start func(address string) (args []string, page string)) contender {
	return contender{name, 1, func(ctx context.Context) (frame.Usage, error) {
		address, err := frame.FreeAddress()
		if err != nil {
			return frame.Usage{}, err
		}
		args, page := start(address)
		cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // G204: the contenders are in this program
		cmd.Env = append(os.Environ(), oneProcessor)
		if err := cmd.Start(); err != nil {
			return frame.Usage{}, err
		}
		err = settled(ctx, cmd.Process.Pid)
		if err == nil && page != "" {
			if err = get(ctx, "http://"+address+page); err == nil {
				err = settled(ctx, cmd.Process.Pid)
			}
		}
		_ = cmd.Process.Signal(syscall.SIGKILL) // it has nothing to lose
		_ = cmd.Wait()                          // killed, as wanted
		return frame.Ended(cmd.ProcessState), err
	}}
}

func get(ctx context.Context, page string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // no TLS, and a process of ours
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return err
}

// settled waits until a process has not used the processor for a second.
func settled(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	last, idle := time.Duration(-1), 0
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		case <-tick.C:
		}
		u, err := frame.Running(pid)
		if err != nil {
			return err
		}
		if idle++; u.CPU != last {
			last, idle = u.CPU, 0
		}
		if idle == 10 {
			tick.Stop()
			return nil
		}
	}
}
