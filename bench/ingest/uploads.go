package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/artstore/artstore-pki/bench/internal/frame"
	"github.com/artstore/artstore-pki/internal/pkitest"
)

// startServer prepares identities and starts the server, which knows the small file
// and those in sums.
func (b *bench) startServer(ctx context.Context, sums map[int64]string) (job, func() error, error) {
	j := job{
		Client: filepath.Join(b.dir, "client"), Server: filepath.Join(b.dir, "server"), File: b.largeFile(),
		Size: b.size, Files: b.files, Sums: sums,
	}
	small := sha256.Sum256(make([]byte, smallSize))
	j.Sums[smallSize] = hex.EncodeToString(small[:])
	ca := pkitest.NewCA(pkitest.Example())
	if err := errors.Join(issue(ca, j.Client, "ingester"), issue(ca, j.Server, "storage-element")); err != nil {
		return j, nil, err
	}
	stop, err := start(ctx, &j)
	return j, stop, err
}

func (b *bench) largeFile() string { return filepath.Join(b.dir, "large") }

// writeLarge makes the large file and returns its SHA-256.
func (b *bench) writeLarge() (string, error) {
	f, err := os.Create(b.largeFile()) //nolint:forbidigo // made anew by each run
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, sum), rand.Reader, b.size)
	return hex.EncodeToString(sum.Sum(nil)), errors.Join(err, f.Close())
}

// best of each figure over the rounds: neighbours on the machine only ever add.
func best(rounds []measurement) measurement {
	least := rounds[0]
	for _, t := range rounds {
		least.Seconds, least.CPU, least.Memory = min(least.Seconds, t.Seconds), min(least.CPU, t.CPU), max(least.Memory, t.Memory)
	}
	return least
}

// speed is what ratios are of: of the same content, the inverse of the time.
func (t measurement) speed() float64 { return 1 / t.Seconds }

func (b *bench) large(ctx context.Context) error {
	sum, err := b.writeLarge()
	if err != nil {
		return err
	}
	j, stop, err := b.startServer(ctx, map[int64]string{b.size: sum})
	if err != nil {
		return err
	}
	lanes := []lane{
		own("crypto/tls copy (limit)", "tls", j), own("crypto/tls copy again (control)", "tls", j), own("crypto/tls copy + SHA-256", "tls-sum", j),
		own("ingestclient", "ours", j), own("ingestclient, no checksum", "ours-unsummed", j), own("ingestclient, HTTP/2", "ours-h2", j),
		own("io.Pipe multipart, chunked", "pipe", j), own("multipart in bytes.Buffer", "buffer", j),
		own("TCP, no TLS, 256 KiB writes", "tcp", j), own("TCP, no TLS, sendfile", "tcp-sendfile", j), own("ingestclient, idle", "idle", j),
	}
	if _, err := exec.LookPath("curl"); err == nil {
		lanes = append(lanes, curl("curl, HTTP/1.1", "--http1.1", j), curl("curl, HTTP/2", "--http2", j))
	}
	all, err := b.interleave(ctx, lanes)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	gib := float64(b.size) / (1 << 30)
	b.Print("\nOne file of %.2f GiB, mutual TLS 1.3, %d rounds; ratios are throughput, paired by round\n", gib, b.rounds)
	b.Print("  %-34s %8s %12s %12s %12s %10s\n", "", "MB/s", "of the limit", "of it + SHA", "CPU-s/GiB", "peak MiB")
	for i, l := range lanes {
		t := best(all[i])
		if l.name == "ingestclient, idle" {
			b.Print("  %-34s %8s %12s %12s %12s %10.1f\n", l.name, "", "", "", "", t.MiB())
			continue
		}
		b.Print("  %-34s %8.0f %12.2f %12.2f %12.2f %10.1f\n", l.name, float64(b.size)/t.Seconds/1e6, frame.Paired(all[i], all[0], measurement.speed), frame.Paired(all[i], all[2], measurement.speed), t.CPU.Seconds()/gib, t.MiB())
	}
	return nil
}

func (b *bench) small(ctx context.Context) error {
	j, stop, err := b.startServer(ctx, map[int64]string{})
	if err != nil {
		return err
	}
	b.Print("\n%d files of 4 KiB, mutual TLS 1.3, HTTP/1.1, best of %d rounds; the ratio is paired by round\n", b.files, b.rounds)
	b.Print("  %-34s %8s %10s %10s %14s\n", "", "workers", "files/s", "× default", "CPU µs a file")
	for _, workers := range []int{1, 8, 64} {
		j.Workers = workers
		lanes := []lane{own("http.Transport, default", "default-small", j), own("http.Transport, pooled", "pooled-small", j), own("ingestclient", "ours-small", j)}
		all, err := b.interleave(ctx, lanes)
		if err != nil {
			return errors.Join(err, stop())
		}
		for i, l := range lanes {
			t := best(all[i])
			b.Print("  %-34s %8d %10.0f %10.2f %14.0f\n", l.name, workers, float64(b.files)/t.Seconds, frame.Paired(all[i], all[0], measurement.speed), t.CPU.Seconds()*1e6/float64(b.files))
		}
	}
	return stop()
}
